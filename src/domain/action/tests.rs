//! What every action has in common, and the rules of each.

use super::super::{Nothing, Purchase};
use super::*;

/// A player who has what a test says, with nothing under way.
struct Having {
    items: &'static [(&'static str, i64)],
    guild: Option<&'static str>,
    purchase: Option<(Uuid, Purchase)>,
}

const NOTHING: Having = Having { items: &[], guild: None, purchase: None };

impl Possessions for Having {
    fn most(&self, item: &ItemId) -> i64 {
        self.least(item)
    }

    fn least(&self, item: &ItemId) -> i64 {
        let found = self.items.iter().find(|(id, _)| *id == item.as_str());
        found.map_or(0, |(_, count)| *count)
    }

    fn guild(&self) -> Option<&str> {
        self.guild
    }

    fn purchase(&self, event_id: Uuid) -> Option<Purchase> {
        self.purchase.clone().filter(|(id, _)| *id == event_id).map(|(_, purchase)| purchase)
    }
}

/// What a catalogue with a horse, of which one may have two, and a saddle for it makes of an
/// action of this player's.
fn decide(
    submission: impl Into<Submission>,
    player: &dyn Possessions,
) -> Result<Payload, Vec<(String, String)>> {
    let catalog = Catalog::parse(
        "currency = 'gold'
        [[items]]
        id = 'horse'
        name = 'Horse'
        price = 500
        max_per_player = 2
        [[items]]
        id = 'saddle'
        name = 'Saddle'
        price = 50
        requires_item = 'horse'",
    )
    .unwrap();
    let request = submission.into().parse(&catalog).unwrap();
    match request.action.decide(&catalog, player) {
        Ok(terms) => Ok(request.action.payload(request.event_id(), &terms)),
        Err(violations) => {
            Err(violations.into_vec().into_iter().map(|v| (v.field, v.description)).collect())
        }
    }
}

/// What one violation says of one field.
fn refusal(field: &str, description: &str) -> Result<Payload, Vec<(String, String)>> {
    Err(vec![(field.to_owned(), description.to_owned())])
}

#[test]
fn a_purchase_stays_within_what_a_player_may_have() {
    let two = |items| decide(purchase("alice", "horse", Some(2)), &Having { items, ..NOTHING });
    assert!(two(&[]).is_ok());
    let reason = "a player may have at most 2 of it, and this one has 1";
    assert_eq!(two(&[("horse", 1)]), refusal("quantity", reason));
    assert!(two(&[("horse", i64::MAX)]).is_err());
}

#[test]
fn a_saddle_needs_a_horse() {
    let saddle = |items| decide(purchase("alice", "saddle", None), &Having { items, ..NOTHING });
    assert!(saddle(&[("horse", 1)]).is_ok());
    let reason = "the player has to have horse first";
    assert_eq!(saddle(&[("horse", 0)]), refusal("item_id", reason));
    assert!(saddle(&[("saddle", 7)]).is_err());
}

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
