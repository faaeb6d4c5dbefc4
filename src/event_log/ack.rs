//! From a back end's thread back to the callers, with one wake-up a batch.
//!
//! Waking a task on another thread costs more than handling a small request, so
//! acknowledgements do not wake their callers one by one. Each runtime that
//! appends has one [`Appender`] and one [`AckDriver`]; a back end gathers the
//! outcomes of a batch in an [`AckBatch`], which hands each driver its share and
//! wakes it once; the driver completes its callers on their own thread.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{Notify, oneshot};

use super::{AppendError, Appended, EventLog, NewRecord};

type Outcome = Result<Appended, AppendError>;
/// Callers with what they are to be told.
type Done = Vec<(oneshot::Sender<Outcome>, Outcome)>;

/// For how many outcomes a driver keeps room: far more than come at once as a rule.
const KEPT_ROOM: usize = 1_024;

/// The inbox of one driver. There are as many as runtimes, a handful, and they stay for as long
/// as the process: each record on its way leads to one, and is handed from thread to thread,
/// where counting users would cost more than what is counted.
#[derive(Default)]
struct Lane {
    // Bounded by the back ends' queues: an outcome stands for a record that was
    // queued.
    done: Mutex<Done>,
    ready: Notify,
}

/// A caller waiting for its record. Completing it consumes it; one that is dropped
/// counts as [`AppendError::OutcomeUnknown`].
pub struct Ack {
    caller: oneshot::Sender<Outcome>,
    lane: &'static Lane,
}

impl Ack {
    /// Completes this one. Its driver is woken only when nothing else was waiting for
    /// it: those that come before it has woken up share one wake-up. Where outcomes come
    /// in groups, [`AckBatch`] is cheaper.
    pub fn complete(self, outcome: Outcome) {
        let mut done = self.lane.done.lock().unwrap_or_else(PoisonError::into_inner);
        let first = done.is_empty();
        done.push((self.caller, outcome));
        drop(done);
        if first {
            self.lane.ready.notify_one();
        }
    }
}

/// Outcomes gathered by a back end; handed over when dropped.
#[derive(Default)]
pub struct AckBatch {
    lanes: Vec<(&'static Lane, Done)>,
}

impl AckBatch {
    /// Adds the outcome of one record.
    pub fn push(&mut self, ack: Ack, outcome: Outcome) {
        // As many lanes as runtimes: a handful.
        match self.lanes.iter_mut().find(|(lane, _)| std::ptr::eq(*lane, ack.lane)) {
            Some((_, share)) => share.push((ack.caller, outcome)),
            None => self.lanes.push((ack.lane, vec![(ack.caller, outcome)])),
        }
    }
}

impl Drop for AckBatch {
    fn drop(&mut self) {
        for (lane, share) in self.lanes.drain(..) {
            lane.done.lock().unwrap_or_else(PoisonError::into_inner).extend(share);
            lane.ready.notify_one();
        }
    }
}

/// Appends to a log from one runtime. Cheap to clone.
#[derive(Clone)]
pub struct Appender {
    log: Arc<dyn EventLog>,
    lane: &'static Lane,
}

/// Completes the callers of one [`Appender`]; to be run on their runtime.
pub struct AckDriver {
    lane: &'static Lane,
}

impl Appender {
    /// An appender for one runtime, and the driver that has to run there.
    pub fn new(log: Arc<dyn EventLog>) -> (Self, AckDriver) {
        let lane = Box::leak(Box::default());
        (Self { log, lane }, AckDriver { lane })
    }

    /// The log that is appended to.
    pub fn log(&self) -> &Arc<dyn EventLog> {
        &self.log
    }

    /// Hands a record to the log, at once, and returns what to wait on until it is
    /// durable. Dropping the future does not take the record back.
    pub fn append(&self, record: NewRecord) -> Appending {
        let (caller, outcome) = oneshot::channel();
        self.log.submit(record, Ack { caller, lane: self.lane });
        Appending(outcome)
    }
}

/// A record on its way; ends when it is durable, or is known not to be.
#[derive(Debug)]
#[must_use = "nobody else says what becomes of the record"]
pub struct Appending(oneshot::Receiver<Outcome>);

impl Future for Appending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.0).poll(cx).map(|outcome| {
            outcome.unwrap_or_else(|_| {
                Err(AppendError::OutcomeUnknown("the writer ended before it answered".into()))
            })
        })
    }
}

impl AckDriver {
    /// Runs until dropped.
    pub async fn run(self) {
        // Changes places with what has come, so that neither has to grow again.
        let mut done = Done::new();
        loop {
            self.lane.ready.notified().await;
            mem::swap(
                &mut done,
                &mut *self.lane.done.lock().unwrap_or_else(PoisonError::into_inner),
            );
            for (caller, outcome) in done.drain(..) {
                // A caller that is gone (deadline, cancelled call) needs no answer.
                let _ = caller.send(outcome);
            }
            done.shrink_to(KEPT_ROOM);
        }
    }
}
