//! Reads the feed off the wire, no further than a measurement needs.
//!
//! A subscriber that is measured shares the machine with the server, so that its
//! messages are looked at where they lie: nothing is copied, and no field is decoded
//! that nobody asks for.

use std::mem;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, decode_varint};

use super::payload::FRAME_HEADER_BYTES;
use crate::proto::StreamEventsRequest;

/// What is called.
pub const PATH: &str = "/game.v1.EventFeedService/StreamEvents";

/// The largest message taken, far more than a batch of the feed.
const LARGEST_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// The bytes are no message of the feed.
#[derive(Debug, thiserror::Error)]
#[error("the stream holds bytes that are no message of the feed")]
pub struct Malformed;

/// A request as one framed gRPC message.
pub fn frame(request: &StreamEventsRequest) -> Bytes {
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + message.len());
    frame.extend_from_slice(&[0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message);
    frame.freeze()
}

/// Cuts what comes of a stream into messages.
#[derive(Debug, Default)]
pub struct Frames {
    /// The beginning of a message whose rest has not come.
    rest: BytesMut,
}

impl Frames {
    /// Hands on every message that is whole now.
    pub fn take(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        // As a rule a chunk holds whole messages, which are then not copied.
        let mut joined = mem::take(&mut self.rest);
        let mut bytes = if joined.is_empty() {
            chunk
        } else {
            joined.extend_from_slice(chunk);
            &joined[..]
        };
        while let Some((message, rest)) = split(bytes)? {
            each(message)?;
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.rest = BytesMut::from(bytes);
        }
        Ok(())
    }
}

/// A message and what is behind it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// The first message and what is behind it; none when it is not whole.
fn split(bytes: &[u8]) -> Result<Option<Split<'_>>, Malformed> {
    let Some((&[flags, a, b, c, d], rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Ok(None);
    };
    // A usize has 32 bits at least.
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if flags != 0 || length > LARGEST_MESSAGE_BYTES {
        return Err(Malformed);
    }
    Ok(rest.split_at_checked(length))
}

/// A message of the feed. The numbers of the fields are those of `proto/game.proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The start is fixed.
    Opened,
    /// Events, for [`events`].
    Batch(&'a [u8]),
    /// All that the log held has come.
    CaughtUp,
    /// The subscriber is too slow.
    FellBehind,
    /// Events are missing.
    Gap,
    /// The server ends the stream.
    Closing,
    /// A heartbeat, or what this build does not know.
    Other,
}

/// What a message is.
pub fn message(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    for field in Fields(bytes) {
        return Ok(match field? {
            (2, Value::Bytes(_)) => Message::Opened,
            (3, Value::Bytes(batch)) => Message::Batch(batch),
            (5, Value::Bytes(_)) => Message::CaughtUp,
            (6, Value::Bytes(_)) => Message::FellBehind,
            (7, Value::Bytes(_)) => Message::Gap,
            (8, Value::Bytes(_)) => Message::Closing,
            // The cursor, which comes first or last.
            _ => continue,
        });
    }
    Ok(Message::Other)
}

/// The events of a batch.
pub fn events(batch: &[u8]) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    Fields(batch).filter_map(|field| match field {
        Ok((1, Value::Bytes(event))) => Some(Ok(event)),
        Ok(_) => None,
        Err(malformed) => Some(Err(malformed)),
    })
}

/// The player and the quantity of an event of a batch that is a purchase; none of another
/// one.
pub fn purchase(delivered: &[u8]) -> Result<Option<(&[u8], u64)>, Malformed> {
    let Some(event) = field(delivered, 1)? else { return Ok(None) };
    let (mut player, mut purchase) = (None, None);
    for field in Fields(event) {
        match field? {
            (3, Value::Bytes(id)) => player = Some(id),
            (17, Value::Bytes(purchased)) => purchase = Some(purchased),
            _ => {}
        }
    }
    let Some((player, purchase)) = player.zip(purchase) else { return Ok(None) };
    for field in Fields(purchase) {
        if let (2, Value::Varint(quantity)) = field? {
            return Ok(Some((player, quantity)));
        }
    }
    Ok(None)
}

/// The first field of this number that holds bytes.
fn field(bytes: &[u8], number: u32) -> Result<Option<&[u8]>, Malformed> {
    for field in Fields(bytes) {
        match field? {
            (found, Value::Bytes(value)) if found == number => return Ok(Some(value)),
            _ => {}
        }
    }
    Ok(None)
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of a message, in the order of the wire.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.take();
        if field.is_none() {
            // Nothing can be found behind it.
            self.0 = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self) -> Option<(u32, Value<'a>)> {
        let tag = decode_varint(&mut self.0).ok()?;
        let value = match WireType::try_from(tag & 7).ok()? {
            WireType::Varint => Value::Varint(decode_varint(&mut self.0).ok()?),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.0).ok()?;
                Value::Bytes(self.skip(usize::try_from(length).ok()?)?)
            }
            WireType::SixtyFourBit => self.skip(8).map(|_| Value::Fixed)?,
            WireType::ThirtyTwoBit => self.skip(4).map(|_| Value::Fixed)?,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        Some((u32::try_from(tag >> 3).ok()?, value))
    }

    fn skip(&mut self, length: usize) -> Option<&'a [u8]> {
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::game_event::Payload;
    use crate::proto::stream_events_response::Response;
    use crate::proto::{
        CaughtUp, DeliveredEvent, EventBatch, FellBehind, GameEvent, Gap, Heartbeat, ItemPurchased,
        Opened, SessionStarted, StreamEventsResponse,
    };

    fn response(response: Response) -> Vec<u8> {
        StreamEventsResponse { cursor: "abc".to_owned(), response: Some(response) }.encode_to_vec()
    }

    fn delivered(player: &str, payload: Payload) -> DeliveredEvent {
        let event = GameEvent {
            event_id: "0192f0c1-5a3b-5c1d-8e2f-3a4b5c6d7e8f".to_owned(),
            player_id: player.to_owned(),
            accept_time: Some(prost_types::Timestamp { seconds: 1, nanos: 2 }),
            payload: Some(payload),
            ..Default::default()
        };
        DeliveredEvent { event: Some(event), partition: 3, offset: 7, append_time: None }
    }

    #[test]
    fn messages_are_told_apart_as_prost_encodes_them() {
        for (encoded, expected) in [
            (response(Response::Opened(Opened::default())), Message::Opened),
            (response(Response::CaughtUp(CaughtUp::default())), Message::CaughtUp),
            (response(Response::FellBehind(FellBehind {})), Message::FellBehind),
            (response(Response::Gap(Gap::default())), Message::Gap),
            (response(Response::Heartbeat(Heartbeat::default())), Message::Other),
        ] {
            assert_eq!(message(&encoded).unwrap(), expected);
        }
        assert!(message(&[0xff]).is_err());
    }

    #[test]
    fn purchases_are_found_in_a_batch_and_other_events_counted() {
        let bought = |quantity| {
            Payload::ItemPurchased(ItemPurchased {
                item_id: "sword".to_owned(),
                quantity,
                ..Default::default()
            })
        };
        let session = Payload::SessionStarted(SessionStarted { session_id: "x".to_owned() });
        let batch = EventBatch {
            events: vec![
                delivered("alice", bought(300)),
                delivered("bob", session),
                delivered("carol", bought(1)),
            ],
        };
        let encoded = response(Response::Batch(batch));
        let Message::Batch(batch) = message(&encoded).unwrap() else { panic!("it is a batch") };
        let found: Vec<_> = events(batch).map(|event| purchase(event.unwrap()).unwrap()).collect();
        assert_eq!(found, [Some((&b"alice"[..], 300)), None, Some((&b"carol"[..], 1))]);
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [3, 0, 200] {
            let message = vec![7; length];
            bytes.extend([0, 0, 0, 0, u8::try_from(length).unwrap()]);
            bytes.extend(message);
        }
        for size in 1..=bytes.len() {
            let (mut frames, mut lengths) = (Frames::default(), Vec::new());
            for chunk in bytes.chunks(size) {
                let each = |message: &[u8]| {
                    lengths.push(message.len());
                    Ok(())
                };
                frames.take(chunk, each).unwrap();
            }
            assert_eq!(lengths, [3, 0, 200], "in pieces of {size}");
        }
        assert!(Frames::default().take(&[1, 0, 0, 0, 0], |_| Ok(())).is_err(), "compressed");
    }
}
