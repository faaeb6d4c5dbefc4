//! The client: typed calls, tried again where that can help, and a resumable tail over the
//! generated stubs.
//!
//! Promises: every failure is a [`ClientError`] that says whether trying again
//! can help and, for a write, whether it may have happened all the same. [`Retry`]
//! tries again, with the same request id. Every
//! call has an end: a deadline that the server is told of too, or, for the feed,
//! the heartbeats of [`tail`]. Knows the messages and the wire, nothing of the
//! server's rooms.

mod backoff;
mod cursor_file;
mod error;
pub(crate) mod resume;
mod retry;
pub mod tail;

use std::future::Future;
use std::time::Duration;

pub use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

pub use self::backoff::Backoff;
pub use self::cursor_file::{CursorFile, CursorFileError};
pub use self::error::{ClientError, Violation, reason};
pub use self::retry::{Retry, Retryable};
use self::stubs::event_feed_service_client::EventFeedServiceClient;
use self::stubs::game_service_client::GameServiceClient;
use crate::proto;

/// The generated client stubs.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod stubs {
    include!(concat!(env!("OUT_DIR"), "/client/game.v1.rs"));
}

/// How often a connection is probed during calls, so that one that died silently is
/// noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// How long a probe may stay unanswered before the connection counts as dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest message taken from a server: room for a catalogue of 10,000 items
/// with the longest names, and for any batch of events.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// How a [`Client`] connects and how long it waits.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The longest time to wait for a connection.
    pub connect_timeout: Duration,
    /// The deadline of each unary call.
    pub call_timeout: Duration,
    /// Connect at the first call instead of at once.
    pub lazy: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        let timeout = Duration::from_secs(5);
        Self { connect_timeout: timeout, call_timeout: timeout, lazy: false }
    }
}

/// A connection to one server. Cheap to clone; clones share the connection,
/// which is made anew by itself after it broke.
#[derive(Clone, Debug)]
pub struct Client {
    game: GameServiceClient<Channel>,
    feed: EventFeedServiceClient<Channel>,
    health: HealthClient<Channel>,
    call_timeout: Duration,
}

impl Client {
    /// Connects to `endpoint`, such as `http://127.0.0.1:50051`; without a scheme
    /// it is taken for http.
    ///
    /// # Errors
    ///
    /// The endpoint is no address, or (unless lazy) nothing answers there.
    pub async fn connect(endpoint: &str, options: ConnectOptions) -> Result<Self, ClientError> {
        let address = with_scheme(endpoint);
        if address.starts_with("https://") {
            return Err(ClientError::local(
                Code::InvalidArgument,
                "this client speaks plain http, let a proxy near it do the TLS",
            ));
        }
        let configured = Endpoint::from_shared(address.clone())
            .map_err(|_| {
                ClientError::local(
                    Code::InvalidArgument,
                    format!("{endpoint} is no server address, write it like http://host:50051"),
                )
            })?
            .user_agent(concat!("herald/", env!("CARGO_PKG_VERSION")))
            .map_err(|cause| ClientError::local(Code::InvalidArgument, cause.to_string()))?
            .connect_timeout(options.connect_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            // The server asks in between; some proxies refuse pings without a call.
            .keep_alive_while_idle(false)
            .tcp_nodelay(true);
        let channel = if options.lazy {
            configured.connect_lazy()
        } else {
            configured.connect().await.map_err(|cause| ClientError::unreached(&address, &cause))?
        };
        Ok(Self {
            game: GameServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_RESPONSE_BYTES),
            feed: EventFeedServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_RESPONSE_BYTES),
            health: HealthClient::new(channel),
            call_timeout: options.call_timeout,
        })
    }

    /// The same connection with another deadline for each call.
    pub fn with_call_timeout(&self, call_timeout: Duration) -> Self {
        Self { call_timeout, ..self.clone() }
    }

    /// Starts a play session.
    ///
    /// # Errors
    ///
    /// Those of the RPC, see `proto/game.proto`; so for all methods here.
    pub async fn start_session(
        &self,
        request: proto::StartSessionRequest,
    ) -> Result<proto::StartSessionResponse, ClientError> {
        let mut game = self.game.clone();
        self.unary(request, |request| async move { game.start_session(request).await }).await
    }

    /// Buys a quantity of one item.
    pub async fn purchase_item(
        &self,
        request: proto::PurchaseItemRequest,
    ) -> Result<proto::PurchaseItemResponse, ClientError> {
        let mut game = self.game.clone();
        self.unary(request, |request| async move { game.purchase_item(request).await }).await
    }

    /// Makes a player a member of a guild.
    pub async fn join_guild(
        &self,
        request: proto::JoinGuildRequest,
    ) -> Result<proto::JoinGuildResponse, ClientError> {
        let mut game = self.game.clone();
        self.unary(request, |request| async move { game.join_guild(request).await }).await
    }

    /// Returns what a player has.
    pub async fn player(
        &self,
        request: proto::GetPlayerRequest,
    ) -> Result<proto::GetPlayerResponse, ClientError> {
        let mut game = self.game.clone();
        self.unary(request, |request| async move { game.get_player(request).await }).await
    }

    /// Returns a page of a guild's members.
    pub async fn guild_members(
        &self,
        request: proto::ListGuildMembersRequest,
    ) -> Result<proto::ListGuildMembersResponse, ClientError> {
        let mut game = self.game.clone();
        self.unary(request, |request| async move { game.list_guild_members(request).await }).await
    }

    /// Ends a player's membership in a guild.
    pub async fn leave_guild(
        &self,
        request: proto::LeaveGuildRequest,
    ) -> Result<proto::LeaveGuildResponse, ClientError> {
        let mut game = self.game.clone();
        self.unary(request, |request| async move { game.leave_guild(request).await }).await
    }

    /// Gives a player a quantity of one item.
    pub async fn grant_item(
        &self,
        request: proto::GrantItemRequest,
    ) -> Result<proto::GrantItemResponse, ClientError> {
        let mut game = self.game.clone();
        self.unary(request, |request| async move { game.grant_item(request).await }).await
    }

    /// Takes a quantity of one item that the player uses up.
    pub async fn consume_item(
        &self,
        request: proto::ConsumeItemRequest,
    ) -> Result<proto::ConsumeItemResponse, ClientError> {
        let mut game = self.game.clone();
        self.unary(request, |request| async move { game.consume_item(request).await }).await
    }

    /// Takes back a purchase.
    pub async fn refund_purchase(
        &self,
        request: proto::RefundPurchaseRequest,
    ) -> Result<proto::RefundPurchaseResponse, ClientError> {
        let mut game = self.game.clone();
        self.unary(request, |request| async move { game.refund_purchase(request).await }).await
    }

    /// Returns the receipt of an action by its request id.
    pub async fn receipt(
        &self,
        request: proto::GetReceiptRequest,
    ) -> Result<proto::GetReceiptResponse, ClientError> {
        let mut game = self.game.clone();
        self.unary(request, |request| async move { game.get_receipt(request).await }).await
    }

    /// Returns what can be bought and which guilds can be joined.
    pub async fn catalog(&self) -> Result<proto::GetCatalogResponse, ClientError> {
        let mut game = self.game.clone();
        self.unary(
            proto::GetCatalogRequest {},
            |request| async move { game.get_catalog(request).await },
        )
        .await
    }

    /// Returns the bounds of the feed.
    pub async fn feed(&self) -> Result<proto::GetFeedResponse, ClientError> {
        let mut feed = self.feed.clone();
        self.unary(proto::GetFeedRequest {}, |request| async move { feed.get_feed(request).await })
            .await
    }

    /// Whether the server says that a service, such as `game.v1.GameService`, does its work
    /// now.
    pub async fn is_serving(&self, service: &str) -> Result<bool, ClientError> {
        let mut health = self.health.clone();
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer =
            self.unary(request, |request| async move { health.check(request).await }).await?;
        Ok(answer.status() == ServingStatus::Serving)
    }

    /// Opens one stream of events, without a deadline and without reconnecting;
    /// [`tail::Tail`] is the one to use.
    pub async fn stream_events(
        &self,
        request: proto::StreamEventsRequest,
    ) -> Result<Streaming<proto::StreamEventsResponse>, ClientError> {
        let response = self.feed.clone().stream_events(request).await;
        Ok(response.map_err(ClientError::from)?.into_inner())
    }

    /// Makes one call with the deadline that this client was given.
    async fn unary<Q, A, F, C>(&self, message: Q, call: C) -> Result<A, ClientError>
    where
        C: FnOnce(Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut request = Request::new(message);
        request.set_timeout(self.call_timeout);
        // The channel's own timer stops at the head of the answer; this one
        // covers all of it.
        match tokio::time::timeout(self.call_timeout, call(request)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(ClientError::local(
                Code::DeadlineExceeded,
                format!("no answer within {:?}", self.call_timeout),
            )),
        }
    }
}

fn with_scheme(endpoint: &str) -> String {
    if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") }
}
