//! The routes below `/v1/`, by a plain HTTP client.

use herald::proto::{GameEvent, PurchaseItemRequest, StreamEventsRequest, Transport};
use serde_json::{Value, json};

use crate::harness::{Answer, TestServer, ask, http, purchase};
use crate::web::grpc_web;

const JSON: &str = "content-type: application/json\r\n";
const TEXT: &str = "accept: text/plain\r\n";

async fn say(server: &TestServer, method: &str, path: &str) -> (u16, String) {
    let answer = ask(server, method, path, TEXT, b"").await;
    assert!(answer.head.contains("content-type: text/plain"), "{}", answer.head);
    (answer.status.as_u16(), String::from_utf8(answer.body).unwrap())
}

fn problem(answer: &Answer) -> Value {
    assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
    let problem = answer.json();
    assert_eq!(problem["status"], answer.status.as_u16());
    problem
}

/// What the replaced systems were asked, and said, in its meaning.
#[tokio::test]
async fn an_action_is_one_line_of_curl_and_one_sentence() {
    let server = TestServer::start(&[]).await;
    let player = "/v1/players/alice";
    for (method, path, status, said) in [
        ("POST", "purchases?item_id=sword", 200, "bought 1 sword\n"),
        ("POST", "purchases?itemId=knife&quantity=2", 200, "bought 2 knife\n"),
        ("POST", "purchases", 400, "item_id: missing\n"),
        ("POST", "purchases?item_id=dragon", 400, "item_id: "),
        ("POST", "guild?guild_id=1", 200, "joined 1\n"),
        ("POST", "guild", 400, "guild_id: missing\n"),
        ("POST", "guild?guild_id=%20", 400, "guild_id: "),
        ("DELETE", "guild?guild_id=1", 200, "left 1\n"),
        ("POST", "sessions", 200, "started session "),
    ] {
        let (code, text) = say(&server, method, &format!("{player}/{path}")).await;
        assert_eq!(code, status, "{method} {path}: {text}");
        assert!(text.starts_with(said) && text.ends_with('\n'), "{method} {path}: {text:?}");
        assert_eq!(text.lines().count(), 1, "{text:?}");
    }
    let dry = "purchases?item_id=sword&validate_only=true";
    let (_, text) = say(&server, "POST", &format!("{player}/{dry}")).await;
    assert_eq!(text, "valid, nothing was written: bought 1 sword\n");
    // Those that were refused are in the feed too, best effort, behind the others.
    let mut types = Vec::new();
    while types.len() < 9 {
        let events = server.events().await;
        types = events.into_iter().map(|event| event.event.unwrap().event_type).collect();
    }
    let count = |name: &str| types.iter().filter(|known| *known == name).count();
    assert_eq!((count("item_purchased"), count("guild_joined"), count("guild_left")), (2, 1, 1));
    assert_eq!((count("session_started"), count("request_rejected")), (1, 4));
}

#[tokio::test]
async fn a_player_and_the_catalogue_are_read_in_json_and_in_words() {
    let server = TestServer::start(&[]).await;
    let body = json!({"itemId": "sword", "quantity": 2}).to_string();
    let path = "/v1/players/al%2Fice/purchases";
    let bought = ask(&server, "POST", path, JSON, body.as_bytes()).await;
    assert_eq!(bought.status, 200, "{}", bought.json());
    assert_eq!(bought.json()["purchase"]["totalPrice"], "200");
    let cursor = bought.json()["receipt"]["cursor"].as_str().unwrap().to_owned();
    let path = format!("/v1/players/al%2Fice?at_least_cursor={cursor}");
    let player = ask(&server, "GET", &path, "", b"").await;
    assert_eq!(player.json()["player"]["inventory"], json!([{"itemId": "sword", "quantity": "2"}]));
    assert_eq!(player.json()["player"]["playerId"], "al/ice");
    let said = (200, "al/ice has 2 sword and is in no guild\n".to_owned());
    assert_eq!(say(&server, "GET", &path).await, said);
    let catalog = ask(&server, "GET", "/v1/catalog", "", b"").await;
    assert!(catalog.head.contains("content-type: application/json"), "{}", catalog.head);
    assert_eq!(catalog.json()["currencyCode"], "gold");
    assert!(say(&server, "GET", "/v1/catalog").await.1.contains("sword for 100 gold"));
    let head = ask(&server, "HEAD", "/v1/catalog", "", b"").await;
    assert!(head.status == 200 && head.body.is_empty());
    let nobody = problem(&ask(&server, "GET", "/v1/players/nobody", "", b"").await);
    assert_eq!((&nobody["status"], &nobody["reason"]), (&json!(404), &json!("PLAYER_UNKNOWN")));
}

#[tokio::test]
async fn a_key_makes_a_request_that_is_carried_out_once() {
    let server = TestServer::start(&[]).await;
    let id = uuid::Uuid::new_v4();
    let path = "/v1/players/alice/purchases?item_id=sword";
    for (key, replayed) in [(id.to_string(), false), (format!("\"{id}\""), true)] {
        let head = format!("idempotency-key: {key}\r\n");
        let bought = ask(&server, "POST", path, &head, b"").await.json();
        assert_eq!(bought["receipt"]["requestId"], id.to_string());
        assert_eq!(bought["receipt"]["replayed"] == true, replayed);
    }
    let (more, head) = (format!("{path}&quantity=2"), format!("idempotency-key: {id}\r\n"));
    let other = ask(&server, "POST", &more, &head, b"").await;
    assert_eq!(
        (other.status.as_u16(), &problem(&other)["reason"]),
        (409, &json!("REQUEST_ID_CONFLICT"))
    );
    let bad = problem(&ask(&server, "POST", path, "idempotency-key: once\r\n", b"").await);
    assert_eq!(bad["violations"][0]["field"], "request_id");
    assert_eq!(server.events().await.iter().filter(|e| e.offset == 0).count(), 1);
}

#[tokio::test]
async fn whatever_is_wrong_is_a_clear_4xx() {
    let server = TestServer::start(&[]).await;
    let huge = format!(r#"{{"itemId":"{}"}}"#, "x".repeat(64 * 1024));
    let very_huge = vec![b' '; 10_000_000];
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let gzip = format!("{JSON}content-encoding: gzip\r\n");
    for (path, head, body, status, field, says) in [
        ("purchases", JSON, &b"{"[..], 400, None, "line 1 column 1"),
        ("purchases", JSON, b"[1]", 400, None, "expected a map"),
        ("purchases", JSON, br#"{"item":"sword"}"#, 400, None, "'item'"),
        ("purchases", JSON, br#"{"itemId":["sword"]}"#, 400, Some("itemId"), "invalid type"),
        ("purchases?quantity=x", "", b"", 400, Some("quantity"), "invalid digit"),
        ("purchases?item=sword", "", b"", 400, Some("item"), "no such field"),
        ("purchases?item_id=%ff", "", b"", 400, Some("item_id"), "UTF-8"),
        ("purchases?item_id=a", JSON, br#"{"itemId":"b"}"#, 400, Some("item_id"), "twice"),
        ("purchases?player_id=bob", "", b"", 400, Some("player_id"), "twice"),
        ("purchases", "", b"", 400, Some("item_id"), "missing"),
        ("purchases", JSON, huge.as_bytes(), 413, None, "limit of 65536 bytes"),
        ("purchases", JSON, &very_huge, 413, None, "limit of 65536 bytes"),
        ("purchases", form, b"item_id=sword", 415, None, "x-www-form-urlencoded"),
        ("purchases", &gzip, b"{}", 415, None, "compressed"),
        ("trades", JSON, &very_huge, 404, None, "no such route"),
        ("purchases/1", JSON, b"{}", 404, None, "no such route"),
    ] {
        let answer = ask(&server, "POST", &format!("/v1/players/alice/{path}"), head, body).await;
        let problem = problem(&answer);
        assert_eq!(answer.status, status, "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{says}: {problem}");
        let named = problem["violations"][0]["field"].as_str();
        assert_eq!(named, field, "{problem}");
    }
    for (method, path, allow) in [
        ("GET", "players/alice/purchases?item_id=sword", "allow: post"),
        ("PUT", "players/alice/guild", "allow: post, delete"),
        ("DELETE", "catalog", "allow: get, head"),
    ] {
        let answer = ask(&server, method, &format!("/v1/{path}"), "", b"").await;
        assert_eq!(answer.status, 405, "{method} {path}");
        let lines: Vec<_> = answer.head.lines().collect();
        assert!(lines.contains(&allow), "{}", answer.head);
    }
    let events = server.events().await;
    assert!(events.iter().all(|e| e.event.as_ref().unwrap().event_type == "request_rejected"));
}

/// The newest event, with what differs between transports taken out of it.
async fn event(server: &TestServer) -> (Transport, GameEvent) {
    loop {
        let asked = StreamEventsRequest { include_origin: true, ..Default::default() };
        // One that was refused is written a moment later.
        let Some(newest) = server.events_with(asked).await.pop() else { continue };
        let mut event = newest.event.unwrap();
        event.accept_time = None;
        let origin = event.origin.as_mut().unwrap();
        origin.headers.clear();
        let transport = origin.transport();
        origin.transport = 0;
        return (transport, event);
    }
}

#[tokio::test]
async fn the_same_request_makes_the_same_event_in_every_way() {
    let request_id = uuid::Uuid::new_v4().to_string();
    let with_id = |request| PurchaseItemRequest { request_id: request_id.clone(), ..request };
    let good = PurchaseItemRequest { quantity: Some(3), ..with_id(purchase("al ice", "sword")) };
    let bad = PurchaseItemRequest { quantity: Some(0), ..with_id(purchase("al ice", "dragon")) };
    for (request, refused) in [(good, false), (bad, true)] {
        let quantity = request.quantity.unwrap();
        let json = json!({
            "requestId": request_id, "playerId": "al ice",
            "itemId": request.item_id, "quantity": quantity,
        });
        let route = format!(
            "/v1/players/al%20ice/purchases?request_id={request_id}&item_id={}&quantity={quantity}",
            request.item_id
        );
        let mut seen = Vec::new();
        for way in ["grpc", "grpc-web", "connect", "rest"] {
            let server = TestServer::start(&[]).await;
            match way {
                "grpc" => drop(server.game().await.purchase_item(request.clone()).await),
                "grpc-web" => drop(grpc_web(&server, "GameService/PurchaseItem", &request).await),
                "connect" => {
                    let path = "/game.v1.GameService/PurchaseItem";
                    ask(&server, "POST", path, JSON, json.to_string().as_bytes()).await;
                }
                _ => drop(ask(&server, "POST", &route, "", b"").await),
            }
            let (transport, mut event) = event(&server).await;
            if refused {
                // Made by chance, so that it is never the action's own.
                event.event_id.clear();
            }
            seen.push((transport, event));
        }
        let transports: Vec<_> = seen.iter().map(|(transport, _)| *transport).collect();
        use Transport::{Connect, Grpc, GrpcWeb, Http};
        assert_eq!(transports, [Grpc, GrpcWeb, Connect, Http]);
        for (_, event) in &seen {
            assert_eq!(*event, seen[0].1);
        }
    }
}

/// A page under a name that was made to lead here may not even read.
#[tokio::test]
async fn a_name_that_anybody_could_make_lead_here_is_not_answered() {
    let ask = async |server: &TestServer, host: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let (head, body) = http(server.address, request.as_bytes()).await;
        (head[9..12].to_owned(), String::from_utf8(body).unwrap())
    };
    let server = TestServer::start(&[]).await;
    let listing = TestServer::start(&["--cors=https://events.example"]).await;
    let connect = "/game.v1.GameService/GetCatalog?connect=v1&encoding=json&message=%7B%7D";
    let events = "/v1/events?stop_when_caught_up=true";
    for path in ["/v1/catalog", connect, events] {
        for (server, host, expected) in [
            (&server, "127.0.0.1:1", "200"),
            (&server, "localhost", "200"),
            (&server, "events.example", "403"),
            (&listing, "events.example", "200"),
            (&listing, "evil.example", "403"),
        ] {
            let (code, text) = ask(server, host, path).await;
            assert_eq!(code, expected, "{host} {path}: {text}");
            assert_eq!(code == "403", text.contains("--cors https://HOST"), "{text}");
        }
    }
}
