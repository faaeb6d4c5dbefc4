//! The actions beside purchases, sessions and guilds, as clients and `herald` call them.

use herald::proto::game_event::Payload;
use herald::proto::{
    ConsumeItemRequest, GrantItemRequest, ItemGranted, RefundPurchaseRequest, Violation,
};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::harness::{TestServer, fields, purchase};
use crate::process::Process;

/// All that a refused request was told.
fn told(status: &Status) -> Vec<(String, String)> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone());
    violations.unwrap_or_default().into_iter().map(|v| (v.field, v.description)).collect()
}

#[tokio::test]
async fn what_is_granted_is_an_event_with_its_reason() {
    let server = TestServer::start(&[]).await;
    let mut game = server.game().await;
    let grant = |item: &str, quantity| GrantItemRequest {
        player_id: "alice".into(),
        item_id: item.into(),
        quantity,
        reason: "daily_reward".into(),
        ..Default::default()
    };
    let checked = GrantItemRequest { validate_only: true, ..grant("sword", None) };
    assert!(game.grant_item(checked).await.unwrap().into_inner().receipt.is_none());
    let granted = game.grant_item(grant("sword", Some(3))).await.unwrap().into_inner();
    let events = server.events().await;
    assert_eq!(events.len(), 1);
    let event = events[0].event.clone().unwrap();
    assert_eq!(event.event_id, granted.receipt.unwrap().event_id);
    assert_eq!(event.event_type, "item_granted");
    let (item_id, reason) = ("sword".into(), "daily_reward".into());
    assert_eq!(
        event.payload,
        Some(Payload::ItemGranted(ItemGranted { item_id, quantity: 3, reason }))
    );
    assert_eq!(fields(&game.grant_item(grant("hat", None)).await.unwrap_err()), ["item_id"]);
}

#[tokio::test]
async fn what_a_player_does_not_have_cannot_be_used_up_or_given_back() {
    let server = TestServer::start(&[]).await;
    let mut game = server.game().await;
    let consume = ConsumeItemRequest {
        player_id: "alice".into(),
        item_id: "sword".into(),
        ..Default::default()
    };
    let refused = game.consume_item(consume).await.unwrap_err();
    let reason = "more than the player has, which is 0";
    assert_eq!(told(&refused), [("quantity".into(), reason.into())]);

    let bought = game.purchase_item(purchase("bob", "sword")).await.unwrap().into_inner();
    let of_another = RefundPurchaseRequest {
        player_id: "alice".into(),
        purchase_event_id: bought.receipt.unwrap().event_id,
        ..Default::default()
    };
    let refused = game.refund_purchase(of_another).await.unwrap_err();
    let reason = "not among the newest purchases of the player, or refunded before";
    assert_eq!(told(&refused), [("purchase_event_id".into(), reason.into())]);

    // Nobody waits for the notes of refusals; what is acknowledged after them lies behind them.
    game.purchase_item(purchase("bob", "sword")).await.unwrap();
    let events = server.events().await;
    let methods: Vec<_> = events
        .into_iter()
        .filter_map(|event| match event.event?.payload? {
            Payload::RequestRejected(rejected) => Some((rejected.method, rejected.violations)),
            _ => None,
        })
        .collect();
    let violation = |field: &str, description: &str| {
        vec![Violation { field: field.into(), description: description.into() }]
    };
    assert_eq!(
        methods,
        [
            (
                "ConsumeItem".to_owned(),
                violation("quantity", "more than the player has, which is 0")
            ),
            ("RefundPurchase".to_owned(), violation("purchase_event_id", reason)),
        ]
    );
}

#[test]
fn the_command_line_has_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    let run = |args: &[&str]| {
        let ran = server.herald(args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (ran.status.code(), text(ran.stdout) + &text(ran.stderr))
    };
    let (code, shown) = run(&["grant", "--player", "alice", "--item", "sword", "--quantity", "3"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.starts_with("granted 3 sword  event "), "{shown}");
    let checked = ["grant", "--player", "alice", "--item", "sword", "--validate-only"];
    let (_, shown) = run(&checked);
    assert_eq!(shown, "valid, nothing was written: granted 1 sword\n");
    let (_, shown) = run(&[&checked[..], &["--json"]].concat());
    assert_eq!(shown, "{\"ownedQuantity\":\"4\"}\n");
    let (code, shown) = run(&["consume", "--player", "bob", "--item", "sword"]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("quantity: more than the player has"), "{shown}");
    let (code, shown) = run(&["leave", "--player", "bob", "--guild", "mascots"]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("guild_id: the player is not in it"), "{shown}");
    let (code, shown) = run(&["refund", "--player", "bob", "--purchase", "sword"]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("purchase_event_id: not a UUID"), "{shown}");
}
