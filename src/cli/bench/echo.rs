//! `herald bench echo`: a unary tonic server as tonic's own examples start it.
//!
//! It answers the path of PurchaseItem with a receipt of realistic size and does
//! nothing else, so that what a durable write costs can be seen against what the
//! call alone costs. The handler is put together by hand, as the generated stubs
//! of this crate have no echo.
//!
//! With a Kafka it writes each request there first, by rdkafka's `FutureProducer` as
//! the examples of that do it: the yardstick of what a durable write costs.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use clap::Args;
use prost::Message as _;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
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
    /// Write each request to this Kafka before answering it.
    #[arg(long, value_name = "BROKERS")]
    kafka_brokers: Option<String>,
    /// The topic to write to; made when it is missing.
    #[arg(long, value_name = "NAME", default_value = "herald-bench")]
    topic: String,
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
            let service = match self.kafka_brokers {
                None => Service(None),
                Some(brokers) => Service(Some(Kafka::connect(&brokers, self.topic).await?)),
            };
            output.line(format_args!("listening on http://{address}"))?;
            output.flush()?;
            let server = Server::builder().add_service(service).serve_with_incoming(incoming);
            server.await.context("the server failed")?;
            Ok(Exit::Done)
        })
    }
}

type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// A topic and its producer.
#[derive(Clone)]
struct Kafka {
    producer: FutureProducer,
    topic: Arc<str>,
}

impl Kafka {
    /// As durable, and as quick to send, as Herald's own.
    async fn connect(brokers: &str, topic: String) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "1");
        let admin: AdminClient<_> = config.create()?;
        let new = NewTopic::new(&topic, 6, TopicReplication::Fixed(-1));
        for made in admin.create_topics([&new], &AdminOptions::new()).await? {
            if let Err((topic, code)) = made
                && code != RDKafkaErrorCode::TopicAlreadyExists
            {
                anyhow::bail!("cannot make topic {topic}: {code}");
            }
        }
        Ok(Self { producer: config.create()?, topic: topic.into() })
    }

    async fn write(&self, request: &PurchaseItemRequest) -> Result<(), Status> {
        let value = request.encode_to_vec();
        let record = FutureRecord::to(&self.topic).key(&request.player_id).payload(&value);
        let written = self.producer.send(record, Timeout::Never).await;
        written.map(drop).map_err(|(error, _)| Status::unavailable(error.to_string()))
    }
}

#[derive(Clone)]
struct Service(Option<Kafka>);

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
        let handler = Handler(self.0.clone());
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(handler, request).await) })
    }
}

struct Handler(Option<Kafka>);

impl UnaryService<PurchaseItemRequest> for Handler {
    type Response = PurchaseItemResponse;
    type Future = BoxFuture<Response<PurchaseItemResponse>, Status>;

    fn call(&mut self, request: Request<PurchaseItemRequest>) -> Self::Future {
        let (kafka, request) = (self.0.clone(), request.into_inner());
        Box::pin(async move {
            if let Some(kafka) = kafka {
                kafka.write(&request).await?;
            }
            Ok(Response::new(answer(request)))
        })
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
            catalog_version: "0123456789ab".to_owned(),
        }),
        owned_quantity: 1,
    }
}
