//! The newest records, in memory: whoever follows the log reads them from here and
//! never touches the database.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::queue::record_bytes;
use super::reader::{Gather, Want};
use crate::event_log::{Partition, Position, Record};

/// Most bytes that the cache holds (8 MiB): some twenty thousand usual records, far
/// more than a reader that keeps up is ever behind.
const CACHE_BYTES: usize = 8 << 20;

/// What a record takes beside its key and value: the record itself, its turn, and
/// the counters of its two buffers.
const RECORD_OVERHEAD: usize = 160;

/// The newest records of all partitions, without gaps in any.
pub(super) struct Cache(Mutex<State>);

struct State {
    partitions: Vec<VecDeque<Record>>,
    /// The partitions of all records, oldest first: whose turn it is to lose one.
    turns: VecDeque<Partition>,
    bytes: usize,
}

/// The cache, held; for a moment only, as the writer waits for it.
pub(super) struct Cached<'a>(MutexGuard<'a, State>);

impl Cache {
    pub(super) fn new(partitions: u32) -> Self {
        Self(Mutex::new(State {
            partitions: (0..partitions).map(|_| VecDeque::new()).collect(),
            turns: VecDeque::new(),
            bytes: 0,
        }))
    }

    pub(super) fn lock(&self) -> Cached<'_> {
        // A panic in here could only come from the allocator, which aborts.
        Cached(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Cached<'_> {
    /// Adds a record behind the last one of its partition.
    pub(super) fn push(&mut self, record: Record) {
        let state = &mut *self.0;
        state.bytes += size(&record);
        state.turns.push_back(record.partition);
        state.partitions[record.partition as usize].push_back(record);
        while state.bytes > CACHE_BYTES && state.drop_oldest() {}
    }

    /// Whether the first record that is wanted is here; the later ones then are too.
    pub(super) fn has(&self, want: &Want) -> bool {
        self.0.partitions[want.partition as usize]
            .front()
            .is_some_and(|first| first.offset <= want.from)
    }

    /// Adds what is wanted, as far as it may.
    pub(super) fn read(&self, want: &Want, left: usize, gather: &mut Gather) {
        let records = &self.0.partitions[want.partition as usize];
        let Some(first) = records.front() else { return };
        let skip = usize::try_from(want.from.saturating_sub(first.offset)).unwrap_or(usize::MAX);
        let mut share = gather.share(left);
        for record in records.iter().skip(skip) {
            // What is newer than the reader's view of the end waits for its next.
            if record.offset >= want.end
                || !gather.admits(&mut share, record_bytes(record.key.as_ref(), &record.value))
            {
                break;
            }
            gather.push(record.clone());
        }
    }

    /// Drops what lies below `start`, so that nothing that was trimmed is read.
    pub(super) fn trim(&mut self, start: &Position) {
        let state = &mut *self.0;
        while let Some(&oldest) = state.turns.front() {
            let kept = state.partitions[oldest as usize]
                .front()
                .is_none_or(|record| record.offset >= start.get(oldest));
            if kept || !state.drop_oldest() {
                break;
            }
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        while self.0.drop_oldest() {}
    }
}

impl State {
    fn drop_oldest(&mut self) -> bool {
        let Some(partition) = self.turns.pop_front() else { return false };
        if let Some(record) = self.partitions[partition as usize].pop_front() {
            self.bytes -= size(&record);
        }
        true
    }
}

fn size(record: &Record) -> usize {
    record_bytes(record.key.as_ref(), &record.value) + RECORD_OVERHEAD
}
