//! What of an event decides who wants it, read off its bytes.

use std::sync::LazyLock;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::{DescriptorPool, Kind};

use crate::proto;

/// The name of the oneof of payloads, and of the field by which one names a guild.
const PAYLOAD: &str = "payload";
const GUILD_ID: &str = "guild_id";

/// What an event is filtered and sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventKeys<'a> {
    /// Its type.
    pub event_type: &'a str,
    /// Who acted; empty where that could not be read.
    pub player_id: &'a str,
    /// The guild that it names, if its payload is of a kind that names one.
    pub guild_id: Option<&'a str>,
}

impl<'a> EventKeys<'a> {
    /// The keys of an event, as decoding it would say; none where it does not decode. Copies
    /// nothing.
    pub fn of(event: &'a [u8]) -> Option<Self> {
        static NUMBERS: LazyLock<Numbers> = LazyLock::new(Numbers::new);
        let numbers = &*NUMBERS;
        let mut keys = Self::default();
        let mut last = None;
        each_value(event, |number, value| {
            if number == numbers.event_type {
                keys.event_type = std::str::from_utf8(value).ok()?;
            } else if number == numbers.player_id {
                keys.player_id = std::str::from_utf8(value).ok()?;
            } else if let Some(&Some(payload)) = numbers.payloads.get(number as usize) {
                // Of several payloads the last one counts; parts of one are put together.
                if last.replace(number) != Some(number) {
                    keys.guild_id = payload.guild_id.map(|_| "");
                }
                if payload.guild_id.is_some() {
                    each_value(value, |number, value| {
                        if Some(number) == payload.guild_id {
                            keys.guild_id = Some(std::str::from_utf8(value).ok()?);
                        }
                        Some(())
                    })?;
                }
            }
            Some(())
        })?;
        Some(keys)
    }
}

/// The numbers of fields, by the schema.
struct Numbers {
    event_type: u32,
    player_id: u32,
    /// By number.
    payloads: Vec<Option<Payload>>,
}

#[derive(Clone, Copy)]
struct Payload {
    guild_id: Option<u32>,
}

impl Numbers {
    fn new() -> Self {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS).expect("the build has made it");
        let event = pool.get_message_by_name("game.v1.GameEvent").expect("it is in the schema");
        let number = |name| event.get_field_by_name(name).expect("it is in the schema").number();
        let oneof = event.oneofs().find(|oneof| oneof.name() == PAYLOAD);
        let mut payloads = Vec::new();
        for field in oneof.iter().flat_map(|oneof| oneof.fields()) {
            let Kind::Message(payload) = field.kind() else { continue };
            let guild_id = payload.get_field_by_name(GUILD_ID).map(|guild| guild.number());
            let index = field.number() as usize;
            if payloads.len() <= index {
                payloads.resize(index + 1, None);
            }
            payloads[index] = Some(Payload { guild_id });
        }
        Self { event_type: number("event_type"), player_id: number("player_id"), payloads }
    }
}

/// Calls `each` with the number and the value of each field of a message that is text, bytes or
/// a message.
fn each_value<'a>(
    mut message: &'a [u8],
    mut each: impl FnMut(u32, &'a [u8]) -> Option<()>,
) -> Option<()> {
    while !message.is_empty() {
        match decode_key(&mut message).ok()? {
            (number, WireType::LengthDelimited) => {
                let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
                let (value, rest) = message.split_at_checked(length)?;
                message = rest;
                each(number, value)?;
            }
            (number, wire_type) => {
                skip_field(wire_type, number, &mut message, DecodeContext::default()).ok()?;
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::game_event::Payload;

    fn event(payload: Option<Payload>) -> Vec<u8> {
        let (event_type, player_id) = ("a_type".to_owned(), "alice".to_owned());
        proto::GameEvent { event_type, player_id, payload, ..Default::default() }.encode_to_vec()
    }

    fn joined(guild_id: &str) -> Payload {
        Payload::GuildJoined(proto::GuildJoined { guild_id: guild_id.to_owned() })
    }

    #[test]
    fn the_guild_is_that_of_the_payload_which_counts() {
        let left = Payload::GuildLeft(proto::GuildLeft { guild_id: "owls".to_owned() });
        let consumed = Payload::ItemConsumed(proto::ItemConsumed::default());
        for (payloads, guild) in [
            (vec![], None),
            (vec![consumed.clone()], None),
            (vec![joined("owls")], Some("owls")),
            (vec![joined("")], Some("")),
            (vec![left.clone()], Some("owls")),
            (vec![joined("foxes"), left.clone()], Some("owls")),
            (vec![left, consumed], None),
            // In two parts, the second without it.
            (vec![joined("owls"), joined("")], Some("owls")),
        ] {
            let mut bytes = event(None);
            for payload in &payloads {
                bytes.extend(event(Some(payload.clone())));
            }
            let expected = EventKeys { event_type: "a_type", player_id: "alice", guild_id: guild };
            assert_eq!(EventKeys::of(&bytes), Some(expected), "{payloads:?}");
        }
    }

    #[test]
    fn what_does_not_decode_has_none() {
        let whole = event(Some(joined("owls")));
        assert_eq!(EventKeys::of(&whole[..whole.len() - 1]), None);
        assert_eq!(EventKeys::of(&[0x12, 1, 0xff]), None, "no UTF-8");
    }
}
