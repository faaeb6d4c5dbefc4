//! How far an export is, for whoever shows it, and what came of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::event_log::{Offset, Partition, Position, Record};

/// How far an export is. Shared by its threads and whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    events: AtomicU64,
    written: AtomicU64,
    duplicates: AtomicU64,
    foreign: AtomicU64,
    missing: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    begin: Position,
    passed: Position,
    end: Option<Position>,
    first_foreign: Option<(Partition, Offset)>,
    cursor: String,
}

/// What came of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events in the files.
    pub events: u64,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that were left out because the event was there before.
    pub duplicates: u64,
    /// Records that are no events.
    pub foreign: u64,
    /// Where the first of them is.
    pub first_foreign: Option<(Partition, Offset)>,
    /// Records that retention had removed.
    pub missing: u64,
    /// Everything before it has been looked at, and what of it is wanted is in the files.
    pub cursor: String,
    /// It was told to stop before its end.
    pub interrupted: bool,
}

impl Progress {
    /// How many records were read of how many; none where there is no end.
    pub fn records(&self) -> (u64, Option<u64>) {
        let places = self.places();
        let total = places.end.as_ref().map(|end| places.begin.distance_to(end));
        (places.begin.distance_to(&places.passed), total)
    }

    /// How many rows were written to files.
    pub fn rows(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self, from: &Position) {
        let mut places = self.places();
        places.begin.clone_from(from);
        places.passed.clone_from(from);
    }

    pub(super) fn end(&self, end: &Position) {
        self.places().end = Some(end.clone());
    }

    pub(super) fn passed(&self, position: &Position) {
        self.places().passed.clone_from(position);
    }

    pub(super) fn reached(&self, cursor: &str) {
        cursor.clone_into(&mut self.places().cursor);
    }

    pub(super) fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, rows: usize) {
        self.written.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(super) fn duplicate(&self) {
        self.duplicates.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn foreign(&self, record: &Record) {
        if self.foreign.fetch_add(1, Ordering::Relaxed) == 0 {
            self.places().first_foreign = Some((record.partition, record.offset));
        }
    }

    pub(super) fn missing(&self, records: u64) {
        self.missing.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn file(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn summary(&self, interrupted: bool) -> Summary {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let places = self.places();
        Summary {
            events: count(&self.events),
            files: count(&self.files),
            bytes: count(&self.bytes),
            duplicates: count(&self.duplicates),
            foreign: count(&self.foreign),
            first_foreign: places.first_foreign,
            missing: count(&self.missing),
            cursor: places.cursor.clone(),
            interrupted,
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
