//! The writer: the one thread that changes the log.
//!
//! It takes everything that is queued, appends it in one transaction, and only when
//! that is durable shows it to readers and answers the callers. While the disk syncs
//! one group, the next one gathers by itself; the more callers, the larger the groups.
//! (Waiting 100 µs for more before a group begins was measured: 6 % fewer appends a
//! second with 256 in flight, 40 % fewer with 16.)
//!
//! When a write fails, everything queued is refused and the database closed. From then
//! on the writer opens it again about once a second and tries a small real write; when
//! that succeeds, the log takes records again, with the offsets that the database gives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Shared;
use super::data_dir::DataDir;
use super::queue::{CLOSED, Pending, Taken};
use super::retention::{self, Policy};
use super::store::{Checkpoint, Contents, Failure, Store, explain};
use crate::clock::{Clock, Timestamp};
use crate::event_log::{AckBatch, AppendError, Appended, Bounds, Health, Offset, Position, Record};

/// Most records of one transaction. Groups gain nothing from being larger than about a
/// thousand, and the first of a group waits for the last.
const GROUP_RECORDS: usize = 4_096;

/// Most bytes of keys and values of one transaction (8 MiB), for the same reason.
const GROUP_BYTES: usize = 8 << 20;

/// After so much in the write-ahead file it is moved into the database (1 MiB). Nothing
/// is appended meanwhile, so this sets how long the unlucky wait: at 330,000 records a
/// second the 99th percentile is 3 ms, against 7 ms with SQLite's usual 4 MiB, at the
/// same rate and CPU; with 16 MiB it is 1 ms, but one in two hundred waits 25 ms.
const CHECKPOINT_BYTES: u64 = 1 << 20;

/// What a group writes beside its records: the last pages of a partition or two (8 KiB).
/// Half of what many partitions take, so that small groups do not checkpoint too often.
const GROUP_OVERHEAD_BYTES: u64 = 8 << 10;

/// When readers have kept the write-ahead file from starting anew for so long (32 MiB),
/// the writer waits for them to finish, which they do within milliseconds.
const RESTART_BYTES: u64 = 32 << 20;

/// How often to try whether writing works again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What a test has the writer do between two groups.
#[cfg(test)]
pub(super) type Command = Box<dyn FnOnce(&mut Writer) + Send>;

/// The writer's state. Its end closes `bounds`, which tells everyone.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// None while the log cannot be written.
    pub(super) store: Option<Store>,
    policy: Policy,
    clock: Clock,
    next: Vec<Offset>,
    /// The newest append time of each partition.
    newest: Vec<Timestamp>,
    places: Vec<Appended>,
    /// About what was written since the last checkpoint.
    unmoved_bytes: u64,
    /// The next forced restart, doubled each time that a reader outlasts it.
    restart_bytes: u64,
    next_check: Instant,
    health: watch::Sender<Health>,
    // From here on the order matters: the folder is free before the end is told.
    dir: DataDir,
    bounds: watch::Sender<Bounds>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        (store, contents): (Store, Contents),
        (policy, clock): (Policy, Clock),
        (bounds, health): (watch::Sender<Bounds>, watch::Sender<Health>),
        dir: DataDir,
    ) -> Self {
        Self {
            shared,
            store: Some(store),
            policy,
            clock,
            next: contents.bounds.end.iter().map(|(_, offset)| offset).collect(),
            newest: contents.newest,
            places: Vec::new(),
            unmoved_bytes: 0,
            restart_bytes: RESTART_BYTES,
            next_check: Instant::now(),
            health,
            dir,
            bounds,
        }
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut taken = Vec::new();
        let mut group = Vec::new();
        loop {
            let state = self.shared.queue.take(&mut taken, self.patience());
            #[cfg(test)]
            for command in self.shared.queue.take_commands() {
                command(&mut self);
            }
            let nothing = taken.is_empty();
            let mut queued = taken.drain(..).peekable();
            while queued.peek().is_some() && self.store.is_some() {
                let mut bytes = 0;
                while let Some(pending) = queued.next_if(|next| {
                    group.is_empty()
                        || group.len() < GROUP_RECORDS && bytes + next.bytes() <= GROUP_BYTES
                }) {
                    bytes += pending.bytes();
                    group.push(pending);
                }
                if let Err(failure) = self.append(&mut group, bytes) {
                    self.stop_writing(&failure, &mut group, bytes);
                }
                self.keep_house();
            }
            queued.for_each(|left| self.refuse(left));
            if nothing {
                self.keep_house();
            }
            if matches!(state, Taken::Closed) && nothing {
                break;
            }
            if self.store.is_none() {
                self.wait_for_recovery();
            }
        }
        self.finish();
    }

    /// How long to wait for records when there are none.
    fn patience(&self) -> Option<Duration> {
        (!self.policy.keeps_everything())
            .then(|| self.next_check.saturating_duration_since(Instant::now()))
    }

    /// Appends a group and answers it. On failure nothing of it is answered yet.
    fn append(&mut self, group: &mut Vec<Pending>, bytes: usize) -> Result<(), Failure> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let log = self.shared.id;
        let now = self.clock.now();
        let mut next = self.next.clone();
        self.places.clear();
        self.places.extend(group.iter().map(|pending| {
            let partition = pending.partition as usize;
            let offset = next[partition];
            next[partition] += 1;
            // Never earlier than the record before it, whatever the clock says.
            let append_time = now.max(self.newest[partition]);
            Appended { log, partition: pending.partition, offset, append_time }
        }));
        store.append(group, &self.places)?;

        self.next = next;
        for place in &self.places {
            self.newest[place.partition as usize] = place.append_time;
        }
        self.unmoved_bytes += bytes as u64 + GROUP_OVERHEAD_BYTES;
        // First into the cache, then the end that leads readers to it, then the
        // answers: whoever has one finds the record below the end.
        let records = group.len();
        let mut acks = AckBatch::default();
        let mut cache = self.shared.cache.lock();
        for (pending, &place) in group.drain(..).zip(&self.places) {
            let Appended { partition, offset, append_time, .. } = place;
            let Pending { key, value, ack, .. } = pending;
            cache.push(Record { partition, offset, append_time, key, value });
            acks.push(ack, Ok(place));
        }
        drop(cache);
        self.bounds.send_modify(|bounds| bounds.end = self.next.iter().copied().collect());
        self.shared.queue.completed(records, bytes);
        drop(acks);
        Ok(())
    }

    /// Tells a group that failed, closes the database, and refuses what is queued.
    fn stop_writing(&mut self, failure: &Failure, group: &mut Vec<Pending>, bytes: usize) {
        let reason: Arc<str> = explain(failure.error(), self.dir.path()).into();
        tracing::error!(error = %failure.error(), %reason, "the log cannot be written");
        self.store = None;
        let mut refused = Vec::new();
        self.shared.queue.refuse(Arc::clone(&reason), &mut refused);
        self.health.send_replace(Health::Unwritable(Arc::clone(&reason)));

        let outcome = match failure {
            Failure::NotWritten(_) => AppendError::Unavailable(Arc::clone(&reason)),
            Failure::Unknown(_) => AppendError::OutcomeUnknown(reason),
        };
        self.shared.queue.completed(group.len(), bytes);
        let mut acks = AckBatch::default();
        for pending in group.drain(..) {
            acks.push(pending.ack, Err(outcome.clone()));
        }
        drop(acks);
        refused.into_iter().for_each(|pending| self.refuse(pending));
    }

    /// Tells one that was queued when writing stopped.
    fn refuse(&self, pending: Pending) {
        let reason = match &*self.health.borrow() {
            Health::Unwritable(reason) => Arc::clone(reason),
            Health::Writable => CLOSED.into(),
        };
        self.shared.queue.completed(1, pending.bytes());
        pending.ack.complete(Err(AppendError::Unavailable(reason)));
    }

    /// Returns when the log can be written again, or is closed.
    fn wait_for_recovery(&mut self) {
        while !self.shared.queue.sleep(PROBE_INTERVAL) {
            match self.recover() {
                Ok(()) => {
                    tracing::info!("the log can be written again");
                    // In this order: who reads "writable" is not refused.
                    self.shared.queue.accept();
                    self.health.send_replace(Health::Writable);
                    return;
                }
                Err(reason) => {
                    tracing::debug!(%reason, "the log can still not be written");
                    self.health.send_if_modified(|health| {
                        let now = Health::Unwritable(reason.into());
                        let changed = *health != now;
                        *health = now;
                        changed
                    });
                }
            }
        }
    }

    /// Opens the database again, goes on from what it holds, and tries a write.
    fn recover(&mut self) -> Result<(), String> {
        let dir = self.dir.path().to_path_buf();
        let (store, contents) = Store::reopen(&self.dir.database(), self.shared.partitions)
            .map_err(|error| explain(&error, &dir))?;
        if contents.bounds.log != self.shared.id {
            return Err(format!("another log was put under {}; restart", dir.display()));
        }
        let shown: Position = self.next.iter().copied().collect();
        if !contents.bounds.end.covers(&shown) {
            return Err(format!(
                "records that were acknowledged are missing under {}; restore them from a copy",
                dir.display()
            ));
        }
        let mut store = store;
        store.probe().map_err(|failure| explain(failure.error(), &dir))?;
        if contents.bounds.end != shown {
            // A group of unknown outcome was written after all. The cache lacks it, and
            // must have no gaps.
            self.shared.cache.lock().clear();
            self.next = contents.bounds.end.iter().map(|(_, offset)| offset).collect();
            self.newest = contents.newest;
        }
        self.store = Some(store);
        self.bounds.send_replace(contents.bounds);
        Ok(())
    }

    /// What is due between two groups: a checkpoint, a slice of retention.
    fn keep_house(&mut self) {
        if self.unmoved_bytes >= CHECKPOINT_BYTES {
            self.unmoved_bytes = 0;
            self.checkpoint();
        }
        if !self.policy.keeps_everything() && Instant::now() >= self.next_check {
            self.retain();
        }
    }

    /// A failure loses nothing: the records stay in the write-ahead file, and the next
    /// checkpoint takes them along.
    fn checkpoint(&mut self) {
        let Some(store) = &self.store else { return };
        let length = store.checkpoint(Checkpoint::Passive).and_then(|length| {
            if length < self.restart_bytes {
                return Ok(length);
            }
            store.checkpoint(Checkpoint::Restart)
        });
        match length {
            Ok(length) if length >= self.restart_bytes => {
                self.restart_bytes = length.saturating_mul(2);
                tracing::warn!(
                    bytes = length,
                    "the log's write-ahead file grows: another program has a long transaction open"
                );
            }
            Ok(length) if length < RESTART_BYTES => self.restart_bytes = RESTART_BYTES,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a checkpoint of the log failed"),
        }
    }

    /// Runs a slice of retention, and says whether there is more to do.
    pub(super) fn retain(&mut self) -> bool {
        let Some(store) = &mut self.store else { return false };
        let now = self.clock.now();
        let bounds = self.bounds.borrow().clone();
        match self.policy.slice(store, &bounds, now) {
            Ok(slice) => {
                if !slice.more {
                    self.next_check = Instant::now() + retention::CHECK_INTERVAL;
                }
                if slice.start != bounds.start {
                    self.unmoved_bytes += slice.freed + GROUP_OVERHEAD_BYTES;
                    self.show_start(slice.start);
                }
                slice.more
            }
            Err(failure) => {
                self.stop_writing(&failure, &mut Vec::new(), 0);
                false
            }
        }
    }

    /// Moves the log start for readers. Wakes nobody: who waits is at the end.
    fn show_start(&self, start: Position) {
        self.shared.cache.lock().trim(&start);
        self.bounds.send_if_modified(|bounds| {
            bounds.start = start;
            false
        });
    }

    /// Trims one partition, as retention would.
    #[cfg(test)]
    pub(super) fn trim(&mut self, partition: crate::event_log::Partition, to: Offset) {
        let store = self.store.as_mut().expect("tests trim a log that is well");
        let to = to.min(self.next[partition as usize]);
        store.transact(|store| store.trim(partition, to)).expect("the disk is well");
        let mut start = self.bounds.borrow().start.clone();
        start.set(partition, to);
        self.show_start(start);
    }

    fn finish(self) {
        self.health.send_replace(Health::Unwritable(CLOSED.into()));
        self.shared.pool.close_idle();
        if let Some(store) = &self.store
            && let Err(error) = store.checkpoint(Checkpoint::Truncate)
        {
            tracing::warn!(%error, "the last checkpoint of the log failed; nothing is lost by that");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nobody is to wait for a writer that is gone.
        if std::thread::panicking() {
            let reason = "the log's writer ended by a fault; restart";
            self.health.send_replace(Health::Unwritable(reason.into()));
        }
        self.shared.queue.close();
        let mut left = Vec::new();
        self.shared.queue.refuse(CLOSED.into(), &mut left);
        left.into_iter().for_each(|pending| self.refuse(pending));
        self.store = None;
    }
}
