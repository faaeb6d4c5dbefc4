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

mod fact;
mod people;
mod requests;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::registry::Registry;

use crate::clock::Clock;
use crate::event_log::{LogId, Position, Record};

use fact::Fact;
use people::People;
use requests::Requests;

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
    applied: Mutex<Option<(LogId, Position)>>,
}

/// Some of the players.
#[derive(Default)]
struct Shard {
    people: People,
    requests: Requests,
}

impl Players {
    /// Nobody is known yet.
    pub fn build(options: Options, clock: Clock, _registry: &mut Registry) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let (hasher, applied) = (RandomState::new(), Mutex::new(None));
        Self(Arc::new(Shared { options, clock, hasher, shards, applied }))
    }

    /// Where the log has to be read on, and which log it is; nowhere, when nothing is known.
    pub fn applied(&self) -> Option<(LogId, Position)> {
        self.0.applied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets everything, and begins with this log at `position`.
    pub fn restart(&self, log: LogId, position: Position) {
        for shard in &self.0.shards {
            *shard.lock().unwrap_or_else(PoisonError::into_inner) = Shard::default();
        }
        *self.0.applied.lock().unwrap_or_else(PoisonError::into_inner) = Some((log, position));
    }

    /// Takes in events that were read from the log, in order and without duplicates, up to
    /// `position`. Those that lie before what is applied are passed over.
    pub fn apply<'a>(&self, records: impl Iterator<Item = &'a Record>, position: &Position) {
        let Some((log, applied)) = self.applied() else { return };
        for record in records.filter(|record| record.offset >= applied.get(record.partition)) {
            if let Some(fact) = Fact::read(record) {
                let mut shard = self.shard(&fact.player_id);
                shard.requests.apply(&fact, &self.0.options, self.0.clock.now());
                shard.people.apply(&fact);
            }
        }
        let position = (0..applied.len().max(position.len()) as u32)
            .map(|partition| applied.get(partition).max(position.get(partition)))
            .collect();
        *self.0.applied.lock().unwrap_or_else(PoisonError::into_inner) = Some((log, position));
    }

    fn shard(&self, player_id: &str) -> MutexGuard<'_, Shard> {
        let number = self.0.hasher.hash_one(player_id) as usize % self.0.shards.len();
        self.0.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
