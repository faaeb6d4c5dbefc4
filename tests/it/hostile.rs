//! Whatever comes in, the answer is a clear one, and nobody else is harmed.

use bytes::Bytes;
use herald::client::stubs::game_service_client::GameServiceClient;
use herald::proto::stream_events_request::Start;
use herald::proto::{EventFilter, JoinGuildRequest, PurchaseItemRequest, StreamEventsRequest};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::{EARLIEST, TestServer, after, fields, http, purchase, reason};

/// Sends and receives bytes as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(out, item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(bytes::Buf::copy_to_bytes(bytes, bytes::Buf::remaining(bytes))))
    }
}

async fn send_raw(channel: &Channel, path: &'static str, message: Bytes) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    client.unary(Request::new(message), path, Raw).await.map(tonic::Response::into_inner)
}

/// The server still serves those who behave, also on the same connection.
async fn assert_unharmed(channel: &Channel) {
    let mut game = GameServiceClient::new(channel.clone());
    game.purchase_item(purchase("bystander", "sword")).await.unwrap();
}

#[tokio::test]
async fn wrong_fields_are_all_named_at_once() {
    let server = TestServer::start(&[]).await;
    let mut game = server.game().await;
    let long = "x".repeat(1000);
    for (request, expected) in [
        (purchase("", ""), &["player_id", "item_id"][..]),
        (purchase(&long, &long), &["player_id", "item_id"]),
        (purchase("al\nice", "swo\0rd"), &["player_id", "item_id"]),
        (purchase(" alice", "sword "), &["player_id", "item_id"]),
        (PurchaseItemRequest { quantity: Some(0), ..purchase("alice", "sword") }, &["quantity"]),
        (
            PurchaseItemRequest { quantity: Some(i32::MIN), ..purchase("alice", "sword") },
            &["quantity"],
        ),
        (
            PurchaseItemRequest { quantity: Some(i32::MAX), ..purchase("alice", "dragon") },
            &["quantity", "item_id"],
        ),
        (
            PurchaseItemRequest { request_id: "not-a-uuid".into(), ..purchase("alice", "dragon") },
            &["request_id", "item_id"],
        ),
    ] {
        let status = game.purchase_item(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(reason(&status), "VALIDATION_FAILED");
        assert_eq!(fields(&status), expected);
    }
    let status = game.join_guild(JoinGuildRequest::default()).await.unwrap_err();
    assert_eq!(fields(&status), ["player_id", "guild_id"]);
    assert_unharmed(&server.channel().await).await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_callers_fault() {
    let server = TestServer::start(&[]).await;
    let channel = server.channel().await;
    for garbage in [
        &b"\xff\xff\xff\xff"[..],
        b"\x12\xff",
        // A group that never ends.
        b"\x0b\x0b\x0b",
    ] {
        for path in ["/game.v1.GameService/PurchaseItem", "/game.v1.EventFeedService/GetFeed"] {
            let sent = send_raw(&channel, path, Bytes::from_static(garbage)).await;
            let status = sent.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{garbage:?}");
            assert_eq!(reason(&status), "MESSAGE_MALFORMED", "{garbage:?}");
        }
    }
    // A player id that is not UTF-8.
    let path = "/game.v1.GameService/PurchaseItem";
    let status = send_raw(&channel, path, Bytes::from_static(b"\x12\x02\xff\xfe")).await;
    let status = status.unwrap_err();
    assert_eq!(reason(&status), "MESSAGE_MALFORMED");
    assert!(status.message().contains("player_id"), "{status:?}");
    assert_unharmed(&channel).await;
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_the_connection_goes_on() {
    let server = TestServer::start(&[]).await;
    let channel = server.channel().await;
    for bytes in [64 * 1024 + 1, 10_000_000] {
        let message = Bytes::from(vec![0; bytes]);
        let status = send_raw(&channel, "/game.v1.GameService/PurchaseItem", message).await;
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert_eq!(reason(&status), "MESSAGE_TOO_LARGE");
        assert_unharmed(&channel).await;
    }
}

#[tokio::test]
async fn headers_over_the_limit_are_refused_by_http2_and_others_are_unharmed() {
    let server = TestServer::start(&[]).await;
    let bystander = server.channel().await;
    assert_unharmed(&bystander).await;
    let with_status_431: fn(&Status) -> bool = |status| status.message().contains("431");
    let by_ending_the_connection: fn(&Status) -> bool =
        |status| std::error::Error::source(status).is_some();
    for (bytes, is_as_documented) in
        [(20_000, with_status_431), (1_000_000, by_ending_the_connection)]
    {
        let mut request = Request::new(purchase("alice", "sword"));
        request.metadata_mut().insert("x-huge", "h".repeat(bytes).parse().unwrap());
        let status = server.game().await.purchase_item(request).await.unwrap_err();
        // No call has begun, so the refusal is HTTP/2's own.
        assert!(is_as_documented(&status), "{bytes}: {status:?}");
        assert_unharmed(&bystander).await;
    }
}

#[tokio::test]
async fn cursors_that_are_none_are_told_from_those_that_no_longer_are() {
    let server = TestServer::start(&[]).await;
    let foreign = TestServer::start(&[]).await;
    let mut feed = server.feed().await;
    let good = server.feed().await.get_feed(herald::proto::GetFeedRequest {}).await.unwrap();
    let good = good.into_inner().latest_cursor;
    let other = foreign.feed().await.get_feed(herald::proto::GetFeedRequest {}).await.unwrap();
    let other = other.into_inner().latest_cursor;
    let cut = &good[..good.len() - 1];
    let long = "A".repeat(60_000);
    for (cursor, code, expected) in [
        ("", Code::InvalidArgument, "CURSOR_MALFORMED"),
        ("rubbish", Code::InvalidArgument, "CURSOR_MALFORMED"),
        ("\u{0}", Code::InvalidArgument, "CURSOR_MALFORMED"),
        (cut, Code::InvalidArgument, "CURSOR_MALFORMED"),
        (&long, Code::InvalidArgument, "CURSOR_MALFORMED"),
        (&other, Code::FailedPrecondition, "FEED_EPOCH_CHANGED"),
    ] {
        let request = StreamEventsRequest { start: after(cursor), ..Default::default() };
        let status = feed.stream_events(request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{cursor:.40}");
    }
}

#[tokio::test]
async fn a_subscription_with_wrong_fields_is_refused() {
    let server = TestServer::start(&[]).await;
    let mut feed = server.feed().await;
    let many: Vec<String> = (0..101).map(|i| format!("p{i}")).collect();
    let request = StreamEventsRequest {
        start: Some(Start::StartPosition(77)),
        filter: Some(EventFilter {
            event_types: vec!["item_purchsed".into()],
            player_ids: many,
            guild_ids: vec![String::new()],
        }),
        heartbeat_interval: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        max_events: -1,
        ..Default::default()
    };
    let status = feed.stream_events(request).await.unwrap_err();
    assert_eq!(
        fields(&status),
        [
            "start_position",
            "filter.player_ids",
            "filter.guild_ids",
            "filter.event_types",
            "heartbeat_interval",
            "max_events"
        ]
    );
}

#[tokio::test]
async fn noise_on_a_connection_harms_nobody_else() {
    let server = TestServer::start(&[]).await;
    let bystander = server.channel().await;
    for noise in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all, whatever it is\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        stream.write_all(noise).await.unwrap();
        stream.shutdown().await.unwrap();
        // Whatever is answered, the server ends the connection.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert_unharmed(&bystander).await;
}

#[tokio::test]
async fn who_speaks_something_else_is_told_where_to_go() {
    let server = TestServer::start(&[]).await;
    let post = "POST /game.v1.GameService/PurchaseItem HTTP/1.1\r\nhost: localhost\r\n\
                connection: close\r\ncontent-type: text/xml\r\ncontent-length: 4\r\n\r\n<a/>";
    let (head, body) = http(server.address, post.as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 415"), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("application/grpc"));
    let (head, body) = crate::harness::get(server.address, "/").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(body.contains("grpcurl"), "{body}");
}

#[tokio::test]
async fn streams_have_a_limit_that_is_told() {
    let server = TestServer::start(&["--max-subscribers=1"]).await;
    let mut feed = server.feed().await;
    let first = feed.stream_events(StreamEventsRequest::default()).await.unwrap();
    let request = StreamEventsRequest { start: EARLIEST, ..Default::default() };
    let status = feed.stream_events(request).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "SUBSCRIBER_LIMIT")
    );
    drop(first);
}

#[tokio::test]
async fn a_connection_over_the_limit_is_closed_and_the_others_stay() {
    let server = TestServer::start(&["--max-connections=1"]).await;
    let first = server.channel().await;
    assert_unharmed(&first).await;
    let mut second = tokio::net::TcpStream::connect(server.address).await.unwrap();
    use tokio::io::AsyncReadExt as _;
    // Nothing was sent, so nothing but the end can come.
    assert!(matches!(second.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert_unharmed(&first).await;
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_told_with_a_reason() {
    let server = TestServer::start(&[]).await;
    let channel = server.channel().await;
    for path in ["/game.v1.GameService/Nope", "/nowhere.Service/Nope", "/"] {
        let status = send_raw(&channel, path, Bytes::new()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        assert_eq!(reason(&status), "METHOD_UNKNOWN", "{path}");
    }
}

#[tokio::test]
async fn a_compressed_call_is_told_what_is_accepted() {
    let server = TestServer::start(&[]).await;
    let mut request = Request::new(herald::proto::GetCatalogRequest {});
    request.metadata_mut().insert("grpc-encoding", "gzip".parse().unwrap());
    let status = server.game().await.get_catalog(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(reason(&status), "COMPRESSION_UNSUPPORTED");
    assert_eq!(status.metadata().get("grpc-accept-encoding").unwrap(), "identity");
}

/// A call whose message never comes whole; the server has seen it when this returns.
async fn held_call(channel: &Channel) -> impl Future<Output = bool> + use<> {
    use tower::Service as _;
    let begin = Ok::<_, Status>(http_body::Frame::data(Bytes::from_static(b"\0\0\0\0\x20a")));
    let never = futures_util::stream::pending();
    let body = futures_util::StreamExt::chain(futures_util::stream::iter([begin]), never);
    let request = http::Request::post("/game.v1.GameService/PurchaseItem")
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(http_body_util::StreamBody::new(body)))
        .unwrap();
    let mut sender = channel.clone();
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await.unwrap();
    let call = sender.call(request);
    // What is sent later on the same connection is seen later.
    assert_unharmed(channel).await;
    async move { call.await.is_ok() }
}

#[tokio::test]
async fn a_lane_that_is_held_up_does_not_hold_up_the_others() {
    for held_first in [true, false] {
        let server = TestServer::start(&["--stop-timeout=2s", "--worker-threads=2"]).await;
        // Connections are dealt to the lanes in turn.
        let (held, other) = if held_first {
            let held = server.channel().await;
            (held, tokio::net::TcpStream::connect(server.address).await.unwrap())
        } else {
            let other = tokio::net::TcpStream::connect(server.address).await.unwrap();
            (server.channel().await, other)
        };
        let call = held_call(&held).await;
        let idle = idle_http1(other).await;
        let begun = std::time::Instant::now();
        let ((result, ..), idle, held) = tokio::join!(
            server.stop(),
            async {
                idle.await;
                begun.elapsed()
            },
            async {
                assert!(!call.await, "it can only be cut off");
                begun.elapsed()
            }
        );
        result.expect("the log is flushed all the same");
        // The one that is held lasts as long as the server waits for it.
        assert!(idle * 2 < held, "held first: {held_first}, {idle:?}, {held:?}");
    }
}

/// A connection that has been answered and stays open; ends when the server closes it.
async fn idle_http1(mut stream: tokio::net::TcpStream) -> impl Future<Output = ()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
    async move { while stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {} }
}
