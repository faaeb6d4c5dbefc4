//! What every action has in common, and the rules of each.

use super::super::{Nothing, Price, Purchase};
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

fn leave(guild: &str) -> proto::LeaveGuildRequest {
    proto::LeaveGuildRequest {
        request_id: REQUEST_ID.into(),
        player_id: "alice".into(),
        guild_id: guild.into(),
        ..Default::default()
    }
}

#[test]
fn a_player_leaves_the_guild_that_they_are_in() {
    let member = Having { guild: Some("mascots"), ..NOTHING };
    let left = proto::GuildLeft { guild_id: "mascots".into() };
    assert_eq!(decide(leave("mascots"), &member), Ok(Payload::GuildLeft(left)));
    for (guild, player) in [("owls", &member), ("mascots", &NOTHING)] {
        assert_eq!(decide(leave(guild), player), refusal("guild_id", "the player is not in it"));
    }
}

fn grant(quantity: i32, reason: &str) -> proto::GrantItemRequest {
    proto::GrantItemRequest {
        request_id: REQUEST_ID.into(),
        player_id: "alice".into(),
        item_id: "horse".into(),
        quantity: Some(quantity),
        reason: reason.into(),
        ..Default::default()
    }
}

#[test]
fn what_is_granted_stays_within_what_a_player_may_have() {
    let two = |items| decide(grant(2, "daily_reward"), &Having { items, ..NOTHING });
    let granted =
        proto::ItemGranted { item_id: "horse".into(), quantity: 2, reason: "daily_reward".into() };
    assert_eq!(two(&[]), Ok(Payload::ItemGranted(granted)));
    let reason = "a player may have at most 2 of it, and this one has 2";
    assert_eq!(two(&[("horse", 2)]), refusal("quantity", reason));
    // Nobody has to have a horse to be given a saddle.
    let saddle = proto::GrantItemRequest { item_id: "saddle".into(), ..grant(1, "") };
    assert!(decide(saddle, &NOTHING).is_ok());
}

#[test]
fn a_grant_is_checked_as_a_whole() {
    let bad = proto::GrantItemRequest { item_id: "hat".into(), ..grant(0, "two\nlines") };
    let fields: Vec<_> = violations(bad.into()).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["quantity", "reason", "item_id"]);
    assert_eq!(violations(grant(1, &"x".repeat(129)).into()).len(), 1);
}

fn consume(item: &str, quantity: i32) -> proto::ConsumeItemRequest {
    proto::ConsumeItemRequest {
        request_id: REQUEST_ID.into(),
        player_id: "alice".into(),
        item_id: item.into(),
        quantity: Some(quantity),
        ..Default::default()
    }
}

#[test]
fn nobody_uses_up_what_they_do_not_have() {
    let having = |items| Having { items, ..NOTHING };
    let used = proto::ItemConsumed { item_id: "horse".into(), quantity: 2 };
    let two = decide(consume("horse", 2), &having(&[("horse", 2)]));
    assert_eq!(two, Ok(Payload::ItemConsumed(used)));
    let reason = "more than the player has, which is 1";
    let two = decide(consume("horse", 2), &having(&[("horse", 1)]));
    assert_eq!(two, refusal("quantity", reason));
    // The catalogue may have dropped it since.
    assert!(decide(consume("relic", 1), &having(&[("relic", 1)])).is_ok());
}

fn refund(purchase_event_id: &str) -> proto::RefundPurchaseRequest {
    proto::RefundPurchaseRequest {
        request_id: REQUEST_ID.into(),
        player_id: "alice".into(),
        purchase_event_id: purchase_event_id.into(),
        ..Default::default()
    }
}

#[test]
fn a_refund_takes_back_what_was_bought_at_the_price_it_had() {
    let id = Uuid::from_u128(7);
    let price = Price { unit_price: 90, currency_code: "gems".into(), ..Price::default() };
    let bought = Purchase { item_id: "horse".into(), quantity: 2, price: price.into() };
    let having = |items| Having { items, purchase: Some((id, bought.clone())), guild: None };
    let refunded = proto::PurchaseRefunded {
        purchase_event_id: id.to_string(),
        item_id: "horse".into(),
        quantity: 2,
        unit_price: 90,
        total_price: 180,
        currency_code: "gems".into(),
    };
    let of = |id: Uuid, items| decide(refund(&id.to_string()), &having(items));
    assert_eq!(of(id, &[("horse", 2)]), Ok(Payload::PurchaseRefunded(refunded)));
    let gone = "the player no longer has all that was bought";
    assert_eq!(of(id, &[("horse", 1)]), refusal("purchase_event_id", gone));
    let unknown = "not among the newest purchases of the player, or refunded before";
    let other = of(Uuid::from_u128(8), &[("horse", 2)]);
    assert_eq!(other, refusal("purchase_event_id", unknown));
}

#[test]
fn a_refund_names_its_purchase_by_a_uuid_in_any_form() {
    for (bad, reason) in [("", "missing"), ("sword", "not a UUID")] {
        let found = violations(refund(bad).into());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "purchase_event_id");
        assert!(found[0].1.starts_with(reason), "{found:?}");
    }
    let id = |text: &str| {
        let submission = Submission::from(refund(text));
        submission.parse(&Catalog::built_in()).unwrap().event_id()
    };
    assert_eq!(id(PURCHASE_ID), id(&PURCHASE_ID.to_uppercase()));
}

const REQUEST_ID: &str = "6f1c1d2e-8a3b-4c5d-9e0f-1a2b3c4d5e6f";
const PURCHASE_ID: &str = "8cd8c62f-6635-5ba8-8dc5-7456369843ea";

/// Computed by Python's hashlib from what `content_hash` and `event_id` say. Fixed for good.
#[test]
fn the_event_ids_are_what_they_always_were() {
    let (request_id, player_id) = (REQUEST_ID.to_owned(), "alice".to_owned());
    let session = proto::StartSessionRequest {
        request_id: request_id.clone(),
        player_id: player_id.clone(),
        ..Default::default()
    };
    let guild_id = "mascots".to_owned();
    let join = proto::JoinGuildRequest { request_id, player_id, guild_id, ..Default::default() };
    for (submission, id) in [
        (Submission::from(session), "b90b317d-e0fe-53db-ad7a-1606f74e453a"),
        (join.into(), "2222488d-9b52-54d0-afd0-12d717154947"),
        (leave("mascots").into(), "c35f6ada-4e6e-5bd6-9e84-bd89f0fc0516"),
        (grant(2, "daily_reward").into(), "b32d152f-9d62-5521-945e-82a60a39b813"),
        (grant(1, "").into(), "9b384528-16bf-5373-9590-f9e0a6680968"),
        (consume("horse", 2).into(), "183efdb4-c461-5292-a7ef-4a74fc7fd9a3"),
        (refund(PURCHASE_ID).into(), "978cf588-b8f0-51d5-b1b3-c953568520df"),
    ] {
        let method = submission.method();
        let request = submission.parse(&Catalog::built_in()).unwrap();
        assert_eq!(request.event_id().to_string(), id, "{method}");
    }
}

/// One horse is being bought by a player with one: there may be two, and surely is one.
struct Buying;

impl Possessions for Buying {
    fn most(&self, _: &ItemId) -> i64 {
        2
    }

    fn least(&self, _: &ItemId) -> i64 {
        1
    }

    fn guild(&self) -> Option<&str> {
        None
    }

    fn purchase(&self, _: Uuid) -> Option<Purchase> {
        let price = Price::default();
        Some(Purchase { item_id: "horse".into(), quantity: 2, price: price.into() })
    }
}

#[test]
fn what_is_under_way_counts_for_a_bound_and_is_not_there_to_be_taken() {
    let fields = |decided: Result<Payload, Vec<(String, String)>>| {
        let violations = decided.err().unwrap_or_default();
        violations.into_iter().map(|(field, _)| field).collect::<Vec<_>>()
    };
    assert_eq!(fields(decide(purchase("alice", "horse", None), &Buying)), ["quantity"]);
    assert_eq!(fields(decide(grant(1, ""), &Buying)), ["quantity"]);
    assert!(decide(consume("horse", 1), &Buying).is_ok());
    assert_eq!(fields(decide(consume("horse", 2), &Buying)), ["quantity"]);
    assert_eq!(fields(decide(refund(PURCHASE_ID), &Buying)), ["purchase_event_id"]);
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
