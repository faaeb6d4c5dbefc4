//! The events of a message one by one, each with a cursor of its own.
//!
//! A message has one cursor, behind all that it holds. Who passes its events on singly needs one
//! behind each: who resumes there gets the rest of the message, and nothing before. It is the
//! place before the message, moved on behind each event in that event's partition, whichever the
//! others are. Whatever else lies between two events of a message is said to nobody (what the
//! filter passes over, duplicates), and who resumes passes over it once more. What is said, such
//! as a gap, is a message of its own.

use std::vec;

use bytes::Bytes;
use prost::{DecodeError, Message as _};

use super::place::Way;
use crate::event_log::{Cursor, CursorMalformed};

/// The events of one message.
pub struct Steps {
    /// Up to the event before. None where the message has one event, behind which its own cursor
    /// is.
    way: Option<Way>,
    events: vec::IntoIter<Bytes>,
    /// Behind the message.
    after: String,
}

/// One of them.
pub struct Step {
    /// Behind it.
    pub cursor: String,
    /// A `DeliveredEvent`, as it was written.
    pub event: Bytes,
}

impl Steps {
    /// The events of a message between two cursors: that of the message before it, and its own.
    ///
    /// # Errors
    ///
    /// The first one is none.
    pub fn new(before: &str, events: Vec<Bytes>, after: String) -> Result<Self, CursorMalformed> {
        let way = if events.len() > 1 { Some(Way::behind(Cursor::decode(before)?)) } else { None };
        Ok(Self { way, events: events.into_iter(), after })
    }

    fn behind(&mut self, event: &Bytes) -> Result<String, DecodeError> {
        let is_last = self.events.len() == 0;
        let Some(way) = self.way.as_mut().filter(|_| !is_last) else {
            return Ok(std::mem::take(&mut self.after));
        };
        let Whereabouts { partition, offset, append_time } = Whereabouts::decode(&**event)?;
        way.pass(partition, offset, append_time.unwrap_or_default().into());
        Ok(way.cursor())
    }
}

impl Iterator for Steps {
    type Item = Result<Step, DecodeError>;

    fn next(&mut self) -> Option<Result<Step, DecodeError>> {
        let event = self.events.next()?;
        Some(self.behind(&event).map(|cursor| Step { cursor, event }))
    }
}

/// A `DeliveredEvent` without its event. Partition and offset are never negative, and then have
/// the same bytes as these.
#[derive(Clone, PartialEq, prost::Message)]
struct Whereabouts {
    #[prost(uint32, tag = "2")]
    partition: u32,
    #[prost(uint64, tag = "3")]
    offset: u64,
    #[prost(message, optional, tag = "4")]
    append_time: Option<prost_types::Timestamp>,
}
