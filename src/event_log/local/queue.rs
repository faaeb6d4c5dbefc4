//! From the callers to the writer: a bounded queue that is taken whole.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::event_log::{Ack, AppendError, MAX_RECORD_BYTES, NewRecord, Partition};

/// Most records that are submitted and not completed. Half a second's worth at the
/// rate that the writer reaches: a caller is better told to come back than kept
/// waiting longer.
pub(super) const QUEUE_RECORDS: usize = 65_536;

/// Most bytes of keys and values in the queue (64 MiB), so that a burst of large
/// records cannot take the memory.
pub(super) const QUEUE_BYTES: usize = 64 << 20;

/// Room for records that the queue keeps after a burst.
const KEPT_CAPACITY: usize = 8_192;

/// What [`AppendError::Unavailable`] says after the end.
pub(super) const CLOSED: &str = "the log was closed";

/// A record on its way.
pub(super) struct Pending {
    pub(super) partition: Partition,
    pub(super) key: Option<Bytes>,
    pub(super) value: Bytes,
    pub(super) ack: Ack,
}

impl Pending {
    pub(super) fn bytes(&self) -> usize {
        record_bytes(self.key.as_ref(), &self.value)
    }
}

/// What a record counts for in every limit: its key and value.
pub(super) fn record_bytes(key: Option<&Bytes>, value: &Bytes) -> usize {
    key.map_or(0, Bytes::len) + value.len()
}

/// What the writer found.
pub(super) enum Taken {
    /// Records, or nothing within the time it was ready to wait.
    Open,
    /// The last records, or nothing: no more will come.
    Closed,
}

/// The queue. Counts what it handed to the writer until that is completed.
pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    partitions: u32,
}

#[derive(Default)]
struct State {
    records: Vec<Pending>,
    open_records: usize,
    open_bytes: usize,
    /// The writer sleeps; it is woken only then, as a wake-up costs more than
    /// everything else here.
    idle: bool,
    closing: bool,
    /// Why nothing is taken now.
    refusal: Option<Arc<str>>,
    #[cfg(test)]
    commands: Vec<super::writer::Command>,
}

impl State {
    fn has_work(&self) -> bool {
        #[cfg(test)]
        if !self.commands.is_empty() {
            return true;
        }
        !self.records.is_empty() || self.closing
    }
}

impl Queue {
    pub(super) fn new(partitions: u32) -> Self {
        Self { state: Mutex::default(), work: Condvar::new(), partitions }
    }

    /// Takes a record, or completes its ack at once with why not.
    pub(super) fn submit(&self, record: NewRecord, ack: Ack) {
        let NewRecord { partition, key, value, attributes: _ } = record;
        let pending = Pending { partition, key, value, ack };
        if let Err((pending, error)) = self.push(pending) {
            pending.ack.complete(Err(error));
        }
    }

    fn push(&self, pending: Pending) -> Result<(), (Pending, AppendError)> {
        let bytes = pending.bytes();
        if bytes > MAX_RECORD_BYTES {
            return Err((pending, AppendError::TooLarge(bytes)));
        }
        if pending.partition >= self.partitions {
            let reason = format!(
                "it has no partition {}, only those below {}",
                pending.partition, self.partitions
            );
            return Err((pending, AppendError::Unavailable(reason.into())));
        }
        let mut state = self.lock();
        if state.closing {
            return Err((pending, AppendError::Unavailable(CLOSED.into())));
        }
        if let Some(reason) = &state.refusal {
            let error = AppendError::Unavailable(Arc::clone(reason));
            return Err((pending, error));
        }
        if state.open_records >= QUEUE_RECORDS || state.open_bytes + bytes > QUEUE_BYTES {
            return Err((pending, AppendError::Overloaded));
        }
        state.open_records += 1;
        state.open_bytes += bytes;
        state.records.push(pending);
        let wake = mem::take(&mut state.idle);
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Exchanges `taken`, which is empty, for everything that is queued. Waits for
    /// something, no longer than `patience` if that is set.
    pub(super) fn take(&self, taken: &mut Vec<Pending>, patience: Option<Duration>) -> Taken {
        taken.shrink_to(KEPT_CAPACITY);
        let mut state = self.wait(patience, State::has_work);
        mem::swap(&mut state.records, taken);
        if state.closing { Taken::Closed } else { Taken::Open }
    }

    /// Makes room for what was taken and is about to be completed.
    pub(super) fn completed(&self, records: usize, bytes: usize) {
        let mut state = self.lock();
        state.open_records -= records;
        state.open_bytes -= bytes;
    }

    /// From now on refuses everything; what is queued is put behind `taken`.
    pub(super) fn refuse(&self, reason: Arc<str>, taken: &mut Vec<Pending>) {
        let mut state = self.lock();
        state.refusal = Some(reason);
        taken.append(&mut state.records);
    }

    /// Takes records again.
    pub(super) fn accept(&self) {
        self.lock().refusal = None;
    }

    /// Takes no more records, for good.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.idle = false;
        drop(state);
        self.work.notify_one();
    }

    /// Sleeps for `time`, or until the queue is closed; says whether it is.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        self.wait(Some(time), |state| state.closing).closing
    }

    fn wait(
        &self,
        patience: Option<Duration>,
        ready: impl Fn(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let until = patience.and_then(|patience| Instant::now().checked_add(patience));
        let mut state = self.lock();
        loop {
            if ready(&state) {
                state.idle = false;
                return state;
            }
            state.idle = true;
            let Some(until) = until else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.idle = false;
                return state;
            }
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before the lock is let go, also by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the writer run `command` between two groups.
    #[cfg(test)]
    pub(super) fn command(&self, command: super::writer::Command) {
        self.lock().commands.push(command);
        self.work.notify_one();
    }

    #[cfg(test)]
    pub(super) fn take_commands(&self) -> Vec<super::writer::Command> {
        mem::take(&mut self.lock().commands)
    }
}
