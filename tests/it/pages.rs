//! Which web pages may call, by what browsers send for them, and what they may read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use prost::Message as _;
use serde_json::Value;
use tonic::{Code, Status};

use crate::harness::{TestServer, ask, get, http, purchase, reason};

const ROUTE: &str = "/v1/players/alice/purchases?item_id=sword";
const CALL: &str = "/game.v1.GameService/PurchaseItem";
const JSON: &str = "content-type: application/json\r\n";
const GRPC_WEB: &str = "content-type: application/grpc-web+proto\r\n";
const LINK: &str = "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n";

/// A purchase in each way in which a page can send it: path, headers, body.
fn ways() -> [(&'static str, &'static str, Vec<u8>); 3] {
    let message = purchase("alice", "sword").encode_to_vec();
    let frame = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    let json = br#"{"playerId": "alice", "itemId": "sword"}"#.to_vec();
    [(ROUTE, "", Vec::new()), (CALL, JSON, json), (CALL, GRPC_WEB, frame)]
}

/// What a page is told of its purchase: the headers as they are, and the reason of a refusal in
/// the form that belongs to the way, if it is one.
async fn buy(
    server: &TestServer,
    (path, of_way, body): &(&str, &str, Vec<u8>),
    head: &str,
) -> (String, Option<String>) {
    let length = body.len();
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{of_way}{head}\
         content-length: {length}\r\n\r\n",
        server.address
    )
    .into_bytes();
    request.extend(body);
    let (head, body) = http(server.address, &request).await;
    let line = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
    };
    if let Some(details) = line("grpc-status-details-bin") {
        assert_eq!(line("grpc-status").unwrap(), "7");
        let types: Vec<_> = head.lines().filter(|line| line.starts_with("content-type")).collect();
        assert_eq!(types, [of_way.trim()]);
        let details = STANDARD_NO_PAD.decode(details).unwrap();
        let status = Status::with_details(Code::PermissionDenied, "", details.into());
        return (head, Some(reason(&status)));
    }
    if head.starts_with("HTTP/1.1 200") {
        return (head, None);
    }
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let said: Value = serde_json::from_slice(&body).unwrap();
    let reason = match line("content-type").unwrap().as_str() {
        "application/problem+json" => said["reason"].clone(),
        _ => said["details"][0]["debug"]["reason"].clone(),
    };
    assert_eq!(said["code"], "permission_denied");
    (head, Some(reason.as_str().unwrap().to_owned()))
}

#[tokio::test]
async fn a_page_that_may_not_call_writes_nothing_and_reads_nothing() {
    let server = TestServer::start(&[]).await;
    let denied = [
        "origin: https://evil.example\r\n",
        "origin: null\r\n",
        "origin: http://localhost.evil.example\r\nsec-fetch-site: cross-site\r\n",
        "origin: http://localhost:3000\r\nsec-fetch-site: same-site\r\n",
        "sec-fetch-site: cross-site\r\n",
        "sec-fetch-site: same-site\r\n",
        LINK,
    ];
    for way in &ways() {
        for head in denied {
            let (answer, reason) = buy(&server, way, head).await;
            assert_eq!(reason.as_deref(), Some("ORIGIN_DENIED"), "{way:?} {head}: {answer}");
            assert!(!answer.contains("access-control-"), "{answer}");
        }
    }
    let text = "accept: text/plain\r\norigin: https://evil.example\r\n";
    let said = ask(&server, "DELETE", "/v1/players/alice/guild?guild_id=owls", text, b"").await;
    assert_eq!(said.status, 403);
    assert!(said.body.starts_with(b"pages of this origin may not call: --cors"));
    assert!(server.events().await.is_empty());
    let (_, metrics) = get(server.admin, "/metrics").await;
    let count = ways().len() * denied.len();
    let line =
        format!("herald_grpc_calls_total{{method=\"{CALL}\",code=\"PERMISSION_DENIED\"}} {count}");
    assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
}

#[tokio::test]
async fn a_page_that_may_call_is_served_and_reads_it() {
    let server = TestServer::start(&["--cors=https://game.example"]).await;
    let own = format!("origin: http://{}\r\nsec-fetch-site: same-origin\r\n", server.address);
    for way in &ways() {
        let listed = "origin: https://game.example\r\nsec-fetch-site: cross-site\r\n";
        for head in [listed, own.as_str(), "sec-fetch-site: same-origin\r\n", ""] {
            let (answer, reason) = buy(&server, way, head).await;
            assert_eq!(reason, None, "{answer}");
            let origin = head.lines().find_map(|line| line.strip_prefix("origin: "));
            let open = origin.map(|origin| format!("access-control-allow-origin: {origin}\r\n"));
            let says = |what: &str| answer.contains(what);
            assert_eq!(says("access-control-allow-origin"), open.is_some(), "{answer}");
            assert!(open.is_none_or(|open| says(&open)), "{answer}");
            assert!(says("vary: origin"), "{answer}");
            assert!(!says("access-control-allow-credentials"), "{answer}");
        }
        let (answer, _) = buy(&server, way, "origin: http://localhost:3000\r\n").await;
        assert!(!answer.contains("access-control-"), "it is not listed: {answer}");
    }
    // What is refused is read too, with what comes beside the body.
    let head = "origin: https://game.example\r\n";
    let wrong = ask(&server, "POST", "/v1/catalog", head, b"").await;
    assert_eq!(wrong.status, 405);
    assert!(wrong.head.contains("\nallow: get, head"), "{}", wrong.head);
    let exposed = wrong.head.lines().find(|line| line.starts_with("access-control-expose-headers"));
    for name in ["allow", "accept-post", "retry-after", "grpc-status", "grpc-status-details-bin"] {
        assert!(exposed.unwrap().contains(name), "{exposed:?}");
    }
    assert_eq!(server.events().await.len(), 12);
}

#[tokio::test]
async fn a_browser_that_asks_is_told_what_a_page_may_do() {
    let server = TestServer::start(&["--cors=loopback"]).await;
    let guild = "/v1/players/alice/guild";
    let ask_for = async |path: &str, method: &str, origin: &str| {
        let head = format!(
            "origin: {origin}\r\naccess-control-request-method: {method}\r\n\
             access-control-request-headers: content-type,x-grpc-web,authorization\r\n"
        );
        ask(&server, "OPTIONS", path, &head, b"").await
    };
    for (path, method) in [(CALL, "POST"), (guild, "DELETE"), (guild, "GET"), ("/", "GET")] {
        let allowed = ask_for(path, method, "http://localhost:5173").await;
        assert!(allowed.status.is_success() && allowed.body.is_empty(), "{}", allowed.head);
        for says in [
            "access-control-allow-origin: http://localhost:5173",
            "access-control-allow-methods: get, head, post, delete",
            "access-control-allow-headers: content-type,x-grpc-web,authorization",
        ] {
            assert!(allowed.head.contains(says), "{}", allowed.head);
        }
        let stranger = ask_for(path, method, "https://evil.example").await;
        assert_eq!(stranger.status, 403);
        assert!(!stranger.head.contains("access-control-"), "{}", stranger.head);
    }
    // Nobody who asks for a page.
    let plain = ask(&server, "OPTIONS", guild, "", b"").await;
    assert_eq!(plain.status, 405);
    assert!(plain.head.contains("\nallow: post, delete"), "{}", plain.head);
}

/// A page under a name that was made to lead here may not even read.
#[tokio::test]
async fn a_name_that_anybody_could_make_lead_here_is_not_answered() {
    let look = async |server: &TestServer, host: &str, path: &str, head: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{head}\r\n");
        let (head, body) = http(server.address, request.as_bytes()).await;
        (head[9..12].to_owned(), String::from_utf8(body).unwrap())
    };
    let server = TestServer::start(&[]).await;
    let by_origin = TestServer::start(&["--cors=https://events.example"]).await;
    let by_name = TestServer::start(&["--allowed-hosts=events.example"]).await;
    let connect = "/game.v1.GameService/GetCatalog?connect=v1&encoding=json&message=%7B%7D";
    let events = "/v1/events?stop_when_caught_up=true";
    for path in ["/v1/catalog", events, connect, "/", "/assets/page.js"] {
        for (server, host, expected) in [
            (&server, "127.0.0.1:1", "200"),
            (&server, "localhost", "200"),
            (&server, "events.example", "403"),
            (&by_origin, "events.example", "200"),
            (&by_origin, "evil.example", "403"),
            (&by_name, "events.example", "200"),
            (&by_name, "events.example:8080", "200"),
            (&by_name, "evil.example", "403"),
        ] {
            for head in ["", LINK] {
                let (code, text) = look(server, host, path, head).await;
                assert_eq!(code, expected, "{host} {path} {head}: {text}");
                assert_eq!(code == "403", text.contains("--allowed-hosts NAME"), "{text}");
            }
            let embedded = "sec-fetch-site: cross-site\r\nsec-fetch-mode: no-cors\r\n";
            assert_eq!(look(server, host, path, embedded).await.0, "403");
        }
    }
    // The page under a name that is listed is the server's own.
    let head = "origin: https://events.example\r\nhost: events.example\r\n";
    for (server, code) in [(&server, "403"), (&by_origin, "200"), (&by_name, "200")] {
        let request = format!("POST {ROUTE} HTTP/1.1\r\nconnection: close\r\n{head}\r\n");
        let (head, _) = http(server.address, request.as_bytes()).await;
        assert_eq!(&head[9..12], code, "{head}");
    }
}

#[tokio::test]
async fn a_stream_of_connect_is_refused_in_its_form() {
    let server = TestServer::start(&[]).await;
    let head = "content-type: application/connect+json\r\norigin: https://evil.example\r\n";
    let path = "/game.v1.EventFeedService/StreamEvents";
    let stream = ask(&server, "POST", path, head, b"\0\0\0\0\x02{}").await;
    assert_eq!(stream.status, 200);
    let end: Value = serde_json::from_slice(&stream.body[5..]).unwrap();
    assert_eq!(end["error"]["code"], "permission_denied");
}
