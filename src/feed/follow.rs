//! Following the tail: what it reads, for another part of the process that wants all of it.

use std::sync::Arc;

use super::Feed;
use super::batch::Batch;
use super::hub::{Found, Hub, Join, Listener, Signal};
use super::place::Place;
use crate::clock::Timestamp;
use crate::event_log::{LogId, Position, Record, Trimmed};
use crate::history;

/// Where somebody stands who wants to follow the tail.
pub enum Follow {
    /// In the ring: it can follow from there.
    At(Follower),
    /// Behind the ring, or the ring has not begun: it has to read the log.
    Behind,
    /// The ring holds another log. Which of the two is the older one, only the log can tell.
    Replaced,
}

/// Gets each batch of the ring, in turn. As no reader, it is never waited for: one that is too
/// slow falls out of the ring.
pub struct Follower {
    hub: Arc<Hub>,
    signal: Arc<Signal>,
    _listener: Listener,
    next: u64,
}

/// A batch that the tail has read.
pub struct Followed(Arc<Batch>);

impl Feed {
    /// Follows the tail from `from` in the log `log` on. For one at a time.
    pub fn follow(&self, log: LogId, from: &Position) -> Follow {
        let (hub, signal) = (&self.shared.hub, &self.shared.follower);
        // Before the look at the ring: what is published after it, the follower is told of.
        let listener = signal.listen();
        match hub.join(&Place::new(log, from.clone(), Timestamp::default())) {
            Join::At(next) => Follow::At(Follower {
                hub: Arc::clone(hub),
                signal: Arc::clone(signal),
                _listener: listener,
                next,
            }),
            Join::Behind => Follow::Behind,
            Join::Replaced => Follow::Replaced,
        }
    }
}

impl Follower {
    /// Waits for the next batch, which begins at or before the place where the last one ended.
    /// None when it has left the ring, or the ring holds another log: [`Feed::follow`] says
    /// which. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Followed> {
        loop {
            match self.hub.find(self.next) {
                Found::Batch(batch) => {
                    self.next += 1;
                    return Some(Followed(batch));
                }
                Found::Gone => return None,
                Found::Nothing => self.signal.news().await,
            }
        }
    }
}

impl Followed {
    /// The records that are events, each once.
    pub fn events(&self) -> impl Iterator<Item = &Record> {
        history::events(&self.0.records, &self.0.verdicts)
    }

    /// What retention had removed before it was read.
    pub fn trimmed(&self) -> &[Trimmed] {
        &self.0.trimmed
    }

    /// Behind the batch.
    pub fn position(&self) -> &Position {
        &self.0.after.position
    }
}
