//! `herald bench echo`: a unary tonic server as tonic's own examples start it.
//!
//! It answers the path of PurchaseItem with a receipt of realistic size and does
//! nothing else, so that what a durable write costs can be seen against what the
//! call alone costs. The handler is put together by hand: the generated stubs
//! would bring Herald's own codec with them.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Context as _;
use clap::Args;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::payload::PATH;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::proto::{EventReceipt, ItemPurchased, PurchaseItemRequest, PurchaseItemResponse};

/// A cursor of usual length.
const CURSOR: &str = "AQpUa3hKc1VtQ2lSZ3hXb0E2dDFQeGc9PQYAAAABAAAAAgAAAAMAAAAEAAAABQ";

/// An event id of usual form.
const EVENT_ID: &str = "0192f0c1-5a3b-5c1d-8e2f-3a4b5c6d7e8f";

/// Arguments of `herald bench echo`.
#[derive(Debug, Args)]
pub struct Echo {
    /// Where to listen; port 0 is any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Use one thread for all instead of tokio's default of one a core.
    #[arg(long)]
    single_thread: bool,
}

impl Echo {
    /// Serves until it is ended by a signal.
    pub fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let mut builder = if self.single_thread {
            tokio::runtime::Builder::new_current_thread()
        } else {
            tokio::runtime::Builder::new_multi_thread()
        };
        let runtime = builder.enable_all().build().context("cannot start the runtime")?;
        runtime.block_on(async {
            let incoming = TcpIncoming::bind(self.listen)
                .with_context(|| format!("cannot listen on {}", self.listen))?
                .with_nodelay(Some(true));
            let address = incoming.local_addr().context("no local address")?;
            output.line(format_args!("listening on http://{address}"))?;
            output.flush()?;
            let server = Server::builder().add_service(Service).serve_with_incoming(incoming);
            server.await.context("the server failed")?;
            Ok(Exit::Done)
        })
    }
}

type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

#[derive(Clone)]
struct Service;

impl NamedService for Service {
    const NAME: &'static str = "game.v1.GameService";
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            let status = Status::unimplemented("this is only the yardstick of a benchmark");
            return Box::pin(async move { Ok(status.into_http()) });
        }
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(Handler, request).await) })
    }
}

struct Handler;

impl UnaryService<PurchaseItemRequest> for Handler {
    type Response = PurchaseItemResponse;
    type Future = BoxFuture<Response<PurchaseItemResponse>, Status>;

    fn call(&mut self, request: Request<PurchaseItemRequest>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(answer(request.into_inner()))) })
    }
}

fn answer(request: PurchaseItemRequest) -> PurchaseItemResponse {
    let quantity = request.quantity.unwrap_or(1);
    let unit_price = 100;
    PurchaseItemResponse {
        receipt: Some(EventReceipt {
            event_id: EVENT_ID.to_owned(),
            request_id: request.request_id,
            cursor: CURSOR.to_owned(),
            accept_time: Some(prost_types::Timestamp { seconds: 1_767_323_045, nanos: 6_000_000 }),
            replayed: false,
            partition: 3,
            offset: 123_456,
        }),
        purchase: Some(ItemPurchased {
            item_id: request.item_id,
            quantity,
            unit_price,
            total_price: unit_price * i64::from(quantity),
            currency_code: "gold".to_owned(),
        }),
    }
}
