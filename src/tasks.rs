//! Background work: every task has a name, an owner, and a meaning of its death.
//!
//! A [`Tasks`] owns what it spawns. Its owner stops it by asking
//! ([`Tasks::stop`]) and waits for the end ([`Tasks::ended`]); a task whose death
//! is [`Death::Fatal`] and that ends without having been asked is reported by
//! [`Tasks::died`].

use std::future::Future;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What it means when a task ends before it is asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Nothing: its work is done.
    Expected,
    /// The component cannot go on without it.
    Fatal,
}

/// The tasks of one owner. Clones own the same tasks.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    died: watch::Sender<Option<&'static str>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An owner without tasks.
    pub fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            died: watch::Sender::new(None),
        }
    }

    /// An owner of other tasks, stopped apart from this one's, whose unexpected deaths are
    /// reported here.
    pub fn child(&self) -> Self {
        Self { died: self.died.clone(), ..Self::new() }
    }

    /// Runs `work` on the current runtime until it ends or, if `death` is fatal,
    /// until the owner stops.
    pub fn spawn<F>(&self, name: &'static str, death: Death, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = Guard { name, death, owner: self.clone() };
        let stopping = self.stopping.clone();
        self.tracker.spawn(async move {
            match death {
                Death::Expected => work.await,
                Death::Fatal => {
                    stopping.run_until_cancelled_owned(work).await;
                }
            }
            drop(guard);
        });
    }

    /// Asks all tasks to end. Fatal ones end at their next await; the others watch
    /// [`Tasks::stopping`] where they run for long.
    pub fn stop(&self) {
        self.stopping.cancel();
        self.tracker.close();
    }

    /// Cancelled once the owner was asked to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Returns when the owner was stopped and every task has ended.
    pub async fn ended(&self) {
        self.tracker.wait().await;
    }

    /// Returns the name of the first task that died of what should not happen.
    pub async fn died(&self) -> &'static str {
        let mut died = self.died.subscribe();
        loop {
            if let Some(name) = *died.borrow_and_update() {
                return name;
            }
            if died.changed().await.is_err() {
                // Cannot happen: `self` holds a sender.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Notices the end of a task, also by a panic.
struct Guard {
    name: &'static str,
    death: Death,
    owner: Tasks,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.death == Death::Fatal && !self.owner.stopping.is_cancelled() {
            tracing::error!(task = self.name, "a task ended that must not");
            self.owner.died.send_replace(Some(self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_death_of_a_fatal_task_is_reported_also_when_it_panics() {
        for work in [false, true] {
            let tasks = Tasks::new();
            tasks.spawn("mortal", Death::Fatal, async move {
                assert!(work, "a panic on purpose");
            });
            assert_eq!(tasks.died().await, "mortal");
        }
    }

    #[tokio::test]
    async fn a_death_among_the_tasks_of_a_child_is_reported_to_its_parent() {
        let parent = Tasks::new();
        parent.child().spawn("mortal", Death::Fatal, async {});
        assert_eq!(parent.died().await, "mortal");
    }

    #[tokio::test]
    async fn a_stopped_owner_ends_its_tasks_without_a_report() {
        let tasks = Tasks::new();
        tasks.spawn("endless", Death::Fatal, std::future::pending());
        tasks.stop();
        tasks.ended().await;
        assert_eq!(*tasks.died.borrow(), None);
    }
}
