//! A place in the log, shared by all who stand there, and the way from one to the next.

use std::sync::{Arc, OnceLock};

use super::invariants;
use crate::clock::Timestamp;
use crate::event_log::{Cursor, LogId, Offset, Partition, Position};

/// A place in the log, and its cursor.
#[derive(Debug)]
pub(super) struct Place {
    pub log: LogId,
    pub position: Position,
    /// The append time of the newest record before it, as far as that is known.
    pub time: Timestamp,
    cursor: OnceLock<Box<str>>,
}

impl Place {
    pub fn new(log: LogId, position: Position, time: Timestamp) -> Self {
        Self { log, position, time, cursor: OnceLock::new() }
    }

    /// The same place, shared with nobody.
    pub fn copy(&self) -> Self {
        Self::new(self.log, self.position.clone(), self.time)
    }

    /// `next`, for somebody who goes there from here, and forgets nothing of the time: who shares
    /// `next` may have begun behind records that were seen on the way here.
    pub fn onward(&self, next: &Arc<Self>) -> Arc<Self> {
        if self.time <= next.time {
            return Arc::clone(next);
        }
        Arc::new(Self::new(next.log, next.position.clone(), self.time))
    }

    /// The cursor, written once.
    pub fn cursor(&self) -> &str {
        let write = || Cursor::of(self.log, &self.position, self.time).into_boxed_str();
        self.cursor.get_or_init(write)
    }

    /// Whether somebody at this place has nothing before or behind `other`.
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.log == other.log && self.position == other.position)
    }
}

/// The way over some records, from a place to the next.
pub(super) struct Way {
    pub log: LogId,
    pub position: Position,
    pub time: Timestamp,
}

impl Way {
    pub fn from(place: &Place) -> Self {
        Self { log: place.log, position: place.position.clone(), time: place.time }
    }

    /// From a cursor on.
    pub fn behind(cursor: Cursor) -> Self {
        Self { log: cursor.epoch, position: cursor.position, time: cursor.time }
    }

    /// Goes on behind a record.
    pub fn pass(&mut self, partition: Partition, offset: Offset, append_time: Timestamp) {
        debug_assert!(invariants::in_order(&self.position, partition, offset));
        self.position.set(partition, offset + 1);
        self.time = self.time.max(append_time);
    }

    pub fn place(&self) -> Arc<Place> {
        Arc::new(Place::new(self.log, self.position.clone(), self.time))
    }

    pub fn cursor(&self) -> String {
        Cursor::of(self.log, &self.position, self.time)
    }
}
