//! What is known of the log's well-being, and of the topic that it is: written by the
//! monitor and the writer, read by everybody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::CLOSED;
use crate::event_log::{Health, LogId};

/// The topic that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub log: LogId,
    pub partitions: u32,
}

/// Why something does not work, or that it does.
pub(super) type Verdict = Result<(), Arc<str>>;

struct Verdicts {
    dead: Verdict,
    topic: Verdict,
    fit: Verdict,
    producing: Verdict,
    closed: bool,
}

/// See the module.
pub(super) struct Board {
    verdicts: Mutex<Verdicts>,
    /// The sum of the verdicts.
    health: watch::Sender<Health>,
    /// Whether that is good, for who asks at each call: a look at `health` counts who looks,
    /// which all threads would do in one place.
    is_writable: AtomicBool,
    /// Whether the brokers can be reached and the topic be used.
    reachable: watch::Sender<Verdict>,
    /// None until it was found for the first time.
    topic: watch::Sender<Option<Topic>>,
}

impl Board {
    pub fn new() -> Self {
        let why: Arc<str> = "the brokers have not been asked yet".into();
        Self {
            verdicts: Mutex::new(Verdicts {
                dead: Ok(()),
                topic: Err(Arc::clone(&why)),
                fit: Ok(()),
                producing: Ok(()),
                closed: false,
            }),
            health: watch::Sender::new(Health::Unwritable(Arc::clone(&why))),
            is_writable: AtomicBool::new(false),
            reachable: watch::Sender::new(Err(why)),
            topic: watch::Sender::new(None),
        }
    }

    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub fn reachable(&self) -> watch::Receiver<Verdict> {
        self.reachable.subscribe()
    }

    pub fn topic(&self) -> watch::Receiver<Option<Topic>> {
        self.topic.subscribe()
    }

    /// Why no records are taken now.
    pub fn refusal(&self) -> Option<Arc<str>> {
        if self.is_writable.load(Ordering::Acquire) {
            return None;
        }
        match &*self.health.borrow() {
            Health::Writable => None,
            Health::Unwritable(why) => Some(Arc::clone(why)),
        }
    }

    pub fn set_topic(&self, topic: Topic) {
        self.topic.send_if_modified(|held| held.replace(topic) != Some(topic));
    }

    /// The topic that was served is no longer there: who reads it is told.
    pub fn withdraw_topic(&self) {
        self.topic.send_if_modified(|held| held.take().is_some());
    }

    /// The monitor's verdict: whether what can be read can be written too.
    pub fn set_fit(&self, verdict: Verdict) {
        self.update(|verdicts| verdicts.fit = verdict);
    }

    /// The monitor's verdict: whether the topic can be used.
    pub fn set_reachable(&self, verdict: Verdict) {
        self.reachable.send_if_modified(|held| std::mem::replace(held, verdict.clone()) != verdict);
        self.update(|verdicts| verdicts.topic = verdict);
    }

    /// The writer's verdict: whether records get through.
    pub fn set_producing(&self, verdict: Verdict) {
        self.update(|verdicts| verdicts.producing = verdict);
    }

    /// Nothing is taken any more.
    pub fn close(&self) {
        self.update(|verdicts| verdicts.closed = true);
    }

    fn update(&self, change: impl FnOnce(&mut Verdicts)) {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut verdicts);
        let why = match &*verdicts {
            Verdicts { closed: true, .. } => Some(CLOSED.into()),
            Verdicts { dead: Err(why), .. }
            | Verdicts { topic: Err(why), .. }
            | Verdicts { fit: Err(why), .. }
            | Verdicts { producing: Err(why), .. } => Some(Arc::clone(why)),
            _ => None,
        };
        self.is_writable.store(why.is_none(), Ordering::Release);
        let health = why.map_or(Health::Writable, Health::Unwritable);
        self.health.send_if_modified(|held| {
            let changed = *held != health;
            *held = health;
            changed
        });
    }
}

/// Held by a thread without which nothing goes on: when it panics, the log takes no more.
pub(super) struct Alarm(pub Arc<Board>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = "a thread of the log has panicked; restart herald, and report it";
            self.0.update(|verdicts| verdicts.dead = Err(why.into()));
        }
    }
}
