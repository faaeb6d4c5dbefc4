//! Columns against what decoding says.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch, StructArray};
use arrow_schema::DataType;
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::{Map, Value, json};

use super::super::jsonl::holds_unknown;
use super::super::rows::{Origins, Rows, event_descriptor, schema};
use super::*;
use crate::domain::EventKeys;
use crate::event_log::Record;
use crate::history;

fn record(value: Vec<u8>) -> Record {
    Record {
        partition: 3,
        offset: 42,
        append_time: Timestamp::from_millis(1_700_000_000_456),
        key: None,
        value: Bytes::from(value),
    }
}

fn batch_of(events: &[Vec<u8>], origins: Origins) -> RecordBatch {
    let mut rows = Rows::new(origins);
    for event in events {
        let record = record(event.clone());
        let origin = history::event(&record.value).map(|event| event.origin).unwrap_or_default();
        rows.append(&record, &origin, &EventKeys::of(&record.value).unwrap()).unwrap();
    }
    assert_eq!(rows.len(), events.len());
    rows.finish().unwrap()
}

/// A cell as JSON, without what is null.
fn cell(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Binary => json!(array.as_binary::<i32>().value(row)),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Timestamp(..) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            let seconds = micros.div_euclid(1_000_000);
            let nanos = micros.rem_euclid(1_000_000) as i32 * 1_000;
            prost_types::Timestamp { seconds, nanos }.to_string().into()
        }
        DataType::Struct(_) => fields(array.as_struct(), row).into(),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|item| cell(&items, item)).collect()
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let text = |column: usize, row| {
                entries.column(column).as_string::<i32>().value(row).to_owned()
            };
            let entry = |row| (text(0, row), Value::from(text(1, row)));
            (0..entries.len()).map(entry).collect::<Map<_, _>>().into()
        }
        other => panic!("no column is of type {other}"),
    }
}

fn fields(array: &StructArray, row: usize) -> Map<String, Value> {
    let cells = array.fields().iter().zip(array.columns());
    let cells = cells.map(|(field, column)| (field.name().clone(), cell(column, row)));
    cells.filter(|(_, value)| !value.is_null()).collect()
}

fn rows_of(batch: &RecordBatch) -> Vec<Map<String, Value>> {
    let all = StructArray::from(batch.clone());
    (0..batch.num_rows()).map(|row| fields(&all, row)).collect()
}

/// What the row of an event has to be.
fn expected(bytes: &[u8]) -> Map<String, Value> {
    let message = DynamicMessage::decode(event_descriptor(), bytes).unwrap();
    let options = SerializeOptions::new()
        .skip_default_fields(false)
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false);
    let json = message.serialize_with_options(serde_json::value::Serializer, &options).unwrap();
    let mut row = without_nulls(json);
    let row = row.as_object_mut().unwrap();
    match proto::GameEvent::decode(bytes).unwrap().payload {
        Some(Payload::GuildJoined(proto::GuildJoined { guild_id }))
        | Some(Payload::GuildLeft(proto::GuildLeft { guild_id })) => {
            row.insert("guild_id".into(), guild_id.into());
        }
        _ => {}
    }
    if holds_unknown(&message) {
        row.insert("raw_value".into(), json!(bytes));
    }
    row.insert("partition".into(), 3.into());
    row.insert("offset".into(), 42.into());
    row.insert("append_time".into(), "2023-11-14T22:13:20.456Z".into());
    std::mem::take(row)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// The names and types of the columns are read by others for years; new ones may come, as the
/// schema grows, and none may change.
#[test]
fn the_columns_are_what_they_always_were() {
    let mut text = String::new();
    for field in schema().fields() {
        let kind = match field.data_type() {
            DataType::Struct(fields) => {
                let names: Vec<_> = fields.iter().map(|field| field.name().as_str()).collect();
                names.join(" ")
            }
            kind => kind.to_string(),
        };
        text.push_str(&format!("{}: {kind}\n", field.name()));
    }
    assert_eq!(
        text,
        "event_id: Utf8\n\
         event_type: Utf8\n\
         player_id: Utf8\n\
         accept_time: Timestamp(µs, \"UTC\")\n\
         checked_through_offset: Int64\n\
         origin: request_id headers remote_address transport client_context\n\
         session_started: session_id\n\
         item_purchased: item_id quantity unit_price total_price currency_code catalog_version\n\
         guild_joined: guild_id\n\
         request_rejected: method violations\n\
         guild_left: guild_id\n\
         item_granted: item_id quantity reason\n\
         item_consumed: item_id quantity\n\
         purchase_refunded: purchase_event_id item_id quantity unit_price total_price currency_code\n\
         guild_id: Utf8\n\
         raw_value: Binary\n\
         partition: Int32\n\
         offset: Int64\n\
         append_time: Timestamp(µs, \"UTC\")\n"
    );
}

#[test]
fn the_row_of_an_event_says_what_decoding_it_says() {
    let mut events: Vec<_> =
        payloads().into_iter().map(|payload| event(1, payload).encode_to_vec()).collect();
    events.push(newer_event(2));
    // A payload that comes in two parts, the second without the guild.
    let mut in_parts = event(1, payloads().remove(2)).encode_to_vec();
    in_parts.extend(joined(&[wrapped(18, &[])]));
    events.push(in_parts);
    events.push(proto::GameEvent { event_id: "x".into(), ..Default::default() }.encode_to_vec());
    let rows = rows_of(&batch_of(&events, Origins::Kept));
    for (event, row) in events.iter().zip(rows) {
        assert_eq!(row, expected(event));
    }
}

#[test]
fn an_origin_that_is_left_out_is_nowhere() {
    let with_more = newer_event(1);
    let known = event(2, payloads().remove(1)).encode_to_vec();
    let batch = batch_of(&[known.clone(), with_more.clone()], Origins::LeftOut);
    let rows = rows_of(&batch);
    assert!(rows.iter().all(|row| !row.contains_key("origin")));
    assert!(!rows[0].contains_key("raw_value"), "nothing but the origin is left out");
    let raw = rows[1]["raw_value"].as_array().unwrap();
    let raw: Vec<u8> = raw.iter().map(|byte| byte.as_u64().unwrap() as u8).collect();
    let mut expected = proto::GameEvent::decode(&with_more[..]).unwrap();
    expected.origin = None;
    assert_eq!(proto::GameEvent::decode(&raw[..]).unwrap(), expected);
}

#[test]
fn a_time_finer_than_a_microsecond_keeps_its_record() {
    let mut event = event(1, payloads().remove(0));
    for (nanos, is_kept) in [(1_000, false), (1_001, true), (-1, true)] {
        event.accept_time = Some(prost_types::Timestamp { seconds: 5, nanos });
        let bytes = event.encode_to_vec();
        let rows = rows_of(&batch_of(&[bytes], Origins::Kept));
        assert_eq!(rows[0].contains_key("raw_value"), is_kept, "{nanos}");
    }
    event.accept_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    let rows = rows_of(&batch_of(&[event.encode_to_vec()], Origins::Kept));
    assert!(!rows[0].contains_key("accept_time") && rows[0].contains_key("raw_value"));
}

type Piece = (u32, WireType, Vec<u8>);

/// The fields of a message, each with its key; none where it is no message.
fn pieces(mut message: &[u8]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    while !message.is_empty() {
        let whole = message;
        let (number, wire_type) = decode_key(&mut message).ok()?;
        skip_field(wire_type, number, &mut message, DecodeContext::default()).ok()?;
        pieces.push((number, wire_type, whole[..whole.len() - message.len()].to_vec()));
    }
    Some(pieces)
}

/// How a message is written otherwise than its own writer would.
#[derive(Clone, Debug)]
enum Twist {
    /// Two of its fields change places.
    Swap(usize, usize),
    /// A field comes again at the end.
    Repeat(usize),
    /// A field that nobody knows comes at the end.
    Unknown,
    /// A message in it comes in two parts, one at the end.
    Split(usize, usize),
    /// A message in it is twisted.
    Within(usize, Box<Twist>),
}

fn twists() -> impl Strategy<Value = Twist> {
    let flat = prop_oneof![
        (0..20usize, 0..20usize).prop_map(|(one, other)| Twist::Swap(one, other)),
        (0..20usize).prop_map(Twist::Repeat),
        Just(Twist::Unknown),
        (0..20usize, 0..6usize).prop_map(|(field, at)| Twist::Split(field, at)),
    ];
    flat.prop_recursive(2, 8, 1, |inner| {
        (0..20usize, inner).prop_map(|(field, twist)| Twist::Within(field, Box::new(twist)))
    })
}

fn joined(pieces: &[Piece]) -> Vec<u8> {
    pieces.iter().flat_map(|(.., bytes)| bytes.clone()).collect()
}

/// What is within a field, if that reads as a message.
fn inner((_, wire_type, bytes): &Piece) -> Option<Vec<Piece>> {
    let mut rest = &bytes[..];
    decode_key(&mut rest).unwrap();
    if *wire_type != WireType::LengthDelimited {
        return None;
    }
    decode_varint(&mut rest).unwrap();
    pieces(rest)
}

fn wrapped(number: u32, inner: &[u8]) -> Piece {
    let mut bytes = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    encode_varint(inner.len() as u64, &mut bytes);
    bytes.extend_from_slice(inner);
    (number, WireType::LengthDelimited, bytes)
}

fn twisted(message: &[u8], twist: &Twist) -> Vec<u8> {
    let mut pieces = pieces(message).unwrap();
    let count = pieces.len();
    if count == 0 {
        return Vec::new();
    }
    match twist {
        Twist::Swap(one, other) => pieces.swap(one % count, other % count),
        Twist::Repeat(field) => pieces.push(pieces[field % count].clone()),
        Twist::Unknown => {
            let mut bytes = Vec::new();
            prost::encoding::int32::encode(4_000, &7, &mut bytes);
            pieces.push((4_000, WireType::Varint, bytes));
        }
        Twist::Split(field, at) => {
            let piece = &mut pieces[field % count];
            if let Some(parts) = inner(piece) {
                let (first, second) = parts.split_at((*at).min(parts.len()));
                let number = piece.0;
                *piece = wrapped(number, &joined(first));
                pieces.push(wrapped(number, &joined(second)));
            }
        }
        Twist::Within(field, twist) => {
            let piece = &mut pieces[field % count];
            if let Some(parts) = inner(piece) {
                *piece = wrapped(piece.0, &twisted(&joined(&parts), twist));
            }
        }
    }
    joined(&pieces)
}

proptest! {
    /// However an event is written: what decoding says of it is in its row, and what decoding
    /// does not understand of it is kept.
    #[test]
    fn the_row_says_it_however_the_event_is_written(
        kind in 0..8usize,
        second in proptest::option::of(0..8usize),
        twists in prop::collection::vec(twists(), 0..6),
    ) {
        let mut bytes = event(1, payloads().remove(kind)).encode_to_vec();
        // Another payload behind the first one.
        if let Some(second) = second {
            bytes.extend(event(2, payloads().remove(second)).encode_to_vec());
        }
        for twist in &twists {
            bytes = twisted(&bytes, twist);
        }
        prop_assume!(history::event(&bytes).is_ok());
        let mut row = rows_of(&batch_of(&[bytes.clone()], Origins::Kept)).remove(0);
        let mut expected = expected(&bytes);
        let is_kept = (row.remove("raw_value"), expected.remove("raw_value"));
        prop_assert_eq!(row, expected);
        match is_kept {
            (kept, Some(all)) => prop_assert_eq!(kept, Some(all)),
            // An entry of a map may hold more as well, which the oracle passes over.
            (Some(kept), None) => {
                prop_assert_eq!(kept, json!(bytes));
                let is_deep = |twist: &Twist| matches!(twist, Twist::Within(_, inner) if matches!(**inner, Twist::Within(..)));
                prop_assert!(twists.iter().any(is_deep));
            }
            (None, None) => {}
        }
    }

    /// What is no event never makes it panic.
    #[test]
    fn arbitrary_bytes_are_refused_or_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let record = record(bytes);
        let mut rows = Rows::new(Origins::Kept);
        if let Some(keys) = EventKeys::of(&record.value) {
            let _ = rows.append(&record, &history::Origin::default(), &keys);
        }
    }
}
