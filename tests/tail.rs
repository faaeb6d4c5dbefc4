//! `herald tail`, the real binary, against a scripted feed that breaks where a
//! real server would not do so on demand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use herald::proto::game_event::Payload;
use herald::proto::stream_events_request::Start;
use herald::proto::stream_events_response::Response as Feed;
use herald::proto::{
    CaughtUp, DeliveredEvent, EventBatch, ExpiredCursorPolicy, GameEvent, GuildJoined, Opened,
    PartitionOffset, StreamEventsRequest, StreamEventsResponse,
};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

type Messages = Vec<Result<StreamEventsResponse, Status>>;

/// Answers each request with the next script; the last script stays open.
#[derive(Clone, Default)]
struct Script {
    streams: Arc<Mutex<VecDeque<Messages>>>,
    requests: Arc<Mutex<Vec<StreamEventsRequest>>>,
}

impl Script {
    /// Serves in the background until the test process ends.
    fn serve(streams: impl IntoIterator<Item = Messages>) -> (Self, SocketAddr) {
        let script = Self::default();
        script.streams.lock().unwrap().extend(streams);
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let service = script.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                tell.send(incoming.local_addr().unwrap()).unwrap();
                Server::builder().add_service(service).serve_with_incoming(incoming).await
            })
        });
        (script, told.recv().unwrap())
    }
}

impl NamedService for Script {
    const NAME: &'static str = "game.v1.EventFeedService";
}

impl tower::Service<http::Request<Body>> for Script {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let script = self.clone();
        Box::pin(async move {
            Ok(Grpc::new(ProstCodec::default()).server_streaming(script, request).await)
        })
    }
}

impl ServerStreamingService<StreamEventsRequest> for Script {
    type Response = StreamEventsResponse;
    type ResponseStream = BoxStream<'static, Result<StreamEventsResponse, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<StreamEventsRequest>) -> Self::Future {
        self.requests.lock().unwrap().push(request.into_inner());
        let mut streams = self.streams.lock().unwrap();
        let messages = stream::iter(streams.pop_front().unwrap_or_default());
        let last = streams.is_empty();
        let messages =
            if last { messages.chain(stream::pending()).boxed() } else { messages.boxed() };
        Box::pin(async move { Ok(Response::new(messages)) })
    }
}

fn message(cursor: &str, response: Feed) -> Result<StreamEventsResponse, Status> {
    Ok(StreamEventsResponse { cursor: cursor.to_owned(), response: Some(response) })
}

fn opened(cursor: &str) -> Result<StreamEventsResponse, Status> {
    message(cursor, Feed::Opened(Opened::default()))
}

fn joined(cursor: &str, offset: i64, player: &str) -> Result<StreamEventsResponse, Status> {
    let event = GameEvent {
        event_type: "guild_joined".to_owned(),
        player_id: player.to_owned(),
        payload: Some(Payload::GuildJoined(GuildJoined { guild_id: "mascots".to_owned() })),
        ..Default::default()
    };
    let append_time = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    let event = DeliveredEvent { event: Some(event), partition: 0, offset, append_time };
    message(cursor, Feed::Batch(EventBatch { events: vec![event] }))
}

fn tail(address: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herald"));
    command.args(["tail", "--server", &address.to_string(), "--heartbeat", "1s"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn each_event_comes_once_although_the_server_breaks_off() {
    let end = PartitionOffset { partition: 0, offset: 3 };
    let (script, address) = Script::serve([
        vec![opened("a"), joined("b", 1, "alice"), Err(Status::unavailable("bye\u{1b}[2J"))],
        vec![
            opened("b"),
            message("b", Feed::CaughtUp(CaughtUp { end_offsets: vec![end] })),
            joined("c", 2, "bob\u{1b}]0;x\u{7}"),
        ],
        vec![],
    ]);
    let Output { status, stdout, stderr } = tail(address)
        .args(["--from", "earliest", "--max-events", "2", "--if-expired", "latest"])
        .output()
        .unwrap();
    let stderr = text(&stderr);
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(
        text(&stdout),
        "1970-01-01T00:00:01.000Z  0@1  guild_joined  alice  joined mascots\n\
         1970-01-01T00:00:01.000Z  0@2  guild_joined  \"bob\\u{1b}]0;x\\u{7}\"  joined mascots\n"
    );
    assert!(stderr.contains("caught up: partition 0 at offset 3"), "{stderr}");
    assert!(stderr.contains("reconnecting in"), "{stderr}");
    assert!(stderr.ends_with("herald: resume with: --from c\n"), "{stderr}");
    assert!(!stderr.contains('\u{1b}'), "{stderr}");
    let requests = script.requests.lock().unwrap();
    assert_eq!(requests[1].start, Some(Start::AfterCursor("b".to_owned())));
    assert_eq!((requests[0].max_events, requests[1].max_events), (2, 1));
    let policies = requests.iter().map(StreamEventsRequest::expired_cursor_policy);
    assert!(policies.into_iter().all(|policy| policy == ExpiredCursorPolicy::Latest));
}

#[test]
fn an_interrupt_tells_where_to_go_on() {
    let (_, address) = Script::serve([vec![opened("a"), joined("b", 1, "alice")]]);
    let mut process = tail(address).arg("--json").spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["event"]["guildJoined"]["guildId"], "mascots");
    assert_eq!(event["offset"], "1");
    let id = process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let mut stderr = String::new();
    process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(130), "{stderr}");
    assert_eq!(stderr, "herald: resume with: --from b\n");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let events = (1..500).map(|offset| joined("b", offset, "alice"));
    let (_, address) = Script::serve([std::iter::once(opened("a")).chain(events).collect()]);
    let mut process = tail(address).spawn().unwrap();
    drop(process.stdout.take());
    let mut stderr = String::new();
    process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((process.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_reader_that_goes_away_ends_a_quiet_tail_too() {
    // One event, and then a stream that stays open and says nothing.
    let (_, address) = Script::serve([vec![opened("a"), joined("b", 1, "alice")]]);
    let mut process = tail(address).spawn().unwrap();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains("alice"), "{line}");
    drop(stdout);
    assert_eq!(process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_that_goes_away_leaves_the_cursor_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("place");
    std::fs::write(&file, "before\n").unwrap();
    let events = (1..500).map(|offset| joined("b", offset, "alice"));
    let messages = std::iter::once(opened("before")).chain(events).collect();
    let (script, address) = Script::serve([messages]);
    let mut process = tail(address).arg("--cursor-file").arg(&file).spawn().unwrap();
    drop(process.stdout.take());
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "before\n");
    let requests = script.requests.lock().unwrap();
    let start = requests.first().map(|request| request.start.clone());
    assert!(start.is_none_or(|start| start == Some(Start::AfterCursor("before".to_owned()))));
}

#[test]
fn the_cursor_file_is_written_soon_although_nothing_more_comes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("place");
    let (_, address) = Script::serve([vec![opened("a"), joined("b", 1, "alice")]]);
    let mut process = tail(address).arg("--cursor-file").arg(&file).spawn().unwrap();
    // The scripted server says nothing else, so it takes the stream for dead after 3 s.
    let mut stderr = BufReader::new(process.stderr.take().unwrap());
    stderr.read_line(&mut String::new()).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "b\n");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn what_cannot_be_written_is_not_behind_the_cursor_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("place");
    std::fs::write(&file, "before\n").unwrap();
    let (_, address) = Script::serve([vec![opened("before"), joined("b", 1, "alice")]]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let failed = tail(address).arg("--cursor-file").arg(&file).stdout(full).output().unwrap();
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "before\n");
    // A file is synced before the cursor is stored.
    let kept = std::fs::File::create(folder.path().join("events")).unwrap();
    let (_, address) = Script::serve([vec![opened("before"), joined("b", 1, "alice")]]);
    let mut done = tail(address);
    done.args(["--max-events", "1"]).arg("--cursor-file").arg(&file);
    assert!(done.stdout(kept).status().unwrap().success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "b\n");
}
