//! The feed at `/v1/events`, as a browser's `EventSource` and as scripts read it.

use std::collections::BTreeSet;

use herald::proto::stream_events_response::Response;
use herald::proto::{EventFilter, JoinGuildRequest, StreamEventsRequest};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{EARLIEST, TestServer, after, ask, get, purchase, rest};

const SSE: &str = "accept: text/event-stream\r\n";
const LINES: &str = "accept: application/x-ndjson\r\n";

/// A block of server-sent events, as a browser takes it apart.
/// Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>.
#[derive(Clone, Debug, Default, PartialEq)]
struct Block {
    event: Option<String>,
    data: Option<Value>,
    id: Option<String>,
    retry: Option<u64>,
    comment: Option<String>,
}

impl Block {
    fn of(text: &str) -> Self {
        let mut block = Self::default();
        for line in text.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            let text = value.to_owned();
            let is_second = match name {
                "event" => block.event.replace(text).is_some(),
                "data" => block.data.replace(serde_json::from_str(value).unwrap()).is_some(),
                "id" => block.id.replace(text).is_some(),
                "retry" => block.retry.replace(value.parse().unwrap()).is_some(),
                "" => block.comment.replace(text).is_some(),
                other => panic!("{other} in {block:?}"),
            };
            assert!(!is_second, "two of {name}: {block:?}");
        }
        block
    }

    /// Whether it is an event of the game, which have no name.
    fn is_event(&self) -> bool {
        self.event.is_none() && self.data.is_some()
    }

    fn id(&self) -> &str {
        self.id.as_deref().unwrap()
    }

    fn event_id(&self) -> &str {
        event_id(self.data.as_ref().unwrap())
    }
}

fn event_id(delivered: &Value) -> &str {
    delivered["event"]["eventId"].as_str().unwrap()
}

/// Where the bytes of a stream come from.
enum Source {
    /// In chunks.
    Http1(BufReader<TcpStream>),
    Http2(h2::RecvStream),
}

/// A stream that is being read.
struct Reading {
    head: String,
    source: Source,
    text: String,
}

impl Reading {
    async fn open(server: &TestServer, query: &str, head: &str) -> Self {
        Self::over(TcpStream::connect(server.address).await.unwrap(), server, query, head).await
    }

    async fn over(stream: TcpStream, server: &TestServer, query: &str, head: &str) -> Self {
        let mut stream = BufReader::new(stream);
        let request =
            format!("GET /v1/events?{query} HTTP/1.1\r\nhost: {}\r\n{head}\r\n", server.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).await.unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        Self { head: head.to_ascii_lowercase(), source: Source::Http1(stream), text: String::new() }
    }

    #[expect(clippy::disallowed_methods, reason = "the connection is a task of its own")]
    async fn over_http2(server: &TestServer, query: &str, accept: &str) -> Self {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("http://{}/v1/events?{query}", server.address);
        let request = http::Request::get(uri).header("accept", accept).body(()).unwrap();
        let response = client.send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!(response.status(), 200);
        let head = format!("{:?}", response.headers());
        Self { head, source: Source::Http2(response.into_body()), text: String::new() }
    }

    /// The next bytes; none at the end.
    async fn bytes(&mut self) -> Option<Vec<u8>> {
        match &mut self.source {
            Source::Http1(stream) => {
                let mut size = String::new();
                stream.read_line(&mut size).await.unwrap();
                let size = usize::from_str_radix(size.trim_end(), 16).expect("no end of the body");
                let mut chunk = vec![0; size + 2];
                stream.read_exact(&mut chunk).await.unwrap();
                chunk.truncate(size);
                (size > 0).then_some(chunk)
            }
            Source::Http2(stream) => {
                let data = stream.data().await?.unwrap();
                stream.flow_control().release_capacity(data.len()).unwrap();
                Some(data.to_vec())
            }
        }
    }

    /// What comes up to `end`; none when the stream has ended before.
    async fn piece(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.text.find(end) {
                let rest = self.text.split_off(at + end.len());
                return Some(std::mem::replace(&mut self.text, rest));
            }
            let Some(bytes) = self.bytes().await else {
                assert_eq!(self.text, "", "the last piece is not whole");
                return None;
            };
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    async fn block(&mut self) -> Option<Block> {
        self.piece("\n\n").await.map(|text| Block::of(text.trim_end()))
    }

    /// The next block of an event; others are passed over.
    async fn event(&mut self) -> Block {
        loop {
            let block = self.block().await.expect("the stream must go on");
            if block.is_event() {
                return block;
            }
        }
    }

    async fn line(&mut self) -> Option<Value> {
        self.piece("\n").await.map(|line| serde_json::from_str(&line).unwrap())
    }

    async fn rest(mut self) -> Vec<Block> {
        let mut blocks = Vec::new();
        while let Some(block) = self.block().await {
            blocks.push(block);
        }
        blocks
    }
}

/// Everything that a stream says that ends by itself.
async fn all(server: &TestServer, query: &str, head: &str) -> Vec<Block> {
    Reading::open(server, query, &format!("{SSE}{head}")).await.rest().await
}

fn ids(blocks: &[Block]) -> Vec<&str> {
    blocks.iter().filter(|block| block.is_event()).map(Block::event_id).collect()
}

async fn buy(server: &TestServer, player: &str) -> String {
    let bought = server.game().await.purchase_item(purchase(player, "sword")).await.unwrap();
    bought.into_inner().receipt.unwrap().event_id
}

async fn join(server: &TestServer, player: &str, guild: &str) -> String {
    let (player_id, guild_id) = (player.to_owned(), guild.to_owned());
    let request = JoinGuildRequest { player_id, guild_id, ..Default::default() };
    let joined = server.game().await.join_guild(request).await.unwrap();
    joined.into_inner().receipt.unwrap().event_id
}

#[tokio::test]
async fn a_browser_gets_what_happens_as_it_happens_over_either_http() {
    let server = TestServer::start(&[]).await;
    let before = buy(&server, "alice").await;
    let query = "heartbeat_interval=1s";
    for is_http2 in [false, true] {
        let mut stream = match is_http2 {
            false => Reading::open(&server, query, SSE).await,
            true => Reading::over_http2(&server, query, "text/event-stream").await,
        };
        for header in ["text/event-stream", "no-store", "x-accel-buffering", "nosniff"] {
            assert!(stream.head.contains(header), "{}", stream.head);
        }
        let opened = stream.block().await.unwrap();
        assert_eq!(opened.event.as_deref(), Some("opened"));
        assert!(opened.retry.is_some_and(|millis| (500..5000).contains(&millis)), "{opened:?}");
        assert!(opened.id.is_some());
        assert_eq!(stream.block().await.unwrap().event.as_deref(), Some("caught_up"));
        let bought = buy(&server, "bob").await;
        let event = stream.event().await;
        assert_eq!(event.event_id(), bought);
        let data = event.data.as_ref().unwrap();
        assert_eq!(data["event"]["itemPurchased"]["itemId"], "sword");
        assert!(data["appendTime"].is_string() && data["event"].get("origin").is_none());
        // Nobody is shown a heartbeat, and its place counts.
        let beat = stream.block().await.unwrap();
        let expected = Block {
            comment: Some("heartbeat".to_owned()),
            id: event.id.clone(),
            ..Default::default()
        };
        assert_eq!(beat, expected);
        let resumed = all(&server, "stop_when_caught_up=true&start=earliest", "").await;
        assert_eq!(ids(&resumed)[0], before);
    }
}

/// What a stream over gRPC says of the same.
async fn messages(server: &TestServer, request: StreamEventsRequest) -> Vec<usize> {
    let stream = server.feed().await.stream_events(request).await.unwrap().into_inner();
    let batches = rest(stream).await.unwrap().into_iter().filter_map(|it| match it.response {
        Some(Response::Batch(batch)) => Some(batch.events),
        _ => None,
    });
    let partitions = |events: Vec<herald::proto::DeliveredEvent>| {
        events.iter().map(|event| event.partition).collect::<BTreeSet<_>>().len()
    };
    batches.map(partitions).collect()
}

#[tokio::test]
async fn behind_whatever_id_a_browser_comes_back_nothing_is_lost_and_nothing_comes_twice() {
    let server = TestServer::start(&["--key-partitions=5"]).await;
    for round in 0..3 {
        for player in 0..8 {
            buy(&server, &format!("player-{player}")).await;
            join(&server, &format!("player-{player}"), &format!("guild-{round}")).await;
        }
    }
    let filter = EventFilter { event_types: vec!["guild_joined".into()], ..Default::default() };
    for (query, filter, count) in [("", None, 48), ("&type=guild_joined", Some(filter), 24)] {
        // One message, of several partitions.
        let (start, stop_when_caught_up) = (EARLIEST, true);
        let request =
            StreamEventsRequest { start, stop_when_caught_up, filter, ..Default::default() };
        let partitions = messages(&server, request).await;
        assert!(partitions.len() == 1 && partitions[0] > 1, "{partitions:?}");
        let query = format!("start=earliest&stop_when_caught_up=true{query}");
        let blocks = all(&server, &query, "").await;
        let sent = ids(&blocks);
        assert_eq!(sent.len(), count);
        // Behind the opening, each event, and what is said at the end.
        let mut seen = 0;
        for block in blocks.iter().filter(|block| block.id.is_some()) {
            seen += usize::from(block.is_event());
            let back = format!("last-event-id: {}\r\n", block.id());
            let blocks = all(&server, &query, &back).await;
            let (mut came, mut missing) = (ids(&blocks), sent[seen..].to_vec());
            came.sort_unstable();
            missing.sort_unstable();
            assert_eq!(came, missing, "behind {block:?}");
        }
        assert_eq!(seen, count);
    }
}

#[tokio::test]
async fn one_sees_what_one_asks_for() {
    let server = TestServer::start(&[]).await;
    let (first, bob) = (buy(&server, "alice").await, buy(&server, "bob").await);
    let (owls, cats) = (join(&server, "alice", "owls").await, join(&server, "bob", "cats").await);
    let everything = [&*first, &bob, &owls, &cats];
    let cursor = all(&server, "start=earliest&max_events=1", "").await[1].id().to_owned();
    let back = format!("last-event-id: {cursor}\r\n");
    for (query, head, expected) in [
        ("start=earliest", "", &everything[..]),
        ("start_position=START_POSITION_EARLIEST", "", &everything),
        ("start=2020-01-01T00:00:00Z", "", &everything),
        ("start=2020-01-01T00:00:00+02:00", "", &everything),
        ("start=9000-01-01T00:00:00Z", "", &[]),
        ("start=latest", "", &[]),
        ("", "", &[]),
        (&format!("start={cursor}"), "", &everything[1..]),
        (&format!("after_cursor={cursor}"), "", &everything[1..]),
        // A browser comes back to the address that it was given first.
        ("start=earliest", &back, &everything[1..]),
        ("start=latest", &back, &everything[1..]),
        ("startTime=2020-01-01T00:00:00Z", &back, &everything[1..]),
        ("after_cursor=AAAA", &back, &everything[1..]),
        ("start=earliest", "last-event-id: \r\n", &everything),
        ("start=earliest&type=item_purchased", "", &[&*first, &bob]),
        ("start=earliest&type=item_purchased&type=guild_joined&player=bob", "", &[&*bob, &cats]),
        ("start=earliest&player=bob&player=alice&guild=owls", "", &[&*owls]),
        ("start=earliest&filter.guild_ids=cats", "", &[&*cats]),
        ("start=earliest&max_events=2", "", &everything[..2]),
    ] {
        let asked = format!("{query}&stop_when_caught_up=true");
        let blocks = all(&server, &asked, head).await;
        assert_eq!(ids(&blocks), expected, "{query} {head}");
        // Whatever was asked for has come, which a page has to know.
        let end = blocks.last().unwrap();
        assert_eq!((end.event.as_deref(), &end.data), (Some("end"), &Some(json!({}))), "{query}");
    }
}

#[tokio::test]
async fn scripts_read_lines_with_a_cursor_each() {
    let server = TestServer::start(&[]).await;
    let (first, second) = (buy(&server, "alice").await, buy(&server, "bob").await);
    let query = "start=earliest&heartbeat_interval=1s";
    for named in ["application/x-ndjson", "application/jsonl"] {
        let mut stream = Reading::open(&server, query, &format!("accept: {named}\r\n")).await;
        assert!(stream.head.contains(&format!("content-type: {named}\r\n")), "{}", stream.head);
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &Value| line.get("heartbeat").is_none()) {
            lines.push(stream.line().await.unwrap());
        }
        let opened = json!({"startOffsets": [{}]});
        assert_eq!(lines[0]["opened"], opened);
        assert_eq!((event_id(&lines[1]), event_id(&lines[2])), (&*first, &*second));
        assert_eq!(lines[2]["offset"], "1");
        assert_eq!(lines[3]["caughtUp"], json!({"endOffsets": [{"offset": "2"}]}));
        assert!(lines[4]["heartbeat"]["serverTime"].is_string(), "{}", lines[4]);
        let cursors: Vec<_> = lines.iter().map(|line| line["cursor"].as_str().unwrap()).collect();
        assert_eq!(cursors[2], cursors[4]);
        // Where a line is, any other way of reading goes on.
        let request = StreamEventsRequest { start: after(cursors[1]), ..Default::default() };
        let rest = server.events_with(request).await;
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].event.as_ref().unwrap().event_id, second);
    }
    let mut stream = Reading::open(&server, "stop_when_caught_up=true", LINES).await;
    assert!(stream.line().await.unwrap().get("opened").is_some());
    assert!(stream.line().await.unwrap().get("caughtUp").is_some());
    assert_eq!(stream.line().await, None);
}

#[tokio::test]
async fn what_cannot_be_served_is_a_clear_answer_instead_of_a_stream() {
    let server = TestServer::start(&["--max-subscribers=1"]).await;
    let foreign = TestServer::start(&[]).await;
    let other = foreign.feed().await.get_feed(herald::proto::GetFeedRequest {}).await.unwrap();
    let other = format!("last-event-id: {}\r\n", other.into_inner().latest_cursor);
    let json = "accept: application/json\r\n";
    for (query, head, status, reason, field) in [
        ("since=earliest", SSE, 400, "MESSAGE_MALFORMED", Some("since")),
        ("start=15m", SSE, 400, "MESSAGE_MALFORMED", Some("start")),
        ("max_events=x", SSE, 400, "MESSAGE_MALFORMED", Some("max_events")),
        ("max_events=-1", SSE, 400, "VALIDATION_FAILED", Some("max_events")),
        ("type=item_sold", LINES, 400, "VALIDATION_FAILED", Some("filter.event_types")),
        ("start=rubbish", SSE, 400, "CURSOR_MALFORMED", None),
        ("", "last-event-id: rubbish\r\n", 400, "CURSOR_MALFORMED", None),
        ("", "last-event-id: \u{e9}\r\n", 400, "MESSAGE_MALFORMED", Some("last-event-id")),
        ("", &other, 400, "FEED_EPOCH_CHANGED", None),
        ("include_origin=true", "", 200, "", None),
        ("", json, 406, "ACCEPT_UNSUPPORTED", None),
        ("since=earliest", json, 406, "ACCEPT_UNSUPPORTED", None),
    ] {
        let path = format!("/v1/events?{query}&stop_when_caught_up=true");
        let answer = ask(&server, "GET", &path, head, b"").await;
        assert_eq!(answer.status, status, "{query} {head}");
        if status != 200 {
            assert!(answer.head.contains("content-type: application/problem+json"));
            let problem = answer.json();
            assert_eq!(problem["reason"], reason, "{problem}");
            assert_eq!(problem["violations"][0]["field"].as_str(), field, "{problem}");
        }
    }
    let said = ask(&server, "GET", "/v1/events", "accept: text/plain\r\n", b"").await;
    let expected = "takes none of text/event-stream, application/x-ndjson, application/jsonl\n";
    let said = (said.status.as_u16(), String::from_utf8(said.body).unwrap());
    assert!(said.0 == 406 && said.1.ends_with(expected), "{said:?}");
    for method in ["POST", "PUT", "DELETE"] {
        let answer = ask(&server, method, "/v1/events", "", &[b' '; 100_000]).await;
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.lines().any(|line| line == "allow: get, head"), "{}", answer.head);
    }
    assert_eq!(ask(&server, "GET", "/v1/events/1", "", b"").await.status, 404);

    // A subscriber as any other: the second one is one too many.
    let mut only = Reading::open(&server, "", SSE).await;
    only.block().await.unwrap();
    let answer = ask(&server, "GET", "/v1/events", SSE, b"").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["reason"]),
        (429, &json!("SUBSCRIBER_LIMIT"))
    );
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    let over_grpc = server.feed().await.stream_events(StreamEventsRequest::default()).await;
    assert_eq!(over_grpc.unwrap_err().code(), tonic::Code::ResourceExhausted);
    // Whose place is free once it has gone.
    drop(only);
    while ask(&server, "GET", "/v1/events?stop_when_caught_up=true", SSE, b"").await.status != 200 {
    }
}

#[tokio::test]
async fn a_look_at_the_headers_opens_no_stream() {
    let server = TestServer::start(&["--max-subscribers=1"]).await;
    let only = Reading::open(&server, "", SSE).await;
    let head = ask(&server, "HEAD", "/v1/events", LINES, b"").await;
    assert!(head.status == 200 && head.body.is_empty(), "{}", head.head);
    assert!(head.head.contains("content-type: application/x-ndjson"), "{}", head.head);
    assert!(!head.head.contains("content-length"), "{}", head.head);
    let refused = ask(&server, "HEAD", "/v1/events?since=1", SSE, b"").await;
    assert!(refused.status == 400 && refused.body.is_empty(), "{}", refused.head);
    drop(only);
}

#[tokio::test]
async fn a_stop_is_told_and_calls_are_counted() {
    let server = TestServer::start(&[]).await;
    let bought = buy(&server, "alice").await;
    all(&server, "start=earliest&max_events=1", "").await;
    ask(&server, "GET", "/v1/events?max_events=-1", SSE, b"").await;
    ask(&server, "GET", "/v1/events?max_events=x", SSE, b"").await;
    let mut page = Reading::open(&server, "start=earliest", SSE).await;
    assert_eq!(page.event().await.event_id(), bought);
    let mut script = Reading::open(&server, "start=earliest", LINES).await;
    while script.line().await.unwrap().get("caughtUp").is_none() {}
    let method = "method=\"/game.v1.EventFeedService/StreamEvents\"";
    for line in [
        format!("herald_grpc_calls_total{{{method},code=\"OK\"}} 1"),
        format!("herald_grpc_calls_total{{{method},code=\"INVALID_ARGUMENT\"}} 2"),
        "herald_feed_subscribers 2".to_owned(),
        "herald_feed_delivered_events_total 3".to_owned(),
    ] {
        // The one that has ended is let go of a moment after its end was sent.
        while !get(server.admin, "/metrics").await.1.contains(&line) {}
    }
    let told = async {
        let mut blocks = page.rest().await;
        let closing = blocks.pop().unwrap();
        assert_eq!(closing.event.as_deref(), Some("closing"), "{closing:?}");
        let data = closing.data.as_ref().unwrap();
        assert_eq!(data["reason"], "CLOSING_REASON_SHUTDOWN");
        assert!(closing.retry.is_some_and(|millis| millis >= 500), "{closing:?}");
        let line = script.line().await.unwrap();
        assert_eq!(line["closing"]["resumable"], true, "{line}");
        assert_eq!(script.line().await, None);
        closing
    };
    let ((result, dir, flags), closing) = tokio::join!(server.stop(), told);
    result.unwrap();
    // What a browser does then.
    let server = TestServer::start_in(dir, flags).await;
    let bought = buy(&server, "bob").await;
    let back = format!("last-event-id: {}\r\n", closing.id());
    let missed = all(&server, "start=earliest&max_events=1", &back).await;
    assert_eq!(ids(&missed), [bought]);
}

#[tokio::test]
async fn a_stream_that_is_old_is_closed_and_comes_back_at_once() {
    let server = TestServer::start(&["--max-stream-age=1s"]).await;
    let blocks = all(&server, "", "").await;
    let closing = blocks.last().unwrap();
    assert_eq!(closing.data.as_ref().unwrap()["reason"], "CLOSING_REASON_MAX_AGE");
    // As soon as it would come back to a server that is gone, and not in a closed loop.
    assert_eq!(closing.retry, Some(250));
}

#[tokio::test]
async fn a_browser_that_does_not_read_is_not_read_for() {
    const EVENTS: usize = 15_000;
    const AT_ONCE: usize = 100;
    // The kernel keeps up to 4 MiB for a socket, which some 6,000 of these take.
    const HELD: usize = 10_000;
    let server = TestServer::start(&[]).await;
    let player = "p".repeat(128);
    let mut game = server.game().await;
    for _ in 0..EVENTS / AT_ONCE {
        let calls = (0..AT_ONCE).map(|_| {
            let mut game = game.clone();
            let request = purchase(&player, "sword");
            async move { drop(game.purchase_item(request).await.unwrap()) }
        });
        futures_util::future::join_all(calls).await;
    }
    game.purchase_item(purchase("last", "sword")).await.unwrap();
    let delivered = async || {
        let (_, metrics) = get(server.admin, "/metrics").await;
        let line = metrics.lines().find(|line| line.starts_with("herald_feed_delivered_events"));
        line.unwrap().split(' ').nth(1).unwrap().parse::<usize>().unwrap()
    };
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(server.address).await.unwrap();
    let query = "start=earliest&stop_when_caught_up=true";
    let stalled = Reading::over(stream, &server, query, SSE).await;
    // In the time in which others get everything, it gets what fits into the sockets.
    for _ in 0..2 {
        assert_eq!(ids(&all(&server, query, "").await).len(), EVENTS + 1);
    }
    let held = delivered().await - 2 * (EVENTS + 1);
    assert!(held < HELD, "{held} events are waiting for it");
    let blocks = stalled.rest().await;
    let offsets: Vec<_> = blocks.iter().filter(|block| block.is_event()).collect();
    let unique: BTreeSet<_> = offsets.iter().map(|block| block.event_id()).collect();
    assert_eq!((offsets.len(), unique.len()), (EVENTS + 1, EVENTS + 1));
}
