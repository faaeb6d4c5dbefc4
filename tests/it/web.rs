//! What browsers, health checkers and operators see.

use herald::proto::stream_events_request::Start;
use herald::proto::stream_events_response::Response;
use herald::proto::{
    PurchaseItemResponse, StartPosition, StreamEventsRequest, StreamEventsResponse, Transport,
};
use prost::Message as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{TestServer, get, http, purchase};

/// The frames of a gRPC-web body: flag and content.
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        frames.push((header[0], rest[..length].to_vec()));
        body = &rest[length..];
    }
    frames
}

/// Takes the chunks of a body apart, where it has any.
fn unchunk(head: &str, body: Vec<u8>) -> Vec<u8> {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body;
    }
    let mut rest = &body[..];
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").unwrap();
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}

const PURCHASE: &str = "GameService/PurchaseItem";

pub async fn grpc_web(
    server: &TestServer,
    method: &str,
    request: &impl prost::Message,
) -> (String, Vec<(u8, Vec<u8>)>) {
    let message = request.encode_to_vec();
    let mut bytes = format!(
        "POST /game.v1.{method} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
         origin: http://{}\r\ncontent-type: application/grpc-web+proto\r\n\
         x-grpc-web: 1\r\ncontent-length: {}\r\n\r\n",
        server.address,
        server.address,
        message.len() + 5
    )
    .into_bytes();
    bytes.push(0);
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(message);
    let (head, body) = http(server.address, &bytes).await;
    let body = unchunk(&head, body);
    (head, frames(&body))
}

#[tokio::test]
async fn a_browser_buys_over_grpc_web_and_is_known_as_one() {
    let server = TestServer::start(&[]).await;
    let (head, frames) = grpc_web(&server, PURCHASE, &purchase("alice", "sword")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let lower = head.to_ascii_lowercase();
    let own = format!("access-control-allow-origin: http://{}", server.address);
    assert!(lower.contains(&own), "{head}");
    assert!(lower.contains("grpc-status-details-bin"), "must be exposed: {head}");
    let (flag, message) = &frames[0];
    assert_eq!(*flag, 0);
    let bought = PurchaseItemResponse::decode(&message[..]).unwrap();
    assert!(bought.receipt.is_some());
    let (flag, trailers) = frames.last().unwrap();
    assert_eq!(*flag, 0x80);
    assert!(String::from_utf8_lossy(trailers).contains("grpc-status:0"));

    let asked = StreamEventsRequest { include_origin: true, ..Default::default() };
    let events = server.events_with(asked).await;
    let origin = events[0].event.as_ref().unwrap().origin.as_ref().unwrap();
    assert_eq!(origin.transport(), Transport::GrpcWeb);
}

#[tokio::test]
async fn a_browser_reads_the_feed_to_its_end() {
    let server = TestServer::start(&[]).await;
    grpc_web(&server, PURCHASE, &purchase("alice", "sword")).await;
    let earliest = Start::StartPosition(StartPosition::Earliest.into());
    let asked = StreamEventsRequest { start: Some(earliest), max_events: 1, ..Default::default() };
    let (head, frames) = grpc_web(&server, "EventFeedService/StreamEvents", &asked).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let ((flag, trailers), messages) = frames.split_last().unwrap();
    assert!(*flag == 0x80 && messages.iter().all(|(flag, _)| *flag == 0), "{frames:?}");
    let decode = |message: &[u8]| StreamEventsResponse::decode(message).unwrap().response.unwrap();
    let told: Vec<_> = messages.iter().map(|(_, message)| decode(message)).collect();
    let [Response::Opened(_), Response::Batch(batch), Response::CaughtUp(_)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(batch.events.len(), 1);
    assert!(String::from_utf8_lossy(trailers).contains("grpc-status:0"));

    let wrong = StreamEventsRequest { max_events: -1, ..Default::default() };
    let (head, frames) = grpc_web(&server, "EventFeedService/StreamEvents", &wrong).await;
    let trailers = frames.last().map(|(_, t)| String::from_utf8_lossy(t).into_owned());
    let all = format!("{head}\n{}", trailers.unwrap_or_default()).to_ascii_lowercase();
    assert!(all.contains("grpc-status: 3") || all.contains("grpc-status:3"), "{all}");
}

#[tokio::test]
async fn a_browser_reads_why_it_was_refused() {
    let server = TestServer::start(&[]).await;
    let (head, frames) = grpc_web(&server, PURCHASE, &purchase("", "")).await;
    let trailers = frames.last().map(|(_, t)| String::from_utf8_lossy(t).into_owned());
    let all = format!("{head}\n{}", trailers.unwrap_or_default()).to_ascii_lowercase();
    assert!(all.contains("grpc-status: 3") || all.contains("grpc-status:3"), "{all}");
    assert!(all.contains("grpc-status-details-bin:"), "{all}");
}

#[tokio::test]
async fn health_answers_for_each_service() {
    let server = TestServer::start(&[]).await;
    let mut health = HealthClient::new(server.channel().await);
    let mut watches = Vec::new();
    for service in ["", "game.v1.GameService", "game.v1.EventFeedService"] {
        let request = HealthCheckRequest { service: service.into() };
        let mut watch = health.watch(request).await.unwrap().into_inner();
        // It may still be starting; the change is told.
        while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
        watches.push(watch);
    }
    // A stop is told before anything else ends.
    let stopped = async {
        for watch in &mut watches {
            while watch.message().await.unwrap().unwrap().status() != ServingStatus::NotServing {}
        }
        drop(watches);
    };
    let ((result, ..), ()) = tokio::join!(server.stop(), stopped);
    result.unwrap();
}

#[tokio::test]
async fn operators_see_readiness_and_what_was_counted() {
    let server = TestServer::start(&[]).await;
    server.game().await.purchase_item(purchase("alice", "sword")).await.unwrap();
    let _ = server.game().await.purchase_item(purchase("alice", "dragon")).await.unwrap_err();
    assert!(get(server.admin, "/live").await.0.starts_with("HTTP/1.1 200"));
    let (head, body) = get(server.admin, "/ready").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}\n{body}");
    let (_, metrics) = get(server.admin, "/metrics").await;
    for line in [
        "herald_commands_accepted_total 1",
        "herald_commands_rejected_total 1",
        "herald_log_writable 1",
        "herald_grpc_calls_total{method=\"/game.v1.GameService/PurchaseItem\",code=\"OK\"} 1",
        "herald_grpc_calls_total{method=\"/game.v1.GameService/PurchaseItem\",code=\"INVALID_ARGUMENT\"} 1",
        "herald_grpc_call_duration_seconds_count{method=\"/game.v1.GameService/PurchaseItem\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}
