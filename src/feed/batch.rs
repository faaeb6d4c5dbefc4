//! What one read of the log gave: parsed once, and written down once, for all who get it.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message as _;

use super::place::Place;
use super::scan::{self, Origin};
use super::written::{self, Written};
use crate::domain;
use crate::event_log::{ReadBatch, Record, Trimmed};
use crate::proto;

/// Records that follow on each other, from one place to the next.
#[derive(Debug)]
pub(super) struct Batch {
    pub records: Vec<Record>,
    pub trimmed: Vec<Trimmed>,
    /// Where the log was read from, and where to read on.
    pub before: Arc<Place>,
    pub after: Arc<Place>,
    /// By record; made for the first who looks, as without subscribers there is nothing to
    /// look for.
    origins: OnceLock<Vec<Option<Origin>>>,
    /// The same, for the first who has a filter.
    keys: OnceLock<Vec<Option<Keys>>>,
    /// Without origins, and with them.
    plain: OnceLock<Written>,
    with_origins: OnceLock<Written>,
}

/// What of an event decides who wants it.
#[derive(Debug)]
pub(super) struct Keys {
    pub event_type: Box<str>,
    pub player_id: Box<str>,
    pub guild_id: Option<Box<str>>,
}

impl Batch {
    pub fn new(before: Arc<Place>, read: ReadBatch) -> Self {
        let newest = read.records.iter().map(|record| record.append_time).max();
        let time = newest.unwrap_or_default().max(before.time);
        Self {
            after: Arc::new(Place::new(before.log, read.position, time)),
            records: read.records,
            trimmed: read.trimmed,
            before,
            origins: OnceLock::new(),
            keys: OnceLock::new(),
            plain: OnceLock::new(),
            with_origins: OnceLock::new(),
        }
    }

    /// Where the origin of each record's event is, in the order of the records; `None` where a
    /// record is no event.
    pub fn origins(&self) -> &[Option<Origin>] {
        self.origins.get_or_init(|| self.records.iter().map(look_at).collect())
    }

    /// The keys of each record's event; `None` where a record is no event.
    pub fn keys(&self) -> &[Option<Keys>] {
        let keys = || {
            let events = self.records.iter().zip(self.origins());
            events.map(|(record, origin)| origin.as_ref().and_then(|_| keys(record))).collect()
        };
        self.keys.get_or_init(keys)
    }

    /// Whether it holds events and nothing else: no gap.
    pub fn is_whole(&self) -> bool {
        self.trimmed.is_empty() && self.origins().iter().all(Option::is_some)
    }

    /// The whole batch as one message, for whoever stands before it and wants all of it.
    pub fn message(&self, with_origins: bool) -> &Bytes {
        self.written(with_origins).message()
    }

    /// The events among some of its records, as they stand in a message.
    pub fn entries(&self, records: Range<usize>, with_origins: bool) -> &[u8] {
        self.written(with_origins).entries(records)
    }

    fn written(&self, with_origins: bool) -> &Written {
        let written = if with_origins { &self.with_origins } else { &self.plain };
        written.get_or_init(|| {
            let records = self.records.iter().zip(self.origins());
            written::batch(self.after.cursor(), records, with_origins)
        })
    }

    /// How much memory it takes, once somebody gets it: its records, and its message beside
    /// them. Messages with origins come on top of that.
    pub fn bytes(&self) -> usize {
        2 * self.record_bytes()
            + self.records.len() * (size_of::<Record>() + size_of::<Option<Origin>>())
            + size_of::<Self>()
    }

    /// The bytes of its records in the log.
    pub fn record_bytes(&self) -> usize {
        self.records.iter().map(|record| record.value.len()).sum()
    }
}

fn look_at(record: &Record) -> Option<Origin> {
    let found = scan::event(&record.value);
    if let Err(why) = &found {
        let Record { partition, offset, .. } = record;
        tracing::warn!(partition, offset, why, "a record in the log is no event");
    }
    found.ok()
}

fn keys(record: &Record) -> Option<Keys> {
    // It is an event.
    let event = proto::GameEvent::decode(record.value.clone()).ok()?;
    let guild_id = domain::event_guild(&event).map(Box::from);
    Some(Keys { event_type: event.event_type.into(), player_id: event.player_id.into(), guild_id })
}
