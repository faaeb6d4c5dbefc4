//! Whether bytes are an event, which one, and where its origin is, in one pass that copies
//! nothing.
//!
//! It says of any bytes what decoding them into the generated types would say, within a message
//! of the feed: what it lets pass, every client of this schema can read. The tests hold the two
//! against each other.

use std::ops::Range;
use std::sync::OnceLock;

use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use uuid::Uuid;

use crate::proto;

/// The message of an event, and fields of it. Source: `proto/game.proto`.
const EVENT: &str = ".game.v1.GameEvent";
const EVENT_ID: u32 = 1;
const EVENT_TYPE: u32 = 2;
const EVENT_CHECKED_THROUGH_OFFSET: u32 = 5;
const EVENT_ORIGIN: u32 = 6;

/// How many characters a UUID has as Herald writes it.
const UUID_CHARS: usize = 36;

/// How many groups that this build does not know may lie within each other. Clients read 100
/// levels, those around the event and above the group included; nobody needs more than a few.
const MAX_GROUPS: usize = 16;

/// What is found in the bytes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its id; of a text that is no UUID, one that stands for it.
    pub id: Uuid,
    /// How far its writer had looked for the same id.
    pub checked_through: u64,
    /// Where its origin is.
    pub origin: Origin,
}

/// Where the origin of an event is, its key included; nowhere, when empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    first: Range<usize>,
    /// Nobody writes more than one, but they may come, and mean one.
    more: Vec<Range<usize>>,
}

impl Origin {
    fn add(&mut self, range: Range<usize>) {
        if self.first.is_empty() {
            self.first = range;
        } else {
            self.more.push(range);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes it takes.
    pub fn len(&self) -> usize {
        self.first.len() + self.more.iter().map(Range::len).sum::<usize>()
    }

    /// What of an event is left without it, in order.
    pub fn cut_out_of<'a>(&'a self, event: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let ranges = std::iter::once(&self.first).chain(&self.more);
        let begins = std::iter::once(0).chain(ranges.clone().map(|range| range.end));
        let ends = ranges.map(|range| range.start).chain(std::iter::once(event.len()));
        begins.zip(ends).map(|(begin, end)| &event[begin..end])
    }
}

/// Looks at bytes, and finds what matters of the event that they are.
///
/// # Errors
///
/// In words for an operator, why they are no event.
pub fn event(bytes: &[u8]) -> Result<Event, String> {
    let shapes = shapes();
    let mut origin = Origin::default();
    let (mut id, mut type_bytes, mut checked_through) = (&[][..], 0, 0);
    let mut rest = bytes;
    while !rest.is_empty() {
        let begin = bytes.len() - rest.len();
        let (number, value) = shapes.field(0, &mut rest).map_err(|error| error.to_string())?;
        match (number, value) {
            (EVENT_ID, Value::Bytes(bytes)) => id = bytes,
            (EVENT_TYPE, Value::Bytes(bytes)) => type_bytes = bytes.len(),
            (EVENT_CHECKED_THROUGH_OFFSET, Value::Number(number)) => checked_through = number,
            (EVENT_ORIGIN, _) => origin.add(begin..bytes.len() - rest.len()),
            _ => {}
        }
    }
    // What others have written may be a message, down to nothing at all. A payload that this
    // build does not know is still an event.
    if id.is_empty() || type_bytes == 0 {
        return Err("it has no id or no type".to_owned());
    }
    // Of a negative offset, written as a very large number, nobody knows what is meant.
    let checked_through = i64::try_from(checked_through).map_or(0, i64::unsigned_abs);
    Ok(Event { id: key(id), checked_through, origin })
}

/// What an id is told apart by.
fn key(id: &[u8]) -> Uuid {
    let written = (id.len() == UUID_CHARS).then(|| Uuid::try_parse_ascii(id).ok()).flatten();
    written.unwrap_or_else(|| Uuid::new_v5(&Uuid::nil(), id))
}

/// What the value of a field may be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Varint,
    Fixed64,
    Fixed32,
    Text,
    Bytes,
    /// The message of this number.
    Message(usize),
}

/// The value of a field, as far as somebody asks for it.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    kind: Kind,
    /// Many values may come as one.
    is_packable: bool,
}

/// The messages that an event is made of, itself first; of each the fields by number.
struct Shapes(Vec<Vec<Option<Field>>>);

fn shapes() -> &'static Shapes {
    static SHAPES: OnceLock<Shapes> = OnceLock::new();
    SHAPES.get_or_init(|| {
        let set = FileDescriptorSet::decode(proto::DESCRIPTORS).expect("the build has made it");
        Shapes::new(&set)
    })
}

impl Shapes {
    fn new(set: &FileDescriptorSet) -> Self {
        let mut names = vec![EVENT.to_owned()];
        let mut shapes = Vec::new();
        while let Some(name) = names.get(shapes.len()).cloned() {
            let message = find(set, &name).expect("what a message is made of is in the set");
            let mut fields = Vec::new();
            for field in &message.field {
                let number = usize::try_from(field.number()).expect("numbers are positive");
                if fields.len() <= number {
                    fields.resize(number + 1, None);
                }
                fields[number] = Some(Self::shape_of(field, &mut names));
            }
            shapes.push(fields);
        }
        Self(shapes)
    }

    fn shape_of(field: &FieldDescriptorProto, names: &mut Vec<String>) -> Field {
        let kind = match field.r#type() {
            Type::Double | Type::Fixed64 | Type::Sfixed64 => Kind::Fixed64,
            Type::Float | Type::Fixed32 | Type::Sfixed32 => Kind::Fixed32,
            Type::String => Kind::Text,
            Type::Bytes => Kind::Bytes,
            Type::Message | Type::Group => {
                let known = names.iter().position(|name| name == field.type_name());
                Kind::Message(known.unwrap_or_else(|| {
                    names.push(field.type_name().to_owned());
                    names.len() - 1
                }))
            }
            _ => Kind::Varint,
        };
        let is_number = matches!(kind, Kind::Varint | Kind::Fixed32 | Kind::Fixed64);
        Field { kind, is_packable: is_number && field.label() == Label::Repeated }
    }

    /// Moves over a field of a message. Returns its number and its value.
    fn field<'a>(
        &self,
        message: usize,
        bytes: &mut &'a [u8],
    ) -> Result<(u32, Value<'a>), Malformed> {
        let mut found = Value::Other;
        let (number, wire_type) = decode_key(bytes)?;
        let known = self.0[message].get(number as usize).copied().flatten();
        let Some(Field { kind, is_packable }) = known else {
            skip(wire_type, number, bytes, MAX_GROUPS)?;
            return Ok((number, found));
        };
        match (kind, wire_type) {
            (Kind::Varint, WireType::Varint) => found = Value::Number(decode_varint(bytes)?),
            (Kind::Fixed64, WireType::SixtyFourBit) => {
                take(8, bytes)?;
            }
            (Kind::Fixed32, WireType::ThirtyTwoBit) => {
                take(4, bytes)?;
            }
            (_, WireType::LengthDelimited) => {
                let length = decode_varint(bytes)?;
                let mut value = take(length, bytes)?;
                found = Value::Bytes(value);
                match kind {
                    Kind::Text => {
                        std::str::from_utf8(value).map_err(|_| Malformed::NotText)?;
                    }
                    Kind::Bytes => {}
                    Kind::Message(inner) => {
                        while !value.is_empty() {
                            self.field(inner, &mut value)?;
                        }
                    }
                    _ if !is_packable => return Err(Malformed::OtherKind),
                    Kind::Varint => {
                        while !value.is_empty() {
                            decode_varint(&mut value)?;
                        }
                    }
                    Kind::Fixed64 if value.len().is_multiple_of(8) => {}
                    Kind::Fixed32 if value.len().is_multiple_of(4) => {}
                    Kind::Fixed64 | Kind::Fixed32 => return Err(Malformed::CutOff),
                }
            }
            _ => return Err(Malformed::OtherKind),
        }
        Ok((number, found))
    }
}

/// The message of a full name.
fn find<'a>(set: &'a FileDescriptorSet, name: &str) -> Option<&'a DescriptorProto> {
    fn within<'a>(message: &'a DescriptorProto, rest: &str) -> Option<&'a DescriptorProto> {
        match rest.strip_prefix(message.name())? {
            "" => Some(message),
            rest => {
                let rest = rest.strip_prefix('.')?;
                message.nested_type.iter().find_map(|inner| within(inner, rest))
            }
        }
    }
    set.file.iter().find_map(|file| {
        let rest = name.strip_prefix('.')?.strip_prefix(file.package())?.strip_prefix('.')?;
        file.message_type.iter().find_map(|message| within(message, rest))
    })
}

/// Moves over the value of a field that is not known, with at most so many `groups` within each
/// other.
fn skip(
    wire_type: WireType,
    number: u32,
    bytes: &mut &[u8],
    groups: usize,
) -> Result<(), Malformed> {
    if wire_type != WireType::StartGroup {
        return Ok(skip_field(wire_type, number, bytes, DecodeContext::default())?);
    }
    let groups = groups.checked_sub(1).ok_or(Malformed::TooDeep)?;
    loop {
        match decode_key(bytes)? {
            (inner, WireType::EndGroup) if inner == number => return Ok(()),
            // The end of another group is refused as well.
            (inner, wire_type) => skip(wire_type, inner, bytes, groups)?,
        }
    }
}

fn take<'a>(length: u64, bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(length).map_err(|_| Malformed::CutOff)?;
    let (value, rest) = bytes.split_at_checked(length).ok_or(Malformed::CutOff)?;
    *bytes = rest;
    Ok(value)
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    #[error("it is cut off")]
    CutOff,
    #[error("a text is not UTF-8")]
    NotText,
    #[error("a field is of another kind than in the schema")]
    OtherKind,
    #[error("more than {MAX_GROUPS} groups lie within each other")]
    TooDeep,
    #[error("{0}")]
    Wire(#[from] prost::DecodeError),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::BufMut as _;
    use proptest::prelude::*;
    use prost::encoding::{encode_key, encode_varint};

    use super::*;
    use crate::clock::Timestamp;
    use crate::proto::game_event::Payload;

    /// With something of everything that there is.
    fn sample(payload: Payload) -> Vec<u8> {
        let time = Some(Timestamp::from_millis(1_700_000_000_123).into());
        let client_context = Some(proto::ClientContext {
            client_time: time,
            session_id: "a session".into(),
            build_version: "1.2".into(),
            platform: "ios".into(),
        });
        let origin = proto::Origin {
            request_id: "r".into(),
            headers: BTreeMap::from([("host".into(), "h".into()), ("x".into(), String::new())]),
            remote_address: "::1".into(),
            transport: 1,
            client_context,
        };
        proto::GameEvent {
            event_id: "an id".into(),
            event_type: "a type".into(),
            player_id: "alice".into(),
            accept_time: time,
            checked_through_offset: 300,
            origin: Some(origin),
            payload: Some(payload),
        }
        .encode_to_vec()
    }

    fn samples() -> Vec<Vec<u8>> {
        let violation = proto::Violation { field: "f".into(), description: "d".into() };
        let rejected =
            proto::RequestRejected { method: "m".into(), violations: vec![violation; 2] };
        [
            Payload::SessionStarted(proto::SessionStarted { session_id: "s".into() }),
            Payload::ItemPurchased(proto::ItemPurchased {
                item_id: "sword".into(),
                quantity: 2,
                unit_price: -1,
                total_price: 1 << 40,
                currency_code: "gold".into(),
                catalog_version: "v".into(),
            }),
            Payload::GuildJoined(proto::GuildJoined { guild_id: "g".into() }),
            Payload::RequestRejected(rejected),
        ]
        .map(sample)
        .into()
    }

    /// What of an event prost does not look at as closely as at all else: of which kind the
    /// entries of a map are.
    #[derive(prost::Message)]
    struct WithMap {
        #[prost(message, optional, tag = "6")]
        origin: Option<OriginWithMap>,
    }

    #[derive(prost::Message)]
    struct OriginWithMap {
        #[prost(message, repeated, tag = "2")]
        headers: Vec<Header>,
    }

    #[derive(prost::Message)]
    struct Header {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    fn decodes(bytes: &[u8]) -> bool {
        let has_names =
            |event: proto::GameEvent| !event.event_id.is_empty() && !event.event_type.is_empty();
        proto::GameEvent::decode(bytes).is_ok_and(has_names) && WithMap::decode(bytes).is_ok()
    }

    #[test]
    fn the_origin_is_found() {
        for sample in samples() {
            let origin = event(&sample).unwrap().origin;
            let cut = origin.cut_out_of(&sample).collect::<Vec<_>>().concat();
            assert_eq!(cut.len() + origin.len(), sample.len());
            let mut expected = proto::GameEvent::decode(&sample[..]).unwrap();
            expected.origin = None;
            assert_eq!(proto::GameEvent::decode(&cut[..]).unwrap(), expected);
            assert_eq!(event(&cut).unwrap().origin, Origin::default());
        }
    }

    #[test]
    fn an_event_has_an_id_and_a_type() {
        let of = |event_id: &str, event_type: &str| {
            let (event_id, event_type) = (event_id.to_owned(), event_type.to_owned());
            proto::GameEvent { event_id, event_type, ..Default::default() }.encode_to_vec()
        };
        assert!(event(&of("i", "t")).is_ok());
        for none in [of("", "t"), of("i", ""), Vec::new(), [of("i", "t"), vec![10, 0]].concat()] {
            assert_eq!(event(&none), Err("it has no id or no type".to_owned()), "{none:?}");
        }
    }

    #[test]
    fn the_id_and_how_far_was_looked_are_those_that_decoding_gives() {
        let found = |event_id: &str, checked_through_offset| {
            let event = proto::GameEvent {
                event_id: event_id.into(),
                event_type: "t".into(),
                checked_through_offset,
                ..Default::default()
            };
            // What comes later counts.
            let bytes = [
                sample(Payload::GuildJoined(proto::GuildJoined::default())),
                event.encode_to_vec(),
            ]
            .concat();
            let decoded = proto::GameEvent::decode(&bytes[..]).unwrap();
            assert_eq!(decoded.event_id, event_id);
            let found = super::event(&bytes).unwrap();
            assert_eq!(found.checked_through, decoded.checked_through_offset.max(0) as u64);
            found.id
        };
        let id = Uuid::new_v4();
        assert_eq!(found(&id.to_string(), 1 << 40), id);
        // Other ways to write the same, which Herald does not use, are other ids.
        assert_ne!(found(&id.simple().to_string(), 7), id);
        assert_eq!(found("no uuid", 1), found("no uuid", -1));
        assert_ne!(found("no uuid", 1), found("another", 1));
    }

    #[test]
    fn entries_of_a_map_are_of_the_kind_that_they_have_in_the_schema() {
        let of = |wire_type| {
            let mut origin = Vec::new();
            encode_key(2, wire_type, &mut origin);
            origin.put_slice(b"\x03\x0a\x01h");
            let mut bytes = sample(Payload::GuildJoined(proto::GuildJoined::default()));
            put_field(EVENT_ORIGIN, &origin, &mut bytes);
            bytes
        };
        assert!(event(&of(WireType::LengthDelimited)).is_ok());
        assert!(event(&of(WireType::StartGroup)).is_err());
    }

    #[test]
    fn what_lies_deeper_than_clients_read_is_no_event() {
        let of = |groups: usize| {
            let mut bytes = sample(Payload::GuildJoined(proto::GuildJoined::default()));
            (0..groups).for_each(|_| encode_key(900, WireType::StartGroup, &mut bytes));
            (0..groups).for_each(|_| encode_key(900, WireType::EndGroup, &mut bytes));
            bytes
        };
        assert!(event(&of(MAX_GROUPS)).is_ok() && decodes(&of(MAX_GROUPS)));
        assert!(event(&of(MAX_GROUPS + 1)).is_err());
    }

    #[test]
    fn the_origin_is_cut_wherever_it_is_and_all_else_is_left() {
        let mut origin = Vec::new();
        put_field(EVENT_ORIGIN, b"\x0a\x06secret", &mut origin);
        let mut known = Vec::new();
        put_field(EVENT_ID, b"an id", &mut known);
        put_field(EVENT_TYPE, b"a type", &mut known);
        let mut unknown = Vec::new();
        put_field(900, b"from a newer schema", &mut unknown);
        encode_key(901, WireType::Varint, &mut unknown);
        encode_varint(300, &mut unknown);
        encode_key(902, WireType::ThirtyTwoBit, &mut unknown);
        unknown.put_u32(7);
        for parts in [
            vec![&known, &unknown],
            vec![&origin, &known, &unknown],
            vec![&known, &origin, &unknown],
            vec![&known, &unknown, &origin],
            vec![&origin, &origin, &known, &origin, &unknown, &origin],
        ] {
            let whole = parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<_>>();
            let left = parts.iter().filter(|part| **part != &origin);
            let expected = left.flat_map(|part| part.iter().copied()).collect::<Vec<_>>();
            let origin = event(&whole).unwrap().origin;
            let cut = origin.cut_out_of(&whole).collect::<Vec<_>>().concat();
            assert_eq!(cut, expected, "{parts:?}");
        }
    }

    fn put_field(number: u32, value: &[u8], bytes: &mut Vec<u8>) {
        encode_key(number, WireType::LengthDelimited, bytes);
        prost::encode_length_delimiter(value.len(), bytes).unwrap();
        bytes.put_slice(value);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

        /// Cut, changed, and put together from parts.
        #[test]
        fn it_says_what_decoding_says(
            first in 0..4usize,
            second in 0..4usize,
            cut in 0..400usize,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            inserted in prop::collection::vec(any::<u8>(), 0..6),
            at in any::<prop::sample::Index>(),
        ) {
            let samples = samples();
            let mut bytes = samples[first].clone();
            bytes.extend(&samples[second][..cut.min(samples[second].len())]);
            for (index, to) in changes {
                let index = index.index(bytes.len());
                bytes[index] = to;
            }
            let at = at.index(bytes.len());
            bytes.splice(at..at, inserted);
            prop_assert_eq!(event(&bytes).is_ok(), decodes(&bytes), "{:?}", bytes);
        }

        #[test]
        fn it_says_of_anything_what_decoding_says(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(event(&bytes).is_ok(), decodes(&bytes));
        }
    }
}
