//! What players have, and which requests were carried out: derived from the log, in memory.
//!
//! # What it promises
//!
//! * All that is known here is what the log says up to one place ([`Players::applied`]), which
//!   only moves forward. Duplicates are left out.
//! * The state of a player, and the requests of the same player, change together under one
//!   lock: that of the player's shard.
//!
//! # What it may not know
//!
//! How the log is read, and who asks.

mod claims;
mod fact;
mod people;
mod requests;
#[cfg(test)]
mod requests_tests;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::clock::{Clock, Timestamp};
use crate::domain::{RequestId, Terms};
use crate::event_log::{LogId, Offset, Partition, Position, Record};

pub use claims::{Claimed, Known, Outcome, Receipt, Ticket};

use fact::Fact;
use people::People;
use requests::{Key, Limits, Requests, Written};

/// Over how many locks players are spread.
const SHARDS: usize = 64;

/// Settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// How old a remembered request becomes at the most.
    pub request_max_age: Duration,
    /// How many requests are remembered at the most.
    pub request_max_entries: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { request_max_age: Duration::from_secs(3600), request_max_entries: 2_000_000 }
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Players(Arc<Shared>);

struct Shared {
    options: Options,
    clock: Clock,
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
    progress: Mutex<Progress>,
    ready: watch::Sender<bool>,
}

/// How far the log is known.
#[derive(Default)]
struct Progress {
    applied: Option<(LogId, Position)>,
    /// Partitions whose beginning is gone, or was not read, and of which nothing was read yet.
    unbegun: Vec<Partition>,
    /// From when on all of those are known of which something was.
    begun: Option<Timestamp>,
}

/// Some of the players.
struct Shard {
    /// None when nothing is known.
    log: Option<LogId>,
    people: People,
    requests: Requests,
}

impl Shard {
    fn new(log: Option<LogId>, options: &Options) -> Self {
        let limits = Limits {
            max_age: options.request_max_age,
            max_entries: options.request_max_entries.div_ceil(SHARDS),
        };
        Self { log, people: People::default(), requests: Requests::new(limits) }
    }
}

impl Players {
    /// Nobody is known yet.
    pub fn build(options: Options, clock: Clock, registry: &mut Registry) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new(None, &options))).collect();
        let (hasher, progress) = (RandomState::new(), Mutex::default());
        let ready = watch::Sender::new(false);
        let players = Self(Arc::new(Shared { options, clock, hasher, shards, progress, ready }));
        registry.register_collector(Box::new(claims::Gauges(players.clone())));
        players
    }

    /// Where the log has to be read on, and which log it is; nowhere, when nothing is known.
    pub fn applied(&self) -> Option<(LogId, Position)> {
        self.progress().applied.clone()
    }

    /// Up to where a partition is known, and of which log, once that was read; all that is
    /// before it has been taken in.
    pub fn checked_through(&self, partition: Partition) -> Option<(LogId, Offset)> {
        if !self.is_ready() {
            return None;
        }
        let progress = self.progress();
        progress.applied.as_ref().map(|(log, position)| (*log, position.get(partition)))
    }

    /// Whether the log was read up to what it held when this began, and changes of that.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Says that the log was read up to what it held when this began.
    pub fn set_ready(&self) {
        let mut progress = self.progress();
        if !std::mem::take(&mut progress.unbegun).is_empty() {
            // There was something that cannot be read any more.
            progress.begun = progress.begun.max(Some(self.0.clock.now()));
        }
        drop(progress);
        self.0.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    /// Forgets everything, and begins with this log at `position`.
    pub fn restart(&self, log: LogId, position: Position) {
        self.0.ready.send_if_modified(|ready| std::mem::replace(ready, false));
        for number in 0..self.0.shards.len() {
            *self.lock(number) = Shard::new(Some(log), &self.0.options);
        }
        let unbegun = position.iter().filter(|(_, offset)| *offset > 0).map(|(p, _)| p).collect();
        *self.progress() = Progress { applied: Some((log, position)), unbegun, begun: None };
    }

    /// Takes in events that were read from the log, in order and without duplicates, up to
    /// `position`. Those that lie before what is applied are passed over.
    pub fn apply<'a>(&self, records: impl Iterator<Item = &'a Record>, position: &Position) {
        let mut progress = self.progress();
        let Some((log, mut applied)) = progress.applied.clone() else { return };
        let (mut unbegun, mut begun) = (std::mem::take(&mut progress.unbegun), progress.begun);
        drop(progress);
        let now = self.0.clock.now();
        for record in records.filter(|record| record.offset >= applied.get(record.partition)) {
            if let Some(at) = unbegun.iter().position(|&partition| partition == record.partition) {
                unbegun.swap_remove(at);
                begun = begun.max(Some(record.append_time));
            }
            let Some(fact) = Fact::read(record) else { continue };
            let mut shard = self.lock(self.number(&fact.player_id));
            if let Some(request_id) = fact.request_id {
                let event = Written {
                    event_id: fact.event_id,
                    partition: fact.partition,
                    offset: fact.offset,
                    append_time: fact.append_time,
                    accept_time: fact.accept_time,
                    terms: Terms::None,
                };
                let key = Key::new(&self.0.hasher, &fact.player_id, request_id);
                let terms = || fact.payload.as_ref().map_or(Terms::None, Terms::of);
                shard.requests.apply(key, event, terms, now);
            }
            shard.people.apply(&fact);
        }
        for (partition, offset) in position.iter() {
            applied.set(partition, applied.get(partition).max(offset));
        }
        // Only now: who reads it may rely on all that lies before it.
        *self.progress() = Progress { applied: Some((log, applied)), unbegun, begun };
    }

    /// The shard and the key of a request.
    fn key(&self, player_id: &str, request_id: RequestId) -> (usize, Key) {
        (self.number(player_id), Key::new(&self.0.hasher, player_id, request_id.uuid()))
    }

    fn number(&self, player_id: &str) -> usize {
        self.0.hasher.hash_one(player_id) as usize % self.0.shards.len()
    }

    fn lock(&self, number: usize) -> MutexGuard<'_, Shard> {
        self.0.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
