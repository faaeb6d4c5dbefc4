//! History: the log as a sequence of events, each of them once.
//!
//! A retry may land in the log twice: two servers took it, or one whose log gave no answer.
//! Every event says how far its writer had looked for an earlier one with the same id
//! (`checked_through_offset`), so that each reader of the log can tell the second from the
//! first by itself, and all of them tell alike.
//!
//! # What it promises
//!
//! * **One rule.** A record at the offset `o` whose writer had looked through `c` is a
//!   duplicate if and only if an event with the same id lies in its partition at an offset
//!   from `max(c, o -` [`REACH`]`)` on and before `o`.
//! * **Exact wherever a reader starts.** What lies before its start and decides about a record
//!   is read first. What retention has removed by then decides nothing.
//! * **Bounded.** A reader keeps the ids of the newest few thousand records of each partition
//!   (0.3 MiB a partition), and up to [`REACH`] where records ask for that (5 MiB).
//!
//! # What it may not know
//!
//! What is done with the events, and what they mean.

mod reader;
mod scan;
mod seen;
#[cfg(test)]
mod tests;

use crate::event_log::{Position, Record, Trimmed};

pub use reader::Reader;
pub use scan::{Event, Origin, event};

/// How many offsets before a record it can have a duplicate at the most. Part of the rule: see
/// `checked_through_offset` in `proto/game.proto`.
pub const REACH: u64 = 65_536;

/// What a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An event, with its origin there.
    Event(Origin),
    /// An event that was there before.
    Duplicate,
    /// No event.
    Foreign,
}

impl Verdict {
    /// Whether it is an event that was not there before.
    pub fn is_event(&self) -> bool {
        matches!(self, Self::Event(_))
    }
}

/// What one read of the log gave.
#[derive(Clone, Debug)]
pub struct Read {
    /// In the order of the log within each partition.
    pub records: Vec<Record>,
    /// What each of them is.
    pub verdicts: Vec<Verdict>,
    /// What is missing before these records because retention removed it.
    pub trimmed: Vec<Trimmed>,
    /// Where to read on.
    pub position: Position,
}

impl Read {
    /// The records that are events, each once.
    pub fn events(&self) -> impl Iterator<Item = &Record> {
        events(&self.records, &self.verdicts)
    }
}

/// The records that are events by their verdicts, each once.
pub fn events<'a>(
    records: &'a [Record],
    verdicts: &'a [Verdict],
) -> impl Iterator<Item = &'a Record> {
    let judged = records.iter().zip(verdicts);
    judged.filter(|(_, verdict)| verdict.is_event()).map(|(record, _)| record)
}

/// As if no id came twice, for tests that make their own reads.
#[cfg(test)]
impl From<crate::event_log::ReadBatch> for Read {
    fn from(read: crate::event_log::ReadBatch) -> Self {
        let crate::event_log::ReadBatch { records, trimmed, position } = read;
        let look = |record: &Record| event(&record.value).map(|event| event.origin);
        let verdict = |record| look(record).map_or(Verdict::Foreign, Verdict::Event);
        Self { verdicts: records.iter().map(verdict).collect(), records, trimmed, position }
    }
}
