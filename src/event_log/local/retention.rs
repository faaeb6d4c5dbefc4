//! Retention: removing the oldest records, a little at a time.
//!
//! The writer does it between two groups, so that it never competes with an append
//! for the database. Each slice is one transaction, which also moves the log start.

use std::time::{Duration, Instant};

use super::store::{Failure, Store};
use crate::clock::Timestamp;
use crate::event_log::{Bounds, Offset, Partition, Position};

/// How often to look whether something is to be removed.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a slice may hold up the next group, roughly: in the order of what a
/// checkpoint takes.
const SLICE: Duration = Duration::from_millis(5);

/// Records removed between two looks at the clock; so few because each may be a
/// megabyte.
const STEP_RECORDS: Offset = 32;

/// The smallest size that can be asked for (4 MiB): the tables themselves take up to
/// one, and the largest record takes another.
pub const MIN_RETENTION_BYTES: u64 = 4 << 20;

/// What is to be kept. Without limits: everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) age: Option<Duration>,
    pub(super) bytes: Option<u64>,
}

/// What a slice did.
pub(super) struct Slice {
    /// The log start after it.
    pub(super) start: Position,
    /// Whether there is more to remove.
    pub(super) more: bool,
    /// The bytes of the pages that became free. SQLite writes them once more, as the
    /// last change to them.
    pub(super) freed: u64,
}

impl Policy {
    pub(super) fn keeps_everything(&self) -> bool {
        self.age.is_none() && self.bytes.is_none()
    }

    /// Removes what is too old or too much, oldest first over all partitions, for
    /// about the time of a slice.
    pub(super) fn slice(
        &self,
        store: &mut Store,
        bounds: &Bounds,
        now: Timestamp,
    ) -> Result<Slice, Failure> {
        let began = Instant::now();
        let cutoff = self.age.map(|age| now.minus(age));
        store.transact(|store| {
            let used = store.used_bytes()?;
            let mut start = bounds.start.clone();
            let mut more = true;
            while more && (start == bounds.start || began.elapsed() < SLICE) {
                more = self.step(store, &mut start, &bounds.end, cutoff)?;
            }
            let freed = used.saturating_sub(store.used_bytes()?);
            Ok(Slice { start, more, freed })
        })
    }

    /// Removes a few records, and says whether there may be more to remove.
    fn step(
        &self,
        store: &Store,
        start: &mut Position,
        end: &Position,
        cutoff: Option<Timestamp>,
    ) -> rusqlite::Result<bool> {
        let Some((partition, time)) = oldest(store, start, end)? else { return Ok(false) };
        let over = match self.bytes {
            Some(most) => store.used_bytes()? > most,
            None => false,
        };
        let expired = cutoff.filter(|&cutoff| time < cutoff);
        if !over && expired.is_none() {
            return Ok(false);
        }
        let first = start.get(partition);
        let mut to = (first + STEP_RECORDS).min(end.get(partition));
        if !over && let Some(cutoff) = expired {
            to = first_at(store, partition, first, to, cutoff)?;
        }
        store.trim(partition, to)?;
        start.set(partition, to);
        Ok(true)
    }
}

/// The partition whose first record is the oldest, and its time.
fn oldest(
    store: &Store,
    start: &Position,
    end: &Position,
) -> rusqlite::Result<Option<(Partition, Timestamp)>> {
    let mut oldest: Option<(Partition, Timestamp)> = None;
    for (partition, first) in start.iter() {
        if first < end.get(partition)
            && let Some(time) = store.append_time(partition, first)?
            && oldest.is_none_or(|(_, than)| time < than)
        {
            oldest = Some((partition, time));
        }
    }
    Ok(oldest)
}

/// The first offset from `first` up to `to` that was appended at `time` or later.
fn first_at(
    store: &Store,
    partition: Partition,
    first: Offset,
    to: Offset,
    time: Timestamp,
) -> rusqlite::Result<Offset> {
    for offset in first..to {
        if store.append_time(partition, offset)?.is_some_and(|at| at >= time) {
            return Ok(offset);
        }
    }
    Ok(to)
}
