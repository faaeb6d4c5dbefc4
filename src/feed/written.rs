//! How messages of the feed are written down: `StreamEventsResponse` behind the five bytes
//! that go before a message in gRPC, ready to be sent.
//!
//! Events are never written anew. The bytes that lie in the log are taken over, without the
//! `origin` where that is private, so that fields and payloads which this build does not
//! know come through unharmed.
//!
//! Source of the forms: <https://protobuf.dev/programming-guides/encoding/>, and
//! Length-Prefixed-Message in <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, key_len};
use prost::{Message as _, encode_length_delimiter, length_delimiter_len};

use super::{proto_offset, proto_partition};
use crate::event_log::Record;
use crate::history::Origin;
use crate::proto::{self, stream_events_response::Response};

/// Before each message: a flag (not compressed) and the length (4 bytes, big endian).
const PREFIX_BYTES: usize = 5;

/// Numbers of fields. Source: `proto/game.proto`; the tests compare with what the generated
/// types write.
const RESPONSE_CURSOR: u32 = 1;
const RESPONSE_BATCH: u32 = 3;
const BATCH_EVENTS: u32 = 1;
const DELIVERED_EVENT: u32 = 1;

/// A batch, written down.
#[derive(Debug)]
pub(super) struct Written {
    message: Bytes,
    /// Where in the message the events begin, and where the one of each record ends.
    begin: usize,
    ends: Vec<usize>,
}

impl Written {
    /// The whole batch as one message.
    pub fn message(&self) -> &Bytes {
        &self.message
    }

    /// The events among some records, one behind the other.
    pub fn entries(&self, records: Range<usize>) -> &[u8] {
        let end_of = |records: usize| match records {
            0 => self.begin,
            _ => self.ends[records - 1],
        };
        &self.message[end_of(records.start)..end_of(records.end)]
    }
}

/// Writes a batch; the records without an origin have no entry in it.
pub(super) fn batch<'a>(
    cursor: &str,
    records: impl Iterator<Item = (&'a Record, Option<&'a Origin>)> + Clone,
    with_origins: bool,
) -> Written {
    let entries = records
        .map(|(record, origin)| origin.map(|origin| Entry::new(record, origin, with_origins)));
    let bytes = entries.clone().flatten().map(|entry| field_len(BATCH_EVENTS, entry.len)).sum();
    let mut message = begin(cursor, bytes);
    let begin = message.len();
    let ends = entries
        .map(|entry| {
            if let Some(entry) = entry {
                entry.write(&mut message);
            }
            message.len()
        })
        .collect();
    Written { message: message.freeze(), begin, ends }
}

/// A message of events that were written down before, one behind the other.
pub(super) fn chosen(cursor: &str, entries: &[u8]) -> Bytes {
    let mut message = begin(cursor, entries.len());
    message.put_slice(entries);
    message.freeze()
}

/// Any other message.
pub(super) fn message(cursor: &str, response: Response) -> Bytes {
    let response =
        proto::StreamEventsResponse { cursor: cursor.to_owned(), response: Some(response) };
    let bytes = response.encoded_len();
    let mut message = prefixed(bytes);
    response.encode_raw(&mut message);
    message.freeze()
}

/// Reads what is written here.
#[cfg(test)]
pub(super) fn read(message: &Bytes) -> Result<proto::StreamEventsResponse, prost::DecodeError> {
    proto::StreamEventsResponse::decode(message.slice(PREFIX_BYTES..))
}

/// A message of which only that is looked at which matters to who passes its events on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outline {
    /// Behind the message.
    #[prost(string, tag = "1")]
    pub cursor: String,
    /// Events.
    #[prost(message, optional, tag = "3")]
    pub batch: Option<OutlineBatch>,
    /// Events are missing.
    #[prost(message, optional, tag = "7")]
    pub gap: Option<proto::Gap>,
}

/// A batch in an [`Outline`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct OutlineBatch {
    /// A `DeliveredEvent` each, as it was written.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub events: Vec<Bytes>,
}

/// Reads what is written here, and leaves the events as they are.
pub(super) fn look_into(message: &Bytes) -> Result<Outline, prost::DecodeError> {
    Outline::decode(message.slice(PREFIX_BYTES..))
}

fn prefixed(bytes: usize) -> BytesMut {
    let mut message = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    message.put_u8(0);
    // Bounded far below 4 GiB: `MAX_BATCH_BYTES`, or one record.
    message.put_u32(bytes as u32);
    message
}

/// A message of events, up to where they follow.
fn begin(cursor: &str, entries: usize) -> BytesMut {
    let bytes = field_len(RESPONSE_CURSOR, cursor.len()) + field_len(RESPONSE_BATCH, entries);
    let mut message = prefixed(bytes);
    put_header(RESPONSE_CURSOR, cursor.len(), &mut message);
    message.put_slice(cursor.as_bytes());
    put_header(RESPONSE_BATCH, entries, &mut message);
    message
}

fn field_len(number: u32, bytes: usize) -> usize {
    key_len(number) + length_delimiter_len(bytes) + bytes
}

fn put_header(number: u32, bytes: usize, message: &mut BytesMut) {
    encode_key(number, WireType::LengthDelimited, message);
    encode_length_delimiter(bytes, message).expect("there is room, as a BytesMut grows");
}

/// One event of a batch: a `DeliveredEvent`.
struct Entry<'a> {
    value: &'a [u8],
    /// What is to be cut out of the value, if something is.
    cut: Option<&'a Origin>,
    event_len: usize,
    /// What is said of the event.
    rest: proto::DeliveredEvent,
    len: usize,
}

impl<'a> Entry<'a> {
    fn new(record: &'a Record, origin: &'a Origin, with_origin: bool) -> Self {
        let value = &record.value[..];
        let cut = (!with_origin).then_some(origin);
        let event_len = value.len() - cut.map_or(0, Origin::len);
        let rest = proto::DeliveredEvent {
            event: None,
            partition: proto_partition(record.partition),
            offset: proto_offset(record.offset),
            append_time: Some(record.append_time.into()),
        };
        let len = field_len(DELIVERED_EVENT, event_len) + rest.encoded_len();
        Self { value, cut, event_len, rest, len }
    }

    fn write(&self, message: &mut BytesMut) {
        put_header(BATCH_EVENTS, self.len, message);
        put_header(DELIVERED_EVENT, self.event_len, message);
        match self.cut {
            None => message.put_slice(self.value),
            Some(origin) => {
                origin.cut_out_of(self.value).for_each(|part| message.put_slice(part));
            }
        }
        self.rest.encode_raw(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::history;
    use crate::proto::game_event::Payload;

    fn event(origin: bool) -> proto::GameEvent {
        proto::GameEvent {
            event_id: "an id".into(),
            event_type: "guild_joined".into(),
            player_id: "alice".into(),
            accept_time: Some(Timestamp::from_millis(1234).into()),
            origin: origin.then(|| proto::Origin { request_id: "r".into(), ..Default::default() }),
            payload: Some(Payload::GuildJoined(proto::GuildJoined { guild_id: "g".repeat(200) })),
            ..Default::default()
        }
    }

    fn record(partition: u32, offset: u64, value: Vec<u8>) -> Record {
        let append_time = Timestamp::from_millis(1_700_000_000_123);
        Record { partition, offset, append_time, key: None, value: value.into() }
    }

    fn origin(record: &Record) -> Option<Origin> {
        history::event(&record.value).ok().map(|event| event.origin)
    }

    fn delivered(record: &Record, event: proto::GameEvent) -> proto::DeliveredEvent {
        proto::DeliveredEvent {
            event: Some(event),
            partition: record.partition as i32,
            offset: record.offset as i64,
            append_time: Some(record.append_time.into()),
        }
    }

    fn response(cursor: &str, events: Vec<proto::DeliveredEvent>) -> Vec<u8> {
        let response = Some(Response::Batch(proto::EventBatch { events }));
        let message = proto::StreamEventsResponse { cursor: cursor.into(), response };
        let mut bytes = vec![0];
        bytes.extend((message.encoded_len() as u32).to_be_bytes());
        message.encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_batch_is_written_as_the_generated_types_write_it() {
        let records = [
            record(0, 0, event(true).encode_to_vec()),
            record(3, 7, event(false).encode_to_vec()),
            record(1, 1 << 40, event(true).encode_to_vec()),
        ];
        let found = records.each_ref().map(origin);
        let all = || records.iter().zip(found.iter().map(Option::as_ref));
        let origins = [true, false, true];
        let with = |shown: bool| {
            let events = records.iter().zip(origins);
            events.map(|(r, has)| delivered(r, event(shown && has))).collect::<Vec<_>>()
        };
        let plain = batch("a cursor", all(), false);
        assert_eq!(plain.message(), &response("a cursor", with(false)));
        let full = batch("a cursor", all(), true);
        assert_eq!(full.message(), &response("a cursor", with(true)));

        let two = [plain.entries(0..1), plain.entries(2..3)].concat();
        let mut expected = with(false);
        expected.remove(1);
        assert_eq!(chosen("another", &two), response("another", expected));
    }

    #[test]
    fn what_is_no_event_has_no_entry() {
        let records = [record(0, 0, vec![0xff]), record(0, 1, event(false).encode_to_vec())];
        let found = records.each_ref().map(origin);
        let written = batch("c", records.iter().zip(found.iter().map(Option::as_ref)), false);
        assert!(written.entries(0..1).is_empty());
        let expected = response("c", vec![delivered(&records[1], event(false))]);
        assert_eq!(chosen("c", written.entries(0..2)), expected);
    }

    #[test]
    fn other_messages_are_written_and_read() {
        let gap = proto::Gap { reason: 1, partition: 2, missed_records: 3 };
        let written = message("c", Response::Gap(gap));
        assert_eq!(u32::from_be_bytes(written[1..5].try_into().unwrap()), written.len() as u32 - 5);
        let read = read(&written).unwrap();
        assert_eq!((read.cursor, read.response), ("c".to_owned(), Some(Response::Gap(gap))));
    }
}
