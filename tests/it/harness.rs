//! A server of a test's own, and what tests ask of it over and over.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;

use clap::Parser;
use herald::client::stubs::event_feed_service_client::EventFeedServiceClient;
use herald::client::stubs::game_service_client::GameServiceClient;
use herald::config::Settings;
use herald::proto::stream_events_request::Start;
use herald::proto::stream_events_response::Response;
use herald::proto::{
    DeliveredEvent, PurchaseItemRequest, StartPosition, StreamEventsRequest, StreamEventsResponse,
};
use herald::server::{Server, StopError};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tonic_types::StatusExt as _;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

/// A server in a thread of its own, on free ports, with a folder of its own.
pub struct TestServer {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    flags: Vec<String>,
    dir: TempDir,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), StopError>>,
}

impl TestServer {
    pub async fn start(flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::start_in(tempfile::tempdir().unwrap(), flags).await
    }

    pub async fn start_in(dir: TempDir, flags: Vec<String>) -> Self {
        let data_dir = format!("--data-dir={}", dir.path().join("data").display());
        let fixed = ["herald", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"];
        let all = fixed.into_iter().map(str::to_owned).chain([data_dir]).chain(flags.clone());
        let config = Flags::parse_from(all).settings.load().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, addresses) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(config, None).await.unwrap();
                bound.send((server.address().unwrap(), server.admin_address().unwrap())).unwrap();
                server
                    .run(async {
                        let _ = stopped.await;
                    })
                    .await
            })
        });
        let (address, admin) = addresses.await.expect("the server must start");
        while !get(admin, "/ready").await.0.starts_with("HTTP/1.1 200") {}
        Self { address, admin, flags, dir, stop, thread }
    }

    /// Stops in order and returns what that gave.
    pub async fn stop(self) -> (Result<(), StopError>, TempDir, Vec<String>) {
        let Self { stop, thread, dir, flags, .. } = self;
        let _ = stop.send(());
        let result = tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
        (result, dir, flags)
    }

    /// Stops, and starts again in the same folder with the same flags.
    pub async fn restart(self) -> Self {
        let (result, dir, flags) = self.stop().await;
        result.unwrap();
        Self::start_in(dir, flags).await
    }

    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    pub async fn game(&self) -> GameServiceClient<Channel> {
        GameServiceClient::new(self.channel().await)
    }

    pub async fn feed(&self) -> EventFeedServiceClient<Channel> {
        EventFeedServiceClient::new(self.channel().await)
    }

    /// Everything in the log now.
    pub async fn events(&self) -> Vec<DeliveredEvent> {
        self.events_with(StreamEventsRequest::default()).await
    }

    /// Everything in the log now that a request asks for.
    pub async fn events_with(&self, request: StreamEventsRequest) -> Vec<DeliveredEvent> {
        let request = StreamEventsRequest { stop_when_caught_up: true, ..request };
        let request = StreamEventsRequest { start: request.start.or(EARLIEST), ..request };
        let stream = self.feed().await.stream_events(request).await.unwrap().into_inner();
        events_of(rest(stream).await.unwrap())
    }

    pub async fn end_offsets(&self) -> Vec<i64> {
        let feed = self.feed().await.get_feed(herald::proto::GetFeedRequest {}).await.unwrap();
        feed.into_inner().partitions.iter().map(|partition| partition.end_offset).collect()
    }
}

pub const EARLIEST: Option<Start> = Some(Start::StartPosition(StartPosition::Earliest as i32));

pub fn after(cursor: &str) -> Option<Start> {
    Some(Start::AfterCursor(cursor.to_owned()))
}

pub fn purchase(player: &str, item: &str) -> PurchaseItemRequest {
    PurchaseItemRequest {
        player_id: player.to_owned(),
        item_id: item.to_owned(),
        ..Default::default()
    }
}

/// All messages until the stream ends with OK.
pub async fn rest(
    mut stream: Streaming<StreamEventsResponse>,
) -> Result<Vec<StreamEventsResponse>, Status> {
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

pub fn events_of(messages: impl IntoIterator<Item = StreamEventsResponse>) -> Vec<DeliveredEvent> {
    let batches = messages.into_iter().filter_map(|message| match message.response {
        Some(Response::Batch(batch)) => Some(batch.events),
        _ => None,
    });
    batches.flatten().collect()
}

/// The next batch of events; other messages are passed over.
pub async fn next_events(
    stream: &mut Streaming<StreamEventsResponse>,
) -> (String, Vec<DeliveredEvent>) {
    loop {
        let message = stream.message().await.unwrap().expect("the stream must go on");
        if let Some(Response::Batch(batch)) = message.response {
            return (message.cursor, batch.events);
        }
    }
}

/// The stable reason of an error, which every error of Herald's carries.
pub fn reason(status: &Status) -> String {
    let info = status.get_error_details().error_info().cloned();
    info.unwrap_or_else(|| panic!("an error without a reason: {status:?}")).reason
}

/// The fields that a refused request was told about.
pub fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone());
    violations.unwrap_or_default().into_iter().map(|violation| violation.field).collect()
}

/// A plain HTTP/1.1 request; head and body of the answer.
pub async fn http(address: SocketAddr, request: &[u8]) -> (String, Vec<u8>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head, answer[end + 4..].to_vec())
}

pub async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let (head, body) = http(address, request.as_bytes()).await;
    (head, String::from_utf8(body).unwrap())
}

/// What is answered to [`ask`]; the headers in lower case.
pub struct Answer {
    pub status: http::StatusCode,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The stable reason in Connect's error.
    pub fn reason(&self) -> String {
        self.detail("google.rpc.ErrorInfo")["reason"].as_str().unwrap().to_owned()
    }

    /// A readable detail of Connect's error.
    pub fn detail(&self, name: &str) -> serde_json::Value {
        let json = self.json();
        let details = json["details"].as_array().unwrap();
        let detail = details.iter().find(|detail| detail["type"] == name);
        detail.unwrap_or_else(|| panic!("no {name} in {json}"))["debug"].clone()
    }
}

/// A request of plain HTTP with a body; `head` holds whole header lines.
pub async fn ask(server: &TestServer, method: &str, path: &str, head: &str, body: &[u8]) -> Answer {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{head}\
         content-length: {}\r\n\r\n",
        server.address,
        body.len()
    )
    .into_bytes();
    request.extend(body);
    let (head, body) = http(server.address, &request).await;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body }
}

/// The binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_herald"))
}
