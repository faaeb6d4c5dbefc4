//! The ring: the newest records of the log, in memory, for all live subscribers.
//!
//! Written by the tail alone, read by subscribers. The lock is held for pushing or
//! cloning a few pointers, never while anything is delivered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use prost::Message as _;
use tokio::sync::{Notify, watch};

use crate::event_log::{LogId, Position, ReadBatch, ReadLimits, Record, Trimmed};
use crate::proto;

/// A record of the log, parsed once for all subscribers, by the first that looks at
/// it: with no subscriber there is nothing to parse for.
#[derive(Debug)]
pub(super) struct FeedRecord {
    pub record: Record,
    event: OnceLock<Option<FeedEvent>>,
}

/// An event, and apart from it what is private.
#[derive(Debug)]
pub(super) struct FeedEvent {
    /// Without its origin.
    pub event: proto::GameEvent,
    pub origin: Option<proto::Origin>,
}

impl FeedRecord {
    /// The event; `None` where the record is none.
    pub fn event(&self) -> Option<&FeedEvent> {
        let decode = || {
            let Record { partition, offset, ref value, .. } = self.record;
            let why = match proto::GameEvent::decode(value.clone()) {
                // What others have written may decode, down to nothing at all. A payload
                // that this build does not know is still an event.
                Ok(event) if event.event_id.is_empty() || event.event_type.is_empty() => {
                    "it has no id or no type".to_owned()
                }
                Ok(mut event) => {
                    let origin = event.origin.take();
                    return Some(FeedEvent { event, origin });
                }
                Err(error) => error.to_string(),
            };
            tracing::warn!(partition, offset, why, "a record in the log is no event");
            None
        };
        self.event.get_or_init(decode).as_ref()
    }

    /// The size of the record in the log.
    pub fn bytes(&self) -> usize {
        self.record.value.len()
    }
}

impl From<Record> for FeedRecord {
    fn from(record: Record) -> Self {
        Self { record, event: OnceLock::new() }
    }
}

/// What one read of the log gave.
#[derive(Debug)]
pub(super) struct Batch {
    pub records: Vec<FeedRecord>,
    pub trimmed: Vec<Trimmed>,
    /// Where the log was read from, and where to read on.
    pub before: Position,
    pub after: Position,
}

impl Batch {
    pub fn new(before: Position, read: ReadBatch) -> Self {
        Self {
            records: read.records.into_iter().map(FeedRecord::from).collect(),
            trimmed: read.trimmed,
            before,
            after: read.position,
        }
    }

    /// What it takes in memory, but for the events that were parsed.
    pub fn bytes(&self) -> usize {
        // The fixed part stands for what the structs themselves take.
        self.records.iter().map(|record| record.bytes() + size_of::<FeedRecord>()).sum::<usize>()
            + size_of::<Self>()
    }
}

/// What a subscriber finds in the ring.
pub(super) enum Found {
    /// Batches from its place on, and the number of the next one.
    Batches(Vec<Arc<Batch>>, u64),
    /// Nothing yet.
    Nothing,
    /// Its place has left the ring.
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

/// Where the tail is.
#[derive(Debug, Default)]
pub(super) struct End {
    /// In which log; none before the tail has begun.
    pub log: Option<LogId>,
    pub position: Position,
}

/// Tells the subscribers of one runtime that there is news.
#[derive(Debug)]
pub(super) struct Signal {
    ready: Notify,
    published: watch::Sender<()>,
}

impl Signal {
    fn new() -> Self {
        Self { ready: Notify::new(), published: watch::Sender::new(()) }
    }

    /// Notified after each publication from now on.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.published.subscribe()
    }

    /// Passes on that there is news, for as long as it is polled. To be polled on the
    /// subscribers' own runtime, where to wake them is cheap.
    pub async fn relay(&self) {
        loop {
            self.ready.notified().await;
            self.published.send_replace(());
        }
    }

    /// Wakes the runtime, if it has subscribers: to wake another thread costs as much as a
    /// small request. One that is not counted yet looks at the ring after it is.
    fn wake(&self) {
        if self.published.receiver_count() > 0 {
            self.ready.notify_one();
        }
    }
}

/// The ring and those who wait for it.
pub(super) struct Hub {
    ring: Mutex<Ring>,
    end: ArcSwap<End>,
    lanes: Mutex<Vec<Arc<Signal>>>,
}

struct Ring {
    batches: VecDeque<Arc<Batch>>,
    /// The number of the first batch in `batches`; numbers count up for good.
    first: u64,
    bytes: usize,
    max_bytes: usize,
    /// Which log it holds. None until the tail has begun: before, nobody can join.
    log: Option<LogId>,
    /// Where the tail is.
    end: Position,
}

impl Hub {
    pub fn new(max_bytes: usize) -> Self {
        let ring = Ring {
            batches: VecDeque::new(),
            first: 0,
            bytes: 0,
            max_bytes,
            log: None,
            end: Position::default(),
        };
        Self { ring: Mutex::new(ring), end: ArcSwap::default(), lanes: Mutex::default() }
    }

    /// A signal for one more runtime.
    pub fn add_lane(&self) -> Arc<Signal> {
        let signal = Arc::new(Signal::new());
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&signal));
        signal
    }

    /// Empties the ring and begins again at `position` of `log`.
    pub fn restart(&self, log: LogId, position: Position) {
        let mut ring = self.ring();
        // One more than there were: whoever waits for the next batch has to look for its
        // place anew, as the next one need not follow on the last.
        ring.first += ring.batches.len() as u64 + 1;
        ring.batches.clear();
        ring.bytes = 0;
        ring.log = Some(log);
        ring.end = position.clone();
        self.end.store(Arc::new(End { log: ring.log, position }));
        drop(ring);
        self.wake();
    }

    /// Adds a batch, drops the oldest ones beyond the bound, wakes the runtimes.
    pub fn publish(&self, batch: Batch) {
        let position = batch.after.clone();
        let mut ring = self.ring();
        ring.bytes += batch.bytes();
        ring.end = batch.after.clone();
        ring.batches.push_back(Arc::new(batch));
        while ring.bytes > ring.max_bytes && ring.batches.len() > 1 {
            if let Some(oldest) = ring.batches.pop_front() {
                ring.bytes -= oldest.bytes();
                ring.first += 1;
            }
        }
        self.end.store(Arc::new(End { log: ring.log, position }));
        drop(ring);
        self.wake();
    }

    /// Where the tail is.
    pub fn end(&self) -> arc_swap::Guard<Arc<End>> {
        self.end.load()
    }

    /// The batch at which a reader at `position` of `log` can join: the last one that
    /// begins at or before its place.
    pub fn join(&self, log: LogId, position: &Position) -> Join {
        let ring = self.ring();
        match ring.log {
            None => return Join::Behind,
            Some(held) if held != log => return Join::Replaced,
            Some(_) => {}
        }
        // Starts never decrease from batch to batch, so those before the place come
        // first.
        let begun = ring.batches.partition_point(|batch| position.covers(&batch.before));
        if begun == ring.batches.len() && position.covers(&ring.end) {
            return Join::At(ring.first + begun as u64);
        }
        begun.checked_sub(1).map_or(Join::Behind, |index| Join::At(ring.first + index as u64))
    }

    /// The batches from number `next` on that are within `limits`, but one at least.
    pub fn find(&self, next: u64, limits: ReadLimits) -> Found {
        let ring = self.ring();
        let Some(index) = next.checked_sub(ring.first) else { return Found::Gone };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let (mut records, mut bytes) = (0, 0);
        let found: Vec<_> = ring
            .batches
            .iter()
            .skip(index)
            .take_while(|batch| {
                let first = records == 0;
                records += batch.records.len().max(1);
                bytes += batch.records.iter().map(FeedRecord::bytes).sum::<usize>();
                first || (records <= limits.records && bytes <= limits.bytes)
            })
            .cloned()
            .collect();
        if found.is_empty() {
            Found::Nothing
        } else {
            let next = next + found.len() as u64;
            Found::Batches(found, next)
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    const LOG: LogId = LogId(uuid::Uuid::nil());
    const LIMITS: ReadLimits = ReadLimits { records: 8, bytes: 1 << 20 };

    fn batch(before: &[u64], after: &[u64], bytes: usize) -> Batch {
        let record = Record {
            partition: 0,
            offset: 0,
            append_time: Timestamp::default(),
            key: None,
            value: vec![0; bytes].into(),
        };
        Batch {
            records: vec![record.into()],
            trimmed: Vec::new(),
            before: before.to_vec().into(),
            after: after.to_vec().into(),
        }
    }

    fn join(hub: &Hub, position: &[u64]) -> Option<u64> {
        match hub.join(LOG, &position.to_vec().into()) {
            Join::At(number) => Some(number),
            Join::Behind => None,
            Join::Replaced => panic!("it is the same log"),
        }
    }

    #[test]
    fn a_reader_joins_at_the_last_batch_that_begins_before_its_place() {
        let hub = Hub::new(1 << 20);
        assert_eq!(join(&hub, &[5, 5]), None, "the tail has not begun");
        hub.restart(LOG, vec![5, 5].into());
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
        let hub = Hub::new(10_000);
        hub.restart(LOG, vec![0].into());
        for i in 0..10 {
            hub.publish(batch(&[i], &[i + 1], 4000));
        }
        assert!(matches!(hub.find(0, LIMITS), Found::Gone));
        assert!(matches!(hub.find(11, LIMITS), Found::Nothing));
        assert_eq!(join(&hub, &[0]), None);
        let Some(next) = join(&hub, &[9]) else { panic!("the newest batch must be there") };
        assert!(matches!(hub.find(next, LIMITS), Found::Batches(found, 11) if found.len() == 1));
    }

    #[test]
    fn after_a_restart_everybody_looks_for_its_place_anew() {
        let hub = Hub::new(1 << 20);
        hub.restart(LOG, vec![5].into());
        let Some(next) = join(&hub, &[5]) else { panic!("it is at the end") };
        hub.restart(LOG, vec![9].into());
        hub.publish(batch(&[9], &[10], 10));
        assert!(matches!(hub.find(next, LIMITS), Found::Gone));
        assert_eq!(join(&hub, &[5]), None);
        let other = LogId(uuid::Uuid::max());
        assert_eq!(hub.join(other, &vec![9].into()), Join::Replaced);
    }

    #[test]
    fn a_batch_over_the_bound_is_kept_until_the_next() {
        let hub = Hub::new(10);
        hub.restart(LOG, vec![0].into());
        hub.publish(batch(&[0], &[1], 4000));
        assert!(matches!(hub.find(1, LIMITS), Found::Batches(..)));
    }
}
