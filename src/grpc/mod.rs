//! gRPC and gRPC-web: translates, and decides nothing.
//!
//! A call passes through these, from the outside in:
//!
//! 1. `tonic_web` turns gRPC-web into gRPC;
//! 2. [`access`] counts the call and writes its line;
//! 3. [`frames`] refuses what is too large or no message, before it is buffered;
//! 4. [`unary`] calls the method of its path; `StreamEvents` has an answer of its own;
//! 5. [`game`] and [`feed`] translate between messages and rooms.
//!
//! [`stop`] ends health's and reflection's streams when the server stops, as nobody else
//! does. [`status`] is the only place that knows gRPC's codes.

mod access;
mod body;
mod feed;
mod frames;
mod game;
mod request;
mod status;
mod stop;
mod unary;

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::header::CONTENT_TYPE;
use ipnet::IpNet;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service, service_fn};

use crate::commands::Commands;
use crate::domain::{AddressPolicy, HeaderPolicy};
use crate::feed::Lane;
use crate::players::Players;
use crate::proto;
use crate::telemetry::AccessLog;

use access::Access;
pub use access::Metrics;
pub use body::ResponseBody;
pub use frames::{frame_encoded, unframe};
pub use request::{Peer, is_plain_grpc};
use stop::UntilStopped;
use unary::Unary;

/// The generated server stubs.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod stubs {
    include!(concat!(env!("OUT_DIR"), "/server/game.v1.rs"));
}

use stubs::event_feed_service_server::EventFeedServiceServer;
use stubs::game_service_server::GameServiceServer;

/// Settings of the transport.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most bytes of a request message.
    pub max_message_bytes: usize,
    /// Which headers are kept with events.
    pub headers: HeaderPolicy,
    /// What is kept of callers' addresses.
    pub addresses: AddressPolicy,
    /// Whose word on forwarded addresses is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether anonymous callers may read origins.
    pub expose_origin: bool,
}

/// The rooms behind the transport, as one runtime sees them.
#[derive(Clone)]
pub struct Rooms {
    /// The write path.
    pub commands: Commands,
    /// What players have.
    pub players: Players,
    /// The feed.
    pub feed: Lane,
}

/// The standard health service, whose state all runtimes share.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    service: tonic_health::pb::health_server::HealthServer<tonic_health::server::HealthService>,
    stopping: CancellationToken,
}

impl Health {
    /// Nothing is serving yet.
    pub async fn new() -> Self {
        let (reporter, _) = tonic_health::server::health_reporter();
        let service = tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(reporter.clone()),
        );
        let health = Self { reporter, service, stopping: CancellationToken::new() };
        health.set(Serving { writes: false, feed: false }).await;
        health
    }

    /// Ends the streams of those who watch, once they have been told what was set.
    pub fn close(&self) {
        self.stopping.cancel();
    }

    /// Sets what the services answer.
    pub async fn set(&self, serving: Serving) {
        for (name, serves) in [
            ("", serving.writes && serving.feed),
            (<GameServiceServer<game::Game> as NamedService>::NAME, serving.writes),
            (<EventFeedServiceServer<feed::EventFeed> as NamedService>::NAME, serving.feed),
        ] {
            let status = if serves {
                tonic_health::ServingStatus::Serving
            } else {
                tonic_health::ServingStatus::NotServing
            };
            self.reporter.set_service_status(name, status).await;
        }
    }
}

/// What the process can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Take actions.
    pub writes: bool,
    /// Stream events.
    pub feed: bool,
}

/// What the transport counts, and shares between runtimes.
pub fn register_metrics(registry: &mut Registry) -> Arc<Metrics> {
    let unary: Vec<_> = unary::METHODS.iter().copied().chain([HEALTH_CHECK]).collect();
    Arc::new(Metrics::register(registry, &unary, &STREAMING_METHODS))
}

/// The methods that have metrics of their own beside the unary ones of Herald's services;
/// others count as "other".
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
const STREAMING_METHODS: [&str; 2] = [feed::STREAM_EVENTS, "/grpc.health.v1.Health/Watch"];

/// Everything that is served over gRPC, for one runtime. Cheap to clone.
#[derive(Clone)]
pub struct Transport(Arc<Inner>);

struct Inner {
    dispatch: Dispatch,
    access: Access,
    /// Of gRPC-web.
    web: BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>,
}

/// The body of a response.
pub type ServedBody = access::Watched<ResponseBody>;

impl Transport {
    /// The transport of one runtime.
    ///
    /// # Errors
    ///
    /// Reflection finds a descriptor set that it cannot read.
    pub fn build(
        options: Arc<Options>,
        rooms: Rooms,
        health: Health,
        metrics: Arc<Metrics>,
        access_log: AccessLog,
    ) -> Result<Self, tonic_reflection::server::Error> {
        let feed =
            feed::EventFeed::new(rooms.feed.clone(), rooms.commands.clone(), Arc::clone(&options));
        let game = game::Game::new(rooms.commands, rooms.players, Arc::clone(&options));
        let dispatch = Dispatch {
            stopping: health.stopping.clone(),
            lane: rooms.feed,
            unary: Unary {
                game: Arc::new(game),
                feed: Arc::new(feed),
                max_message_bytes: options.max_message_bytes,
            },
            others: others(health, options.max_message_bytes)?,
            options,
        };
        let access = Access::new(metrics, access_log);
        let web = web(dispatch.clone(), access.clone());
        Ok(Self(Arc::new(Inner { dispatch, access, web })))
    }

    /// Serves a call that came as `came_by`, and is one of gRPC now. Its extensions hold the
    /// [`Peer`].
    pub fn serve<B>(
        &self,
        mut request: http::Request<B>,
        came_by: proto::Transport,
    ) -> impl Future<Output = http::Response<ServedBody>> + Send + use<B>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        request::note(&mut request, came_by);
        let call = self.0.access.begin(&request);
        self.0.dispatch.serve(request).map(|response| call.watch(response))
    }

    /// The same of gRPC-web.
    pub fn serve_web<B>(
        &self,
        request: http::Request<B>,
    ) -> impl Future<Output = http::Response<ServedBody>> + Send + use<B>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let mut request = request.map(Body::new);
        request::note(&mut request, proto::Transport::GrpcWeb);
        self.0.web.clone().call(request).map(|served| {
            let response = served.unwrap_or_else(|never: Infallible| match never {});
            // Counted within, where its status can still be read.
            response.map(|body| ServedBody::unwatched(body.into()))
        })
    }

    /// Refuses a call of gRPC-web.
    pub fn refuse_web<B>(
        &self,
        request: &http::Request<B>,
        status: &tonic::Status,
    ) -> http::Response<ServedBody> {
        self.note_refused(request.uri().path(), request.extensions(), status.code().into());
        // A status without a message is in the headers in both.
        let mut response = status.clone().into_http::<Body>();
        if let Some(of_request) = request.headers().get(CONTENT_TYPE) {
            response.headers_mut().insert(CONTENT_TYPE, of_request.clone());
        }
        response.map(|body| ServedBody::unwatched(body.into()))
    }

    /// Counts and writes down a call that was refused before it was made one of gRPC.
    pub fn note_refused(&self, path: &str, extensions: &http::Extensions, code: i32) {
        self.0.access.note(path, extensions, code);
    }
}

/// What turns gRPC-web into gRPC, and back.
fn web(
    dispatch: Dispatch,
    access: Access,
) -> BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible> {
    let calls = service_fn(move |request: http::Request<Body>| {
        let (dispatch, call) = (dispatch.clone(), access.begin(&request));
        async move {
            let response = call.watch(dispatch.serve(request).await);
            Ok::<_, Infallible>(response.map(Body::new))
        }
    });
    BoxCloneSyncService::new(GrpcWebLayer::new().layer(calls))
}

/// Reflection and health: rarely called, so generic routing will do.
fn others(
    health: Health,
    max_message_bytes: usize,
) -> Result<tonic::service::Routes, tonic_reflection::server::Error> {
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let health = health.service.max_decoding_message_size(max_message_bytes);
    let v1 = descriptors().build_v1()?.max_decoding_message_size(max_message_bytes);
    let v1alpha = descriptors().build_v1alpha()?.max_decoding_message_size(max_message_bytes);
    Ok(tonic::service::Routes::new(health).add_service(v1).add_service(v1alpha).prepare())
}

/// Chooses the service of a call by its path.
#[derive(Clone)]
struct Dispatch {
    stopping: CancellationToken,
    options: Arc<Options>,
    lane: Lane,
    unary: Unary,
    others: tonic::service::Routes,
}

impl Dispatch {
    /// What it returns is small, as it is moved about at each call.
    fn serve<B>(
        &self,
        request: http::Request<B>,
    ) -> impl Future<Output = http::Response<ResponseBody>> + Send + use<B>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let encoding = request.headers().get("grpc-encoding");
        if encoding.is_some_and(|encoding| encoding != "identity") {
            let mut response = status::compressed().into_http::<Body>().map(ResponseBody::from);
            let identity = http::HeaderValue::from_static("identity");
            response.headers_mut().insert("grpc-accept-encoding", identity);
            return Either::Left(ready(response));
        }
        let request = match self.unary.serve(request) {
            Either::Left(answer) => return Either::Right(answer),
            Either::Right(request) => request,
        };
        if request.uri().path() == feed::STREAM_EVENTS {
            let max_message_bytes = self.options.max_message_bytes;
            let lane = self.lane.clone();
            let served = feed::stream_events(lane, &self.options, request, max_message_bytes);
            return Either::Right(served.boxed());
        }
        let served = self.serve_others(request.map(Body::new)).map(|served| {
            let response = served.unwrap_or_else(|never: Infallible| match never {});
            // The router answers so, and says nothing, when there is no such method.
            if status::is_bare_unimplemented(response.headers()) {
                return status::unknown_method().into_http::<Body>().map(ResponseBody::from);
            }
            response.map(ResponseBody::from)
        });
        Either::Right(served.boxed())
    }

    fn serve_others(
        &self,
        request: http::Request<Body>,
    ) -> impl Future<Output = Result<http::Response<Body>, Infallible>> + Send + use<> {
        let stopping = self.stopping.clone();
        self.others.clone().call(request).map(move |served| {
            // Some of these are streams that would last longer than the server.
            served
                .map(|response| response.map(|body| Body::new(UntilStopped::new(body, &stopping))))
        })
    }
}
