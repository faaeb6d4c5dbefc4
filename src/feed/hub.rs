//! The ring: the newest records of the log, in memory, for all live subscribers.
//!
//! Written by the tail alone, read by subscribers. The lock is held for pushing or
//! cloning a few pointers, never while anything is delivered.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::batch::Batch;
use super::place::Place;

/// What is in the ring under a number.
#[derive(Debug)]
pub(super) enum Found {
    /// The batch.
    Batch(Arc<Batch>),
    /// Nothing yet.
    Nothing,
    /// It has left the ring.
    Gone,
}

/// Where a reader of the log can go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Join {
    /// With the batch of this number.
    At(u64),
    /// Not in the ring: it has to read the log first.
    Behind,
    /// The ring holds another log.
    Replaced,
}

/// Tells one runtime that there is news.
#[derive(Debug, Default)]
pub(super) struct Signal {
    ready: Notify,
    listeners: AtomicUsize,
}

impl Signal {
    /// Waits for news that has come since the last time. For one at a time.
    pub async fn news(&self) {
        self.ready.notified().await;
    }

    /// From now on there is somebody for whom news is news, as long as what is returned
    /// lives.
    pub fn listen(self: &Arc<Self>) -> Listener {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        Listener(Arc::clone(self))
    }

    /// Wakes the runtime, if somebody listens there: to wake another thread costs as much as
    /// a small request. Who is not counted yet looks at the ring after he is.
    fn wake(&self) {
        if self.listeners.load(Ordering::SeqCst) > 0 {
            self.ready.notify_one();
        }
    }
}

/// Somebody who listens to a signal.
#[derive(Debug)]
pub(super) struct Listener(Arc<Signal>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The ring and those who wait for it.
pub(super) struct Hub {
    ring: Mutex<Ring>,
    /// Where the tail is; none before it has begun.
    end: ArcSwapOption<Place>,
    lanes: Mutex<Vec<Arc<Signal>>>,
}

struct Ring {
    batches: VecDeque<Arc<Batch>>,
    /// The number of the first batch in `batches`; numbers count up for good.
    first: u64,
    bytes: usize,
    max_bytes: usize,
    /// Where the tail is. None until it has begun: before, nobody can join.
    end: Option<Arc<Place>>,
}

impl Hub {
    pub fn new(max_bytes: usize) -> Self {
        let ring = Ring { batches: VecDeque::new(), first: 0, bytes: 0, max_bytes, end: None };
        Self { ring: Mutex::new(ring), end: ArcSwapOption::empty(), lanes: Mutex::default() }
    }

    /// A signal for one more runtime.
    pub fn add_lane(&self) -> Arc<Signal> {
        let signal = Arc::<Signal>::default();
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&signal));
        signal
    }

    /// Empties the ring and begins again at `place`.
    pub fn restart(&self, place: Arc<Place>) {
        let mut ring = self.ring();
        // One more than there were: whoever waits for the next batch has to look for its
        // place anew, as the next one need not follow on the last.
        ring.first = ring.next() + 1;
        ring.batches.clear();
        ring.bytes = 0;
        ring.end = Some(Arc::clone(&place));
        self.end.store(Some(place));
        drop(ring);
        self.wake();
    }

    /// Adds a batch, drops the oldest ones beyond the bound, wakes the runtimes.
    pub fn publish(&self, batch: Batch) {
        let end = Arc::clone(&batch.after);
        let mut ring = self.ring();
        ring.bytes += batch.bytes();
        ring.end = Some(Arc::clone(&end));
        ring.batches.push_back(Arc::new(batch));
        while ring.bytes > ring.max_bytes && ring.batches.len() > 1 {
            if let Some(oldest) = ring.batches.pop_front() {
                ring.bytes -= oldest.bytes();
                ring.first += 1;
            }
        }
        self.end.store(Some(end));
        drop(ring);
        self.wake();
    }

    /// Where the tail is.
    pub fn end(&self) -> Option<Arc<Place>> {
        self.end.load_full()
    }

    /// The same for who only has a look, as each call does: the count of its users, which all
    /// threads share, is left alone.
    pub fn peek_end(&self) -> arc_swap::Guard<Option<Arc<Place>>> {
        self.end.load()
    }

    /// The number of the batch that comes next, and where it will begin.
    pub fn head(&self) -> (u64, Option<Arc<Place>>) {
        let ring = self.ring();
        (ring.next(), ring.end.clone())
    }

    /// The batch at which a reader at `place` can join: the last one that begins at or
    /// before its place.
    pub fn join(&self, place: &Place) -> Join {
        let ring = self.ring();
        let Some(end) = &ring.end else { return Join::Behind };
        if end.log != place.log {
            return Join::Replaced;
        }
        // Starts never decrease from batch to batch, so those before the place come
        // first.
        let begins = |batch: &Arc<Batch>| place.position.covers(&batch.before.position);
        let begun = ring.batches.partition_point(begins);
        if begun == ring.batches.len() && place.position.covers(&end.position) {
            return Join::At(ring.next());
        }
        begun.checked_sub(1).map_or(Join::Behind, |index| Join::At(ring.first + index as u64))
    }

    /// The batch of a number.
    pub fn find(&self, number: u64) -> Found {
        let ring = self.ring();
        let Some(index) = number.checked_sub(ring.first) else { return Found::Gone };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        ring.batches.get(index).cloned().map_or(Found::Nothing, Found::Batch)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        for lane in self.lanes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            lane.wake();
        }
    }
}

impl Ring {
    fn next(&self) -> u64 {
        self.first + self.batches.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::event_log::{LogId, ReadBatch, Record};

    const LOG: LogId = LogId(uuid::Uuid::nil());

    fn place(log: LogId, offsets: &[u64]) -> Arc<Place> {
        Arc::new(Place::new(log, offsets.to_vec().into(), Timestamp::default()))
    }

    fn batch(before: &[u64], after: &[u64], bytes: usize) -> Batch {
        let record = Record {
            partition: 0,
            offset: 0,
            append_time: Timestamp::default(),
            key: None,
            value: vec![0; bytes].into(),
        };
        let read = ReadBatch {
            records: vec![record],
            trimmed: Vec::new(),
            position: after.to_vec().into(),
        };
        Batch::new(place(LOG, before), read.into())
    }

    fn join(hub: &Hub, position: &[u64]) -> Option<u64> {
        match hub.join(&place(LOG, position)) {
            Join::At(number) => Some(number),
            Join::Behind => None,
            Join::Replaced => panic!("it is the same log"),
        }
    }

    #[test]
    fn a_reader_joins_at_the_last_batch_that_begins_before_its_place() {
        let hub = Hub::new(1 << 20);
        assert_eq!(join(&hub, &[5, 5]), None, "the tail has not begun");
        hub.restart(place(LOG, &[5, 5]));
        assert_eq!(join(&hub, &[5, 5]), Some(1));
        assert_eq!(join(&hub, &[9, 9]), Some(1), "ahead of the tail");
        assert_eq!(join(&hub, &[5, 4]), None, "behind the ring in one partition");
        hub.publish(batch(&[5, 5], &[6, 5], 10));
        hub.publish(batch(&[6, 5], &[6, 7], 10));
        assert_eq!(join(&hub, &[5, 5]), Some(1));
        assert_eq!(join(&hub, &[6, 5]), Some(2));
        assert_eq!(join(&hub, &[6, 6]), Some(2), "in the middle of a batch");
        assert_eq!(join(&hub, &[5, 7]), Some(1), "ahead in one, behind in the other");
        assert_eq!(join(&hub, &[6, 7]), Some(3));
    }

    #[test]
    fn the_ring_is_bounded_and_who_falls_out_of_it_is_told() {
        let hub = Hub::new(20_000);
        hub.restart(place(LOG, &[0]));
        for i in 0..10 {
            hub.publish(batch(&[i], &[i + 1], 4000));
        }
        assert!(matches!(hub.find(0), Found::Gone));
        assert!(matches!(hub.find(11), Found::Nothing));
        assert_eq!(join(&hub, &[0]), None);
        let Some(next) = join(&hub, &[9]) else { panic!("the newest batch must be there") };
        assert!(matches!(hub.find(next), Found::Batch(found) if found.after.position.get(0) == 10));
    }

    #[test]
    fn after_a_restart_everybody_looks_for_its_place_anew() {
        let hub = Hub::new(1 << 20);
        hub.restart(place(LOG, &[5]));
        let Some(next) = join(&hub, &[5]) else { panic!("it is at the end") };
        hub.restart(place(LOG, &[9]));
        hub.publish(batch(&[9], &[10], 10));
        assert!(matches!(hub.find(next), Found::Gone));
        assert_eq!(join(&hub, &[5]), None);
        let other = LogId(uuid::Uuid::max());
        assert_eq!(hub.join(&place(other, &[9])), Join::Replaced);
    }

    #[test]
    fn a_batch_over_the_bound_is_kept_until_the_next() {
        let hub = Hub::new(10);
        hub.restart(place(LOG, &[0]));
        hub.publish(batch(&[0], &[1], 4000));
        assert!(matches!(hub.find(1), Found::Batch(_)));
    }
}
