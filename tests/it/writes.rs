//! What the write path promises to game clients.

use herald::proto::game_event::Payload;
use herald::proto::{
    ClientContext, DeliveredEvent, EventReceipt, GetCatalogRequest, GetFeedRequest,
    GetReceiptRequest, JoinGuildRequest, PurchaseItemRequest, StartSessionRequest,
    StreamEventsRequest, Transport,
};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::harness::{EARLIEST, TestServer, after, binary, fields, get, purchase, reason};

const REQUEST_ID: &str = "6f1c1d2e-8a3b-4c5d-9e0f-1a2b3c4d5e6f";

#[tokio::test]
async fn a_receipt_names_the_place_of_the_event_in_the_log() {
    let server = TestServer::start(&["--key-partitions=3"]).await;
    let mut game = server.game().await;
    let request = PurchaseItemRequest { quantity: Some(2), ..purchase("alice", "sword") };
    let bought = game.purchase_item(request).await.unwrap().into_inner();
    let session = StartSessionRequest { player_id: "bob".into(), ..Default::default() };
    let session = game.start_session(session).await.unwrap().into_inner();
    let joined = JoinGuildRequest {
        player_id: "bob".into(),
        guild_id: "mascots".into(),
        ..Default::default()
    };
    let joined = game.join_guild(joined).await.unwrap().into_inner();

    let receipts = [bought.receipt.unwrap(), session.receipt.unwrap(), joined.receipt.unwrap()];
    let events = server.events().await;
    assert_eq!(events.len(), 3);
    for receipt in &receipts {
        let found = events
            .iter()
            .find(|e| (e.partition, e.offset) == (receipt.partition, receipt.offset))
            .expect("the receipt's place must hold an event");
        let event = found.event.as_ref().unwrap();
        assert_eq!(event.event_id, receipt.event_id);
        assert_eq!(event.accept_time, receipt.accept_time);
        assert!(!receipt.replayed);
    }
    assert_eq!(session.session_id, receipts[1].event_id);
    let purchase = bought.purchase.unwrap();
    assert_eq!((purchase.unit_price, purchase.total_price), (100, 200));
}

#[tokio::test]
async fn the_cursor_of_a_receipt_is_just_behind_its_event() {
    let server = TestServer::start(&[]).await;
    let mut game = server.game().await;
    let mut cursors = Vec::new();
    for item in ["sword", "knife", "shield"] {
        let bought = game.purchase_item(purchase("alice", item)).await.unwrap().into_inner();
        cursors.push(bought.receipt.unwrap().cursor);
    }
    for (i, cursor) in cursors.iter().enumerate() {
        let request = StreamEventsRequest { start: after(cursor), ..Default::default() };
        let offsets: Vec<_> =
            server.events_with(request).await.iter().map(|event| event.offset).collect();
        assert_eq!(offsets, (i as i64 + 1..3).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_retry_is_answered_with_the_first_receipt_also_after_a_restart() {
    let mut server = TestServer::start(&["--key-partitions=3"]).await;
    let request =
        PurchaseItemRequest { request_id: REQUEST_ID.into(), ..purchase("alice", "sword") };
    let bought = server.game().await.purchase_item(request.clone()).await.unwrap().into_inner();
    let first = bought.receipt.clone().unwrap();
    assert_eq!(first.request_id, REQUEST_ID);
    for restart in [false, true] {
        if restart {
            server = server.restart().await;
        }
        let mut game = server.game().await;
        let shouted =
            PurchaseItemRequest { request_id: REQUEST_ID.to_uppercase(), ..request.clone() };
        let retry = game.purchase_item(shouted).await.unwrap().into_inner();
        assert_eq!(retry.purchase, bought.purchase);
        let retry = retry.receipt.unwrap();
        assert!(retry.replayed);
        let same = |receipt: &EventReceipt| EventReceipt {
            cursor: String::new(),
            replayed: false,
            ..receipt.clone()
        };
        assert_eq!(same(&retry), same(&first));
        let request = after(&retry.cursor);
        let behind = StreamEventsRequest { start: request, ..Default::default() };
        assert!(server.events_with(behind).await.is_empty());

        let other = PurchaseItemRequest { quantity: Some(2), ..request_of(REQUEST_ID) };
        let refused = game.purchase_item(other).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::AlreadyExists, "REQUEST_ID_CONFLICT")
        );
        let asked = game.get_receipt(receipt_of(REQUEST_ID)).await.unwrap().into_inner();
        assert_eq!(same(&asked.receipt.unwrap()), same(&first));
        assert_eq!(server.events().await.len(), 1, "nothing was written twice");
    }
}

fn request_of(request_id: &str) -> PurchaseItemRequest {
    PurchaseItemRequest { request_id: request_id.into(), ..purchase("alice", "sword") }
}

fn receipt_of(request_id: &str) -> GetReceiptRequest {
    GetReceiptRequest { player_id: "alice".into(), request_id: request_id.into() }
}

#[tokio::test]
async fn a_receipt_that_is_not_there_says_since_when_that_is_sure() {
    let flags = ["--request-horizon=5m", "--request-index-entries=6400"];
    let server = TestServer::start(&flags).await;
    let mut game = server.game().await;
    let unknown = game.get_receipt(receipt_of(REQUEST_ID)).await.unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "RECEIPT_UNKNOWN"));
    let details = unknown.get_error_details();
    assert!(details.error_info().unwrap().metadata.contains_key("horizon_start"));
    assert_eq!(details.resource_info().unwrap().resource_name, REQUEST_ID);
    let wrong = game.get_receipt(GetReceiptRequest::default()).await.unwrap_err();
    assert_eq!(fields(&wrong), ["player_id", "request_id"]);

    game.purchase_item(request_of(REQUEST_ID)).await.unwrap();
    let feed = server.feed().await.get_feed(GetFeedRequest {}).await.unwrap().into_inner();
    let horizon = feed.request_horizon.unwrap();
    assert_eq!((horizon.entries, horizon.max_entries), (1, 6400));
    assert_eq!(horizon.max_age.unwrap().seconds, 300);
    let (_, metrics) = get(server.admin, "/metrics").await;
    assert!(metrics.contains("herald_requests_entries 1"), "{metrics}");
    assert!(metrics.contains("herald_requests_horizon_seconds 300"), "{metrics}");
    let age = feed_age(horizon.start_time.unwrap());
    assert!((299..=310).contains(&age), "{age}");
}

fn feed_age(time: prost_types::Timestamp) -> i64 {
    jiff::Timestamp::now().as_second() - time.seconds
}

#[tokio::test]
async fn the_command_line_shows_receipts() {
    let server = TestServer::start(&[]).await;
    server.game().await.purchase_item(request_of(REQUEST_ID)).await.unwrap();
    let run = |player: &str| {
        let server = server.address.to_string();
        let args = ["receipt", player, REQUEST_ID, "--server", &server];
        std::process::Command::new(binary()).args(args).output().unwrap()
    };
    let shown = run("alice");
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success() && text.contains("partition 0 offset 0"), "{text}");
    let unknown = run("bob");
    assert_eq!(unknown.status.code(), Some(1));
    let text = String::from_utf8(unknown.stderr).unwrap();
    assert!(text.contains("RECEIPT_UNKNOWN") && text.contains("horizon_start"), "{text}");
}

#[tokio::test]
async fn a_caller_without_a_request_id_is_given_one() {
    let server = TestServer::start(&[]).await;
    let mut game = server.game().await;
    let mut receipt = async || {
        game.purchase_item(purchase("alice", "sword")).await.unwrap().into_inner().receipt.unwrap()
    };
    let (first, second) = (receipt().await, receipt().await);
    assert_ne!(first.request_id, second.request_id);
    assert_ne!(first.event_id, second.event_id);
}

#[tokio::test]
async fn a_refused_purchase_can_be_corrected_under_the_same_request_id() {
    let server = TestServer::start(&[]).await;
    let mut game = server.game().await;
    let wrong = PurchaseItemRequest {
        request_id: REQUEST_ID.into(),
        quantity: Some(-5),
        ..purchase("alice", "dragon\u{7}")
    };
    let refusal = game.purchase_item(wrong).await.unwrap_err();
    assert_eq!(
        (refusal.code(), reason(&refusal).as_str()),
        (Code::InvalidArgument, "VALIDATION_FAILED")
    );
    assert_eq!(fields(&refusal), ["item_id", "quantity"]);
    let right = PurchaseItemRequest { request_id: REQUEST_ID.into(), ..purchase("alice", "sword") };
    game.purchase_item(right).await.unwrap();

    let events = server
        .events_with(StreamEventsRequest { include_origin: true, ..Default::default() })
        .await;
    let types: Vec<_> =
        events.iter().map(|e| e.event.as_ref().unwrap().event_type.as_str()).collect();
    assert_eq!(types, ["request_rejected", "item_purchased"]);
    let rejected = events[0].event.as_ref().unwrap();
    assert_eq!(rejected.player_id, "alice");
    assert_eq!(rejected.origin.as_ref().unwrap().request_id, REQUEST_ID);
    let Some(Payload::RequestRejected(rejection)) = &rejected.payload else {
        panic!("{rejected:?}")
    };
    assert_eq!(rejection.method, "PurchaseItem");
    assert_eq!(rejection.violations.len(), 2);
    assert!(!format!("{rejected:?}").contains("dragon"), "the value must not be repeated");
}

#[tokio::test]
async fn validate_only_writes_nothing() {
    let server = TestServer::start(&[]).await;
    let mut game = server.game().await;
    let good = PurchaseItemRequest { validate_only: true, ..purchase("alice", "sword") };
    let checked = game.purchase_item(good).await.unwrap().into_inner();
    assert!(checked.receipt.is_none());
    assert_eq!(checked.purchase.unwrap().total_price, 100);
    let bad = PurchaseItemRequest { validate_only: true, ..purchase("alice", "dragon") };
    assert_eq!(fields(&game.purchase_item(bad).await.unwrap_err()), ["item_id"]);
    // One that is written comes after both, and is alone.
    game.purchase_item(purchase("alice", "knife")).await.unwrap();
    assert_eq!(server.events().await.len(), 1);
}

#[tokio::test]
async fn the_catalogue_decides_what_can_be_bought_and_joined() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.toml");
    let text =
        "currency = 'gems'\nguilds = ['mascots']\n[[items]]\nid = 'hat'\nname = 'Hat'\nprice = 7";
    std::fs::write(&file, text).unwrap();
    let flag = format!("--catalog={}", file.display());
    let server = TestServer::start(&[&flag, "--rejections-per-second=0"]).await;
    let mut game = server.game().await;
    let catalog = game.get_catalog(GetCatalogRequest {}).await.unwrap().into_inner();
    assert_eq!(catalog.items.len(), 1);
    assert_eq!((catalog.guilds_open, catalog.guild_ids), (false, vec!["mascots".to_owned()]));
    assert_eq!(
        fields(&game.purchase_item(purchase("alice", "sword")).await.unwrap_err()),
        ["item_id"]
    );
    let join = |guild: &str| JoinGuildRequest {
        player_id: "alice".into(),
        guild_id: guild.into(),
        ..Default::default()
    };
    assert_eq!(fields(&game.join_guild(join("others")).await.unwrap_err()), ["guild_id"]);
    game.join_guild(join("mascots")).await.unwrap();
    assert_eq!(server.events().await.len(), 1, "refusals are not recorded when told so");
}

#[tokio::test]
async fn an_origin_holds_what_it_may_and_is_shown_to_who_asks() {
    let server = TestServer::start(&[]).await;
    let context = ClientContext { platform: "android".into(), ..Default::default() };
    let request =
        PurchaseItemRequest { client_context: Some(context.clone()), ..purchase("alice", "sword") };
    let mut request = Request::new(request);
    for (name, value) in [
        ("authorization", "Bearer sesame"),
        ("cookie", "sesame"),
        ("x-api-key", "sesame"),
        ("x-request-id", "r-1"),
        ("x-unlisted", "u"),
    ] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    server.game().await.purchase_item(request).await.unwrap();

    let hidden = server.events().await;
    assert!(hidden[0].event.as_ref().unwrap().origin.is_none());
    let asked = StreamEventsRequest { include_origin: true, ..Default::default() };
    let shown = server.events_with(asked).await;
    let origin = shown[0].event.as_ref().unwrap().origin.clone().unwrap();
    assert_eq!(origin.transport(), Transport::Grpc);
    assert_eq!(origin.remote_address, "127.0.0.1");
    assert_eq!(origin.client_context, Some(context));
    assert_eq!(origin.headers["x-request-id"], "r-1");
    assert_eq!(origin.headers["host"], server.address.to_string());
    assert!(origin.headers.contains_key("user-agent"));
    assert!(!origin.headers.contains_key("x-unlisted"));
    assert!(!format!("{origin:?}").contains("sesame"));
}

#[tokio::test]
async fn origins_are_denied_where_they_are_not_exposed() {
    let server = TestServer::start(&["--expose-origin=no"]).await;
    let request =
        StreamEventsRequest { start: EARLIEST, include_origin: true, ..Default::default() };
    let denied = server.feed().await.stream_events(request).await.unwrap_err();
    assert_eq!((denied.code(), reason(&denied).as_str()), (Code::PermissionDenied, "SCOPE_DENIED"));
}

#[tokio::test]
async fn events_survive_a_restart_and_cursors_stay_good() {
    let server = TestServer::start(&["--key-partitions=3"]).await;
    let mut game = server.game().await;
    for player in ["alice", "bob", "carol", "dave"] {
        game.purchase_item(purchase(player, "sword")).await.unwrap();
    }
    // Partitions have no order among each other.
    let by_place = |mut events: Vec<DeliveredEvent>| {
        events.sort_by_key(|event| (event.partition, event.offset));
        events
    };
    let before = by_place(server.events().await);
    let feed = server.feed().await.get_feed(herald::proto::GetFeedRequest {}).await.unwrap();
    let feed = feed.into_inner();
    drop(game);
    let server = server.restart().await;
    assert_eq!(by_place(server.events().await), before);
    server.game().await.purchase_item(purchase("erin", "sword")).await.unwrap();
    let request = StreamEventsRequest { start: after(&feed.latest_cursor), ..Default::default() };
    let later = server.events_with(request).await;
    assert_eq!(later.len(), 1);
    assert_eq!(later[0].event.as_ref().unwrap().player_id, "erin");
    let again = server.feed().await.get_feed(herald::proto::GetFeedRequest {}).await.unwrap();
    assert_eq!(again.into_inner().feed_epoch, feed.feed_epoch);
}
