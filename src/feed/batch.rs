//! What one read of the log gave: parsed once, and written down once, for all who get it.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::filter::Filter;
use super::place::Place;
use super::written::{self, Written};
use crate::event_log::{Record, Trimmed};
use crate::history::{Origin, Read, Verdict};
use crate::{domain, history};

/// Records that follow on each other, from one place to the next.
#[derive(Debug)]
pub(super) struct Batch {
    pub records: Vec<Record>,
    /// What each record is, and where its origin is.
    pub verdicts: Vec<Verdict>,
    /// How many records are events, each counted once.
    pub events: usize,
    pub trimmed: Vec<Trimmed>,
    /// Where the log was read from, and where to read on.
    pub before: Arc<Place>,
    pub after: Arc<Place>,
    /// By record; made for the first who has a filter.
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

impl Keys {
    /// Whether a filter wants the event.
    pub fn are_wanted_by(&self, filter: &Filter) -> bool {
        filter.matches(&self.event_type, &self.player_id, self.guild_id.as_deref())
    }
}

impl Batch {
    pub fn new(before: Arc<Place>, read: Read) -> Self {
        tell_of_foreign(&read);
        let newest = read.records.iter().map(|record| record.append_time).max();
        let time = newest.unwrap_or_default().max(before.time);
        let events = read.events().count();
        Self {
            after: Arc::new(Place::new(before.log, read.position, time)),
            events,
            records: read.records,
            verdicts: read.verdicts,
            trimmed: read.trimmed,
            before,
            keys: OnceLock::new(),
            plain: OnceLock::new(),
            with_origins: OnceLock::new(),
        }
    }

    /// The origin of each record's event, in the order of the records; `None` where there is
    /// nothing to deliver.
    fn origins(&self) -> impl Iterator<Item = Option<&Origin>> + Clone {
        self.verdicts.iter().map(|verdict| match verdict {
            Verdict::Event(origin) => Some(origin),
            Verdict::Duplicate | Verdict::Foreign => None,
        })
    }

    /// The keys of each record's event; `None` where there is nothing to deliver.
    pub fn keys(&self) -> &[Option<Keys>] {
        let keys = || {
            let events = self.records.iter().zip(&self.verdicts);
            let of = |(record, verdict): (_, &Verdict)| verdict.is_event().then(|| keys(record));
            events.map(|event| of(event).flatten()).collect()
        };
        self.keys.get_or_init(keys)
    }

    /// Whether it holds all that there was: no gap. Duplicates are nothing that is missing.
    pub fn is_whole(&self) -> bool {
        self.trimmed.is_empty() && !self.verdicts.contains(&Verdict::Foreign)
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
            + self.records.len() * (size_of::<Record>() + size_of::<Verdict>())
            + size_of::<Self>()
    }

    /// The bytes of its records in the log.
    pub fn record_bytes(&self) -> usize {
        self.records.iter().map(|record| record.value.len()).sum()
    }
}

/// So that their operator finds them.
fn tell_of_foreign(read: &Read) {
    for (record, verdict) in read.records.iter().zip(&read.verdicts) {
        if *verdict == Verdict::Foreign
            && let Err(why) = history::event(&record.value)
        {
            let Record { partition, offset, .. } = record;
            tracing::warn!(partition, offset, why, "a record in the log is no event");
        }
    }
}

fn keys(record: &Record) -> Option<Keys> {
    let keys = domain::EventKeys::of(&record.value)?;
    Some(Keys {
        event_type: keys.event_type.into(),
        player_id: keys.player_id.into(),
        guild_id: keys.guild_id.map(Box::from),
    })
}
