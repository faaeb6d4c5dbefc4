//! The envelope: what is written to the log, and what can be read off it.

use bytes::Bytes;
use prost::Message as _;
use sha1::{Digest as _, Sha1};
use uuid::Uuid;

use super::ids::{PlayerId, RequestId, uuid_text};
use crate::clock::Timestamp;
use crate::proto::{self, game_event::Payload};

/// The namespace of event ids (version 5 UUIDs). Fixed for good: with another one a
/// retry would be another event.
pub const EVENT_ID_NAMESPACE: Uuid = Uuid::from_u128(0x2b1f_6a0e_4f0c_5d3b_9c55_8f6f_3c1d_7a42);

/// The types of event that this build knows: the names of the payload's fields.
pub const EVENT_TYPES: [&str; 8] = [
    "session_started",
    "item_purchased",
    "guild_joined",
    "request_rejected",
    "guild_left",
    "item_granted",
    "item_consumed",
    "purchase_refunded",
];

/// The type of a payload.
pub fn event_type(payload: &Payload) -> &'static str {
    match payload {
        Payload::SessionStarted(_) => "session_started",
        Payload::ItemPurchased(_) => "item_purchased",
        Payload::GuildJoined(_) => "guild_joined",
        Payload::RequestRejected(_) => "request_rejected",
        Payload::GuildLeft(_) => "guild_left",
        Payload::ItemGranted(_) => "item_granted",
        Payload::ItemConsumed(_) => "item_consumed",
        Payload::PurchaseRefunded(_) => "purchase_refunded",
    }
}

/// The CloudEvents type of a payload.
pub fn cloud_event_type(payload: &Payload) -> &'static str {
    match payload {
        Payload::SessionStarted(_) => "game.v1.SessionStarted",
        Payload::ItemPurchased(_) => "game.v1.ItemPurchased",
        Payload::GuildJoined(_) => "game.v1.GuildJoined",
        Payload::RequestRejected(_) => "game.v1.RequestRejected",
        Payload::GuildLeft(_) => "game.v1.GuildLeft",
        Payload::ItemGranted(_) => "game.v1.ItemGranted",
        Payload::ItemConsumed(_) => "game.v1.ItemConsumed",
        Payload::PurchaseRefunded(_) => "game.v1.PurchaseRefunded",
    }
}

/// The length of a part, as it precedes the part in what is hashed.
pub(super) fn length_prefix(part: impl AsRef<[u8]>) -> [u8; 4] {
    // Parts are bounded far below 4 GiB.
    (part.as_ref().len() as u32).to_be_bytes()
}

/// The id of an action's event: a version 5 UUID over player, canonical request id,
/// event type and content hash, each preceded by its length in bytes (32 bits, big
/// endian). The same action, sent again, has the same id; another one has another.
pub fn event_id(
    player: &PlayerId,
    request_id: RequestId,
    event_type: &str,
    content_hash: &[u8; 32],
) -> Uuid {
    let mut canonical = [0; uuid::fmt::Hyphenated::LENGTH];
    let canonical = request_id.uuid().as_hyphenated().encode_lower(&mut canonical).as_bytes();
    // Not by `uuid`, whose own SHA-1 does without the processor's instructions for it.
    let mut hash = Sha1::new_with_prefix(EVENT_ID_NAMESPACE);
    for part in [player.as_str().as_bytes(), canonical, event_type.as_bytes(), content_hash] {
        hash.update(length_prefix(part));
        hash.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    uuid::Builder::from_sha1_bytes(id).into_uuid()
}

/// An event about to be written.
#[derive(Debug)]
pub struct Envelope {
    /// Its id.
    pub event_id: Uuid,
    /// Who acted; `None` where that could not be read.
    pub player_id: Option<PlayerId>,
    /// When the action was accepted.
    pub accept_time: Timestamp,
    /// How far in its partition an earlier event with its id was looked for: the offset of
    /// the first record that was not.
    pub checked_through: u64,
    /// What is private.
    pub origin: proto::Origin,
    /// What happened.
    pub payload: Payload,
}

impl Envelope {
    /// The bytes that are stored, and what happened. The same envelope always gives the same
    /// bytes.
    pub fn encode(self) -> (Bytes, Payload) {
        let event = proto::GameEvent {
            event_id: uuid_text(self.event_id),
            event_type: event_type(&self.payload).to_owned(),
            player_id: self.player_id.map(PlayerId::into_string).unwrap_or_default(),
            accept_time: Some(self.accept_time.into()),
            // Offsets stay far below 2^63.
            checked_through_offset: i64::try_from(self.checked_through).unwrap_or(i64::MAX),
            origin: Some(self.origin),
            payload: Some(self.payload),
        };
        let bytes = event.encode_to_vec().into();
        (bytes, event.payload.expect("it was put in above"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Catalog, Submission};

    fn request(player: &str, request_id: &str, item: &str, quantity: i32) -> Uuid {
        let submission: Submission = proto::PurchaseItemRequest {
            request_id: request_id.into(),
            player_id: player.into(),
            item_id: item.into(),
            quantity: Some(quantity),
            ..Default::default()
        }
        .into();
        submission.parse(&Catalog::built_in()).unwrap().event_id()
    }

    const ID: &str = "6f1c1d2e-8a3b-4c5d-9e0f-1a2b3c4d5e6f";

    /// Computed by Python's hashlib from the description above. Fixed for good.
    #[test]
    fn the_event_id_is_what_it_always_was() {
        let id = request("alice", ID, "sword", 1);
        assert_eq!(id.to_string(), "8cd8c62f-6635-5ba8-8dc5-7456369843ea");
        assert_eq!(id, request("alice", &ID.to_uppercase(), "sword", 1), "one canonical form");
    }

    #[test]
    fn anything_that_the_client_chose_makes_another_event() {
        let id = request("alice", ID, "sword", 1);
        let other = "7f1c1d2e-8a3b-4c5d-9e0f-1a2b3c4d5e6f";
        for different in [
            request("alicf", ID, "sword", 1),
            request("alice", other, "sword", 1),
            request("alice", ID, "knife", 1),
            request("alice", ID, "sword", 2),
        ] {
            assert_ne!(id, different);
        }
    }

    /// Stored events are read for years: these bytes must never change meaning.
    #[test]
    fn the_stored_bytes_are_what_they_always_were() {
        let (bytes, _) = Envelope {
            event_id: Uuid::from_u128(1),
            player_id: Some(PlayerId::parse("alice".into()).unwrap()),
            accept_time: Timestamp::from_millis(1_700_000_000_123),
            checked_through: 0,
            origin: proto::Origin {
                request_id: ID.into(),
                headers: [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]
                    .into(),
                remote_address: "127.0.0.1".into(),
                transport: proto::Transport::Grpc.into(),
                client_context: None,
            },
            payload: Payload::ItemPurchased(proto::ItemPurchased {
                item_id: "sword".into(),
                quantity: 2,
                unit_price: 100,
                total_price: 200,
                currency_code: "gold".into(),
                catalog_version: String::new(),
            }),
        }
        .encode();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "0a2430303030303030302d303030302d303030302d303030302d303030303030303030303031\
             120e6974656d5f7075726368617365641a05616c696365220b0880e2cfaa0610c0a9d33a\
             32430a2436663163316432652d386133622d346335642d396530662d316132623363346435653666\
             12060a016112013112060a01621201321a093132372e302e302e312001\
             8a01140a0573776f72641002186420c8012a04676f6c64"
        );
    }

    /// Event types are the names of the payload's fields, for every one of them.
    #[test]
    fn the_event_types_are_the_fields_of_the_payload() {
        let pool = prost_reflect::DescriptorPool::decode(proto::DESCRIPTORS).unwrap();
        let message = pool.get_message_by_name("game.v1.GameEvent").unwrap();
        let payload = message.oneofs().find(|oneof| oneof.name() == "payload").unwrap();
        let names: Vec<_> = payload.fields().map(|field| field.name().to_owned()).collect();
        assert_eq!(names, EVENT_TYPES);
    }
}
