//! Counts what is under way to the brokers.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::settings::{MAX_QUEUED_RECORDS, MIN_QUEUED_PER_PARTITION};
use crate::event_log::Partition;

/// A count with a cache line of its own (two, as processors fetch them in pairs): it is
/// changed by whoever writes and by the thread that hears of acknowledgements.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicUsize);

/// Records that were taken and are not completed. Shared by a writer and its producers.
pub(super) struct Tally {
    /// For each partition.
    pending: Box<[Count]>,
    /// How many there may be for one.
    most: usize,
    acknowledged: AtomicU64,
    closed: AtomicBool,
    drained: Notify,
}

/// Why a record has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Its partition has as many waiting as it may.
    Full,
    /// Nothing is taken any more.
    Closed,
}

impl Tally {
    pub fn new(partitions: u32) -> Self {
        let share = MAX_QUEUED_RECORDS / partitions.max(1) as usize;
        Self {
            pending: (0..partitions).map(|_| Count::default()).collect(),
            most: share.max(MIN_QUEUED_PER_PARTITION),
            acknowledged: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            drained: Notify::new(),
        }
    }

    /// Counts a record that is about to be handed over. Each is given back once.
    pub fn take(&self, partition: Partition) -> Result<(), NoPlace> {
        // Counted before the look at `closed`: whoever closes waits for it, or it sees that
        // it comes too late.
        let before = self.pending[partition as usize].0.fetch_add(1, Ordering::SeqCst);
        let refused = if self.closed.load(Ordering::SeqCst) {
            Some(NoPlace::Closed)
        } else {
            (before >= self.most).then_some(NoPlace::Full)
        };
        refused.map_or(Ok(()), |why| {
            self.give_back(partition);
            Err(why)
        })
    }

    /// A record is completed, or was not handed over after all.
    pub fn give_back(&self, partition: Partition) {
        let before = self.pending[partition as usize].0.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.closed.load(Ordering::SeqCst) {
            self.drained.notify_waiters();
        }
    }

    /// A broker has acknowledged a record. Called by one thread at a time, mostly.
    pub fn acknowledge(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// How many records were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// How many records are under way.
    pub fn pending(&self) -> usize {
        self.pending.iter().map(|count| count.0.load(Ordering::SeqCst)).sum()
    }

    /// Takes no more, and returns when nothing is under way.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        loop {
            let drained = self.drained.notified();
            if self.pending() == 0 {
                return;
            }
            drained.await;
        }
    }
}

/// For how long nothing has been acknowledged although something was waiting.
pub(super) struct Silence {
    acknowledged: u64,
    since: Instant,
}

impl Silence {
    pub fn new(now: Instant) -> Self {
        Self { acknowledged: 0, since: now }
    }

    /// How long it lasts now, and whether something was acknowledged since the last look.
    pub fn look(&mut self, tally: &Tally, now: Instant) -> (Duration, bool) {
        let acknowledged = tally.acknowledged();
        let broken = acknowledged != self.acknowledged;
        if broken || tally.pending() == 0 {
            (self.acknowledged, self.since) = (acknowledged, now);
        }
        (now - self.since, broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_has_its_share_and_no_more() {
        let tally = Tally::new(6);
        let share = MAX_QUEUED_RECORDS / 6;
        for _ in 0..share {
            tally.take(3).unwrap();
        }
        assert_eq!(tally.take(3), Err(NoPlace::Full));
        assert_eq!(tally.take(2), Ok(()));
        tally.give_back(3);
        assert_eq!(tally.take(3), Ok(()));
        assert_eq!(tally.pending(), share + 1);
        assert_eq!(Tally::new(1_000).most, MIN_QUEUED_PER_PARTITION);
    }

    #[tokio::test]
    async fn closing_waits_for_what_was_taken() {
        let tally = Tally::new(2);
        tally.take(1).unwrap();
        let mut closing = std::pin::pin!(tally.close());
        assert!(futures_util::poll!(&mut closing).is_pending());
        assert_eq!(tally.take(0), Err(NoPlace::Closed));
        assert!(futures_util::poll!(&mut closing).is_pending());
        tally.give_back(1);
        closing.await;
    }

    #[test]
    fn silence_counts_only_while_something_waits() {
        let tally = Tally::new(1);
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut silence = Silence::new(began);
        assert_eq!(silence.look(&tally, at(60)), (Duration::ZERO, false));
        tally.take(0).unwrap();
        assert_eq!(silence.look(&tally, at(63)), (Duration::from_secs(3), false));
        tally.acknowledge();
        assert_eq!(silence.look(&tally, at(64)), (Duration::ZERO, true));
        assert_eq!(silence.look(&tally, at(66)), (Duration::from_secs(2), false));
        tally.give_back(0);
        assert_eq!(silence.look(&tally, at(70)), (Duration::ZERO, false));
    }
}
