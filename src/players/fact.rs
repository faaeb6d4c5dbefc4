//! What of an event matters here.

use prost::Message as _;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event_log::{Offset, Partition, Record};
use crate::proto::game_event::Payload;

/// An event, as far as it matters here.
#[derive(Debug)]
pub(super) struct Fact {
    pub partition: Partition,
    pub offset: Offset,
    pub append_time: Timestamp,
    pub accept_time: Timestamp,
    pub event_id: Uuid,
    /// Of an action that was not refused.
    pub request_id: Option<Uuid>,
    pub player_id: String,
    /// None when this build does not know it.
    pub payload: Option<Payload>,
}

/// The fields of a `GameEvent` that are looked at. Source: `proto/game.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Slim {
    #[prost(string, tag = "1")]
    event_id: String,
    #[prost(string, tag = "3")]
    player_id: String,
    #[prost(message, optional, tag = "4")]
    accept_time: Option<prost_types::Timestamp>,
    #[prost(message, optional, tag = "6")]
    origin: Option<SlimOrigin>,
    #[prost(oneof = "Payload", tags = "16, 17, 18, 19, 20, 21, 22, 23")]
    payload: Option<Payload>,
}

/// The same of an `Origin`.
#[derive(Clone, PartialEq, prost::Message)]
struct SlimOrigin {
    #[prost(string, tag = "1")]
    request_id: String,
}

impl Fact {
    /// Reads an event; none when the record is none that Herald writes, or a note of a refusal.
    pub fn read(record: &Record) -> Option<Self> {
        let event = Slim::decode(&record.value[..]).ok()?;
        if matches!(event.payload, Some(Payload::RequestRejected(_))) || event.player_id.is_empty()
        {
            return None;
        }
        let request_id = event.origin.and_then(|origin| Uuid::try_parse(&origin.request_id).ok());
        Some(Self {
            partition: record.partition,
            offset: record.offset,
            append_time: record.append_time,
            accept_time: event.accept_time.unwrap_or_default().into(),
            event_id: Uuid::try_parse(&event.event_id).ok()?,
            request_id,
            player_id: event.player_id,
            payload: event.payload,
        })
    }
}
