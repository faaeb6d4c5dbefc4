//! What every action has in common, and the rules of each.

use super::super::Nothing;
use super::*;

fn purchase(player: &str, item: &str, quantity: Option<i32>) -> Submission {
    proto::PurchaseItemRequest {
        player_id: player.into(),
        item_id: item.into(),
        quantity,
        ..Default::default()
    }
    .into()
}

fn violations(submission: Submission) -> Vec<(String, String)> {
    let refusal = submission.parse(&Catalog::built_in()).unwrap_err();
    refusal.violations.into_vec().into_iter().map(|v| (v.field, v.description)).collect()
}

#[test]
fn every_violation_of_shape_and_catalogue_is_reported_at_once() {
    let fields: Vec<_> =
        violations(purchase("", "hat", Some(0))).into_iter().map(|(f, _)| f).collect();
    assert_eq!(fields, ["player_id", "quantity", "item_id"]);
}

#[test]
fn a_field_with_a_wrong_shape_is_named_once() {
    assert_eq!(violations(purchase("alice", "", None)), [("item_id".into(), "missing".into())]);
}

#[test]
fn a_violation_never_repeats_the_value() {
    let evil = "\u{1b}[31mred";
    for (_, description) in violations(purchase(evil, evil, Some(-77))) {
        assert!(!description.contains("red") && !description.contains("77"), "{description}");
    }
}

#[test]
fn quantities_have_a_range_and_one_is_the_default() {
    for quantity in [0, -1, i32::MIN, MAX_QUANTITY + 1, i32::MAX] {
        assert_eq!(violations(purchase("alice", "sword", Some(quantity))).len(), 1);
    }
    let request = purchase("alice", "sword", None).parse(&Catalog::built_in()).unwrap();
    let one = purchase("alice", "sword", Some(1)).parse(&Catalog::built_in()).unwrap();
    assert_eq!(request.action, one.action);
}

#[test]
fn the_price_is_the_catalogues() {
    let catalog = Catalog::built_in();
    let request = purchase("alice", "sword", Some(3)).parse(&catalog).unwrap();
    let terms = request.action.decide(&catalog, &Nothing).unwrap();
    let Payload::ItemPurchased(bought) = request.action.payload(request.event_id(), &terms) else {
        panic!("not a purchase")
    };
    assert_eq!((bought.unit_price, bought.total_price), (100, 300));
}

#[test]
fn a_client_context_is_checked_too() {
    let submission: Submission = proto::JoinGuildRequest {
        player_id: "alice".into(),
        guild_id: "mascots".into(),
        client_context: Some(proto::ClientContext {
            client_time: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
            session_id: "x\n".into(),
            build_version: "x".repeat(129),
            platform: "ok".into(),
        }),
        ..Default::default()
    }
    .into();
    let fields: Vec<_> = violations(submission).into_iter().map(|(f, _)| f).collect();
    assert_eq!(
        fields,
        ["client_context.session_id", "client_context.build_version", "client_context.client_time"]
    );
}
