//! The Connect protocol, by a plain HTTP client.

use herald::proto::{GetCatalogResponse, PurchaseItemResponse, StreamEventsRequest, Transport};
use http::StatusCode;
use prost::Message as _;
use serde_json::{Value, json};

use crate::harness::{Answer, TestServer, ask, purchase};

const JSON: &str = "content-type: application/json\r\n";
const PROTO: &str = "content-type: application/proto\r\n";
const PURCHASE: &str = "/game.v1.GameService/PurchaseItem";
const CATALOG: &str = "/game.v1.GameService/GetCatalog";

async fn post(server: &TestServer, path: &str, json: &Value) -> Answer {
    ask(server, "POST", path, JSON, json.to_string().as_bytes()).await
}

#[tokio::test]
async fn every_call_with_one_answer_is_served_in_json() {
    let server = TestServer::start(&[]).await;
    let game = |name: &str| format!("/game.v1.GameService/{name}");
    let call = async |path: String, request: Value| {
        let answer = post(&server, &path, &request).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json());
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
        answer.json()
    };
    let session = call(game("StartSession"), json!({"playerId": "alice"})).await;
    assert_eq!(session["sessionId"], session["receipt"]["eventId"]);
    let sword = json!({"player_id": "alice", "itemId": "sword", "quantity": "2"});
    let bought = call(game("PurchaseItem"), sword).await;
    assert_eq!(bought["purchase"]["quantity"], 2);
    assert_eq!(bought["ownedQuantity"], "2");
    call(game("JoinGuild"), json!({"playerId": "alice", "guildId": "owls"})).await;
    call(game("GrantItem"), json!({"playerId": "alice", "itemId": "knife"})).await;
    call(game("ConsumeItem"), json!({"playerId": "alice", "itemId": "knife"})).await;
    let members = call(game("ListGuildMembers"), json!({"guildId": "nobody"})).await;
    assert_eq!(members, json!({}));
    let purchase = &bought["receipt"]["eventId"];
    let refund = json!({"playerId": "alice", "purchaseEventId": purchase});
    call(game("RefundPurchase"), refund).await;
    let left = call(game("LeaveGuild"), json!({"playerId": "alice", "guildId": "owls"})).await;
    let cursor = &left["receipt"]["cursor"];
    let player =
        call(game("GetPlayer"), json!({"playerId": "alice", "atLeastCursor": cursor})).await;
    assert_eq!(player["player"]["sessionCount"], "1");
    let request_id = &left["receipt"]["requestId"];
    let asked = json!({"playerId": "alice", "requestId": request_id});
    assert_eq!(call(game("GetReceipt"), asked).await["receipt"]["replayed"], true);
    call(game("GetCatalog"), json!({})).await;
    let feed = call("/game.v1.EventFeedService/GetFeed".into(), json!({})).await;
    let poll = json!({"afterCursor": feed["earliestCursor"], "maxWait": "0s"});
    let polled = call("/game.v1.EventFeedService/PollEvents".into(), poll).await;
    assert_eq!(polled["events"].as_array().unwrap().len(), 7);
    assert_eq!(polled["events"][1]["event"]["itemPurchased"]["itemId"], "sword");
    let healthy = call("/grpc.health.v1.Health/Check".into(), json!({})).await;
    assert_eq!(healthy["status"], "SERVING");
}

#[tokio::test]
async fn a_message_goes_and_comes_as_protobuf_too() {
    let server = TestServer::start(&[]).await;
    let message = purchase("alice", "sword").encode_to_vec();
    let answer = ask(&server, "POST", PURCHASE, PROTO, &message).await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/proto"), "{}", answer.head);
    assert!(PurchaseItemResponse::decode(&*answer.body).unwrap().receipt.is_some());
    let asked = StreamEventsRequest { include_origin: true, ..Default::default() };
    let events = server.events_with(asked).await;
    let origin = events[0].event.as_ref().unwrap().origin.as_ref().unwrap();
    assert_eq!(origin.transport(), Transport::Connect);
    assert_eq!(origin.headers["host"], server.address.to_string());
    assert_eq!(origin.remote_address, "127.0.0.1");
    // What is no message is refused in JSON.
    let answer = ask(&server, "POST", PURCHASE, PROTO, b"\xff\xff").await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (StatusCode::BAD_REQUEST, "MESSAGE_MALFORMED")
    );
}

#[tokio::test]
async fn what_only_reads_can_be_asked_by_get() {
    let server = TestServer::start(&[]).await;
    let get = async |path: &str, query: &str| {
        ask(&server, "GET", &format!("{path}?{query}"), "", b"").await
    };
    for query in [
        "connect=v1&encoding=json&message=%7B%7D",
        "message=e30&encoding=json&base64=1",
        "message=e30%3D&encoding=json&base64=1&compression=identity",
    ] {
        let answer = get(CATALOG, query).await;
        assert_eq!(answer.status, 200, "{query}");
        assert_eq!(answer.json()["currencyCode"], "gold", "{query}");
    }
    let answer = get(CATALOG, "connect=v1&encoding=proto&message=&base64=1").await;
    assert!(!GetCatalogResponse::decode(&*answer.body).unwrap().items.is_empty());
    for (query, says) in [
        ("", "encoding"),
        ("encoding=json", "message"),
        ("encoding=json&message={&base64=1", "message"),
        ("encoding=json&message=%7B%22x%22:1%7D", "unrecognized field name 'x'"),
        ("encoding=json&message=%ff", "message"),
        ("encoding=json&message=%7B%7D&connect=v2", "connect"),
    ] {
        let answer = get(CATALOG, query).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.json()["message"].as_str().unwrap().contains(says), "{}", answer.json());
    }
    assert_eq!(get(CATALOG, "encoding=xml&message=").await.status, 415);
    let gzip = get(CATALOG, "encoding=json&message=&compression=gzip").await;
    assert_eq!((gzip.status.as_u16(), gzip.reason().as_str()), (415, "COMPRESSION_UNSUPPORTED"));
    // Nothing that writes is done by GET.
    let query = "encoding=json&message=%7B%22playerId%22:%22a%22,%22itemId%22:%22sword%22%7D";
    let refused = get(PURCHASE, query).await;
    assert_eq!(refused.status, 405);
    assert!(refused.head.contains("allow: post\r\n") || refused.head.contains("allow: post"));
    assert!(server.events().await.is_empty());
}

#[tokio::test]
async fn errors_have_their_code_and_readable_details() {
    let server = TestServer::start(&[]).await;
    let refused = post(&server, PURCHASE, &json!({"quantity": 0})).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["code"], "invalid_argument");
    assert_eq!(refused.reason(), "VALIDATION_FAILED");
    let violations = refused.detail("google.rpc.BadRequest")["fieldViolations"].clone();
    let fields: Vec<_> = violations.as_array().unwrap().iter().map(|v| &v["field"]).collect();
    assert_eq!(fields, ["player_id", "item_id", "quantity"]);
    let value = refused.json()["details"][0]["value"].as_str().unwrap().to_owned();
    assert!(!value.ends_with('='), "Connect's base64 has no padding");
    let unknown = post(&server, "/game.v1.GameService/GetPlayer", &json!({"playerId": "x"})).await;
    assert_eq!(unknown.status, 404);
    assert_eq!(
        (unknown.json()["code"].as_str(), &*unknown.reason()),
        (Some("not_found"), "PLAYER_UNKNOWN")
    );
    let nothing = post(&server, "/game.v1.GameService/Nothing", &json!({})).await;
    assert_eq!(nothing.status, 404);
    assert_eq!(
        (nothing.json()["code"].as_str(), &*nothing.reason()),
        (Some("unimplemented"), "METHOD_UNKNOWN")
    );
}

#[tokio::test]
async fn whatever_is_wrong_is_a_clear_4xx() {
    let server = TestServer::start(&[]).await;
    let huge = format!(r#"{{"playerId":"{}"}}"#, "x".repeat(64 * 1024));
    let very_huge = vec![b' '; 10_000_000];
    let version = format!("{JSON}connect-protocol-version: 2\r\n");
    let timeout = format!("{JSON}connect-timeout-ms: 12345678901\r\n");
    let gzip = format!("{JSON}content-encoding: gzip\r\n");
    let latin = "content-type: application/json; charset=latin1\r\n";
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    for (head, body, status, says) in [
        (JSON, &b"{"[..], 400, "EOF while parsing an object at line 1 column 1"),
        (JSON, b"", 400, "EOF while parsing a value"),
        (JSON, b"\xff", 400, "line 1 column 1"),
        (JSON, br#"{"itemId":"sword","item":1}"#, 400, "unrecognized field name 'item'"),
        (JSON, br#"{"itemId":1}"#, 400, "itemId: invalid type: integer"),
        (JSON, br#"{"quantity":"many"}"#, 400, "quantity: "),
        (JSON, br#"{"playerId":"\ud800"}"#, 400, "playerId: "),
        (JSON, huge.as_bytes(), 413, "limit of 65536 bytes"),
        (JSON, &very_huge, 413, "limit of 65536 bytes"),
        (PROTO, &very_huge, 413, "limit of 65536 bytes"),
        ("", b"{}", 415, "application/json"),
        (form, b"{}", 415, "x-www-form-urlencoded"),
        (form, &very_huge, 415, "x-www-form-urlencoded"),
        (latin, b"{}", 415, "latin1"),
        ("content-type: application/connect+json\r\n", b"{}", 415, "connect+json"),
        (&version, b"{}", 400, "connect-protocol-version"),
        (&timeout, b"{}", 400, "connect-timeout-ms"),
        (&gzip, b"{}", 415, "compressed"),
    ] {
        let answer = ask(&server, "POST", PURCHASE, head, body).await;
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, status, "{message}");
        assert!(message.contains(says), "{says}: {message}");
    }
    for method in ["PUT", "DELETE", "HEAD"] {
        assert_eq!(ask(&server, method, PURCHASE, JSON, b"{}").await.status, 405, "{method}");
    }
    assert!(server.events().await.is_empty());
}

#[tokio::test]
async fn a_body_that_is_cut_off_writes_nothing() {
    use tokio::io::AsyncWriteExt as _;
    let server = TestServer::start(&[]).await;
    let half = format!(
        "POST {PURCHASE} HTTP/1.1\r\nhost: localhost\r\n{JSON}content-length: 100\r\n\r\n\
         {{\"playerId\":\"a\",\"itemId\":\"sword\"}}"
    );
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    stream.write_all(half.as_bytes()).await.unwrap();
    drop(stream);
    let bought = post(&server, PURCHASE, &json!({"playerId": "b", "itemId": "sword"})).await;
    assert_eq!(bought.status, 200);
    assert_eq!(server.events().await.len(), 1);
}

#[tokio::test]
async fn a_deadline_is_kept() {
    let server = TestServer::start(&[]).await;
    let feed = post(&server, "/game.v1.EventFeedService/GetFeed", &json!({})).await.json();
    // Waits until the deadline, a little before which it answers.
    let poll = json!({"afterCursor": feed["latestCursor"], "maxWait": "60s"}).to_string();
    let head = format!("{JSON}connect-timeout-ms: 200\r\n");
    let path = "/game.v1.EventFeedService/PollEvents";
    let begun = std::time::Instant::now();
    let answer = ask(&server, "POST", path, &head, poll.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}

#[tokio::test]
async fn a_stream_is_refused_in_the_form_that_its_client_reads() {
    let server = TestServer::start(&[]).await;
    let path = "/game.v1.EventFeedService/StreamEvents";
    let plain = post(&server, path, &json!({})).await;
    assert_eq!(
        (plain.status.as_u16(), plain.json()["code"].as_str()),
        (404, Some("unimplemented"))
    );
    let head = "content-type: application/connect+json\r\n";
    let stream = ask(&server, "POST", path, head, b"\0\0\0\0\x02{}").await;
    assert_eq!(stream.status, 200);
    assert!(stream.head.contains(head.trim()), "{}", stream.head);
    let (envelope, end) = stream.body.split_at(5);
    assert_eq!(envelope, [&[2][..], &(end.len() as u32).to_be_bytes()].concat());
    let end: Value = serde_json::from_slice(end).unwrap();
    assert_eq!(end["error"]["code"], "unimplemented");
    assert!(end["error"]["message"].as_str().unwrap().contains("gRPC"), "{end}");
}

#[tokio::test]
async fn calls_are_counted_as_any_others_and_so_is_what_is_none() {
    let server = TestServer::start(&[]).await;
    post(&server, PURCHASE, &json!({"playerId": "alice", "itemId": "sword"})).await;
    post(&server, PURCHASE, &json!({"playerId": 1})).await;
    ask(&server, "POST", "/v1/players/alice/purchases?item_id=", "", b"").await;
    ask(&server, "POST", "/v1/players/alice/purchases?quantity=x", "", b"").await;
    let (_, metrics) = crate::harness::get(server.admin, "/metrics").await;
    for (code, count) in [("OK", 1), ("INVALID_ARGUMENT", 3)] {
        let call = format!("method=\"{PURCHASE}\",code=\"{code}\"");
        let line = format!("herald_grpc_calls_total{{{call}}} {count}");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}
