//! What the export promises, against plain oracles.

mod columns;
pub mod runs;

use std::collections::BTreeMap;

use prost::Message as _;

use crate::clock::Timestamp;
use crate::proto;
use crate::proto::game_event::Payload;

/// An event with something of everything, and one payload.
fn event(id: u64, payload: Payload) -> proto::GameEvent {
    let time = Some(Timestamp::from_millis(1_700_000_000_123).into());
    let headers = [("host", "h"), ("user-agent", "curl/8"), ("x", "")];
    proto::GameEvent {
        event_id: uuid::Uuid::from_u128(id.into()).to_string(),
        event_type: crate::domain::event_type(&payload).into(),
        player_id: format!("player-{}", id % 3),
        accept_time: time,
        checked_through_offset: i64::MAX,
        origin: Some(proto::Origin {
            request_id: "r".into(),
            headers: headers.map(|(name, value)| (name.into(), value.into())).into(),
            remote_address: "::1".into(),
            transport: 1,
            client_context: Some(proto::ClientContext {
                client_time: time,
                session_id: "a session".into(),
                build_version: String::new(),
                platform: "ios".into(),
            }),
        }),
        payload: Some(payload),
    }
}

/// One payload of each kind.
fn payloads() -> Vec<Payload> {
    let violation = proto::Violation { field: "f".into(), description: "d".into() };
    let rejected = proto::RequestRejected { method: "m".into(), violations: vec![violation; 2] };
    let (item_id, guild_id) = ("sword".to_owned(), "g".to_owned());
    vec![
        Payload::SessionStarted(proto::SessionStarted { session_id: "s".into() }),
        Payload::ItemPurchased(proto::ItemPurchased {
            item_id: item_id.clone(),
            quantity: 2,
            unit_price: -1,
            total_price: 1 << 40,
            currency_code: "gold".into(),
            catalog_version: String::new(),
        }),
        Payload::GuildJoined(proto::GuildJoined { guild_id: guild_id.clone() }),
        Payload::RequestRejected(rejected),
        Payload::GuildLeft(proto::GuildLeft { guild_id }),
        Payload::ItemGranted(proto::ItemGranted {
            item_id: item_id.clone(),
            quantity: 3,
            reason: "luck".into(),
        }),
        Payload::ItemConsumed(proto::ItemConsumed { item_id: item_id.clone(), quantity: 1 }),
        Payload::PurchaseRefunded(proto::PurchaseRefunded {
            purchase_event_id: "p".into(),
            item_id,
            quantity: 1,
            unit_price: 5,
            total_price: 5,
            currency_code: "gold".into(),
        }),
    ]
}

/// The bytes of an event, and a payload that no schema knows yet in it.
fn newer_event(id: u64) -> Vec<u8> {
    let mut event = event(id, payloads().remove(0));
    event.payload = None;
    event.event_type = "dragon_tamed".into();
    let mut bytes = event.encode_to_vec();
    prost::encoding::string::encode(999, &"a dragon".to_owned(), &mut bytes);
    bytes
}

#[test]
fn there_is_a_payload_of_every_kind_here() {
    let types: BTreeMap<_, _> =
        payloads().iter().map(|payload| (crate::domain::event_type(payload), ())).collect();
    assert_eq!(types.len(), crate::domain::EVENT_TYPES.len());
}
