//! What of an event matters here.

use prost::encoding::{
    DecodeContext, WireType, check_wire_type, decode_key, decode_varint, message, skip_field,
};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event_log::{Offset, Partition, Record};
use crate::proto::game_event::Payload;

/// The fields of a `GameEvent` that are looked at. Source: `proto/game.proto`.
const EVENT_ID: u32 = 1;
const PLAYER_ID: u32 = 3;
const ACCEPT_TIME: u32 = 4;
const ORIGIN: u32 = 6;
/// All payloads; a test compares with the schema.
const FIRST_PAYLOAD: u32 = 16;
const LAST_PAYLOAD: u32 = 23;

/// The same of an `Origin`.
const REQUEST_ID: u32 = 1;

/// An event, as far as it matters here.
#[derive(Debug)]
pub(super) struct Fact<'a> {
    pub partition: Partition,
    pub offset: Offset,
    pub append_time: Timestamp,
    pub accept_time: Timestamp,
    pub event_id: Uuid,
    /// Of an action that was not refused.
    pub request_id: Option<Uuid>,
    pub player_id: &'a str,
    /// None when this build does not know it.
    pub payload: Option<Payload>,
}

impl<'a> Fact<'a> {
    /// Reads an event; none when the record is none that Herald writes, or a note of a refusal.
    pub fn read(record: &'a Record) -> Option<Self> {
        let mut accept_time = prost_types::Timestamp::default();
        let (mut event_id, mut player_id, mut request_id) = ("", "", "");
        let mut payload = None;
        let mut rest = &record.value[..];
        while !rest.is_empty() {
            let (number, wire_type) = decode_key(&mut rest).ok()?;
            let context = DecodeContext::default;
            match number {
                EVENT_ID => event_id = text(wire_type, &mut rest)?,
                PLAYER_ID => player_id = text(wire_type, &mut rest)?,
                ACCEPT_TIME => {
                    message::merge(wire_type, &mut accept_time, &mut rest, context()).ok()?;
                }
                ORIGIN => {
                    let mut origin = bytes(wire_type, &mut rest)?;
                    while !origin.is_empty() {
                        match decode_key(&mut origin).ok()? {
                            (REQUEST_ID, of) => request_id = text(of, &mut origin)?,
                            (number, of) => skip_field(of, number, &mut origin, context()).ok()?,
                        }
                    }
                }
                FIRST_PAYLOAD..=LAST_PAYLOAD => {
                    Payload::merge(&mut payload, number, wire_type, &mut rest, context()).ok()?;
                }
                _ => skip_field(wire_type, number, &mut rest, context()).ok()?,
            }
        }
        if matches!(payload, Some(Payload::RequestRejected(_))) || player_id.is_empty() {
            return None;
        }
        Some(Self {
            partition: record.partition,
            offset: record.offset,
            append_time: record.append_time,
            accept_time: accept_time.into(),
            event_id: Uuid::try_parse(event_id).ok()?,
            request_id: Uuid::try_parse(request_id).ok(),
            player_id,
            payload,
        })
    }
}

fn text<'a>(wire_type: WireType, rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(bytes(wire_type, rest)?).ok()
}

fn bytes<'a>(wire_type: WireType, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    check_wire_type(WireType::LengthDelimited, wire_type).ok()?;
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (value, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(value)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto;

    /// One that is left out would change no player, and one that is none cannot be decoded.
    #[test]
    fn every_payload_of_the_schema_is_read() {
        let set = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
        let messages = set.file.iter().flat_map(|file| &file.message_type);
        let event = messages.into_iter().find(|message| message.name() == "GameEvent").unwrap();
        let fields = event.field.iter();
        let payloads =
            fields.filter(|field| field.oneof_index.is_some() && !field.proto3_optional());
        let mut tags: Vec<_> = payloads.map(prost_types::FieldDescriptorProto::number).collect();
        tags.sort_unstable();
        let read: Vec<_> = (FIRST_PAYLOAD..=LAST_PAYLOAD).map(u32::cast_signed).collect();
        assert_eq!(read, tags);
    }
}
