//! What players have, and which requests were carried out: derived from the log, in memory.
//!
//! # What it promises
//!
//! * All that is known here is what the log says up to one place ([`Players::applied`]), which
//!   only moves forward. Duplicates are left out.
//! * A question is answered with the place up to which the answer is true, and waits for the
//!   log to be read up to a place that the caller names ([`Players::player`]).
//! * What players have is kept in a snapshot for the next start ([`snapshot`]); what it says is
//!   checked, and the log is read where it does not fit.
//! * The state of a player, and the requests of the same player, change together under one
//!   lock: that of the player's shard.
//!
//! # What it may not know
//!
//! How the log is read, and who asks.

mod ask;
mod fact;
mod guilds;
mod history;
mod keep;
mod names;
mod parts;
mod people;
#[cfg(test)]
mod people_tests;
mod requests;
mod reserved;
#[cfg(test)]
mod size_tests;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::event_log::{LogId, Position, Record, Trimmed};

pub use ask::PlayersError;
pub use keep::SnapshotOptions;

use fact::Fact;
use guilds::Guilds;
use history::History;
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
    /// Where what players have is kept for the next start; nowhere, when none.
    pub snapshot: Option<SnapshotOptions>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            request_max_age: Duration::from_secs(3600),
            request_max_entries: 2_000_000,
            snapshot: None,
        }
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Players(Arc<Shared>);

struct Shared {
    options: Options,
    /// Over how many partitions players are spread, for as long as there is the log.
    key_partitions: u32,
    clock: Clock,
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
    guilds: Arc<Guilds>,
    applied: Mutex<Option<(LogId, Position)>>,
    progress: Mutex<Progress>,
    /// How many calls wait for more to be applied, and what wakes them.
    waiting: AtomicUsize,
    moved: Notify,
    /// What the snapshot holds; the lock of who writes it.
    saved: Mutex<Option<(LogId, Position)>>,
    metrics: Metrics,
}

/// What is known of what is known.
#[derive(Default)]
struct Progress {
    /// How often everything was forgotten.
    begun: u64,
    /// Where the log ended then: who asks before all that is applied is told to wait.
    end: Position,
    history: History,
}

/// Some of the players.
struct Shard {
    people: People,
    requests: Requests,
}

impl Shard {
    fn new(guilds: &Arc<Guilds>, metrics: &Metrics) -> Self {
        let people = People::new(Arc::clone(guilds), metrics.known.clone());
        Self { people, requests: Requests::default() }
    }
}

#[derive(Clone, Default)]
struct Metrics {
    known: Gauge,
    snapshot_failures: Counter,
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("players");
        r.register("known", "Players of whom there is an event", self.known.clone());
        r.register(
            "snapshot_failures",
            "Snapshots that could not be written",
            self.snapshot_failures.clone(),
        );
    }
}

impl Players {
    /// Nobody is known yet. `key_partitions` is the log's.
    pub fn build(
        options: Options,
        key_partitions: u32,
        clock: Clock,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::default();
        metrics.register(registry);
        let guilds = Arc::new(Guilds::new());
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new(&guilds, &metrics))).collect();
        Self(Arc::new(Shared {
            options,
            key_partitions,
            clock,
            hasher: RandomState::new(),
            shards,
            guilds,
            applied: Mutex::default(),
            progress: Mutex::default(),
            waiting: AtomicUsize::new(0),
            moved: Notify::new(),
            saved: Mutex::default(),
            metrics,
        }))
    }

    /// Where the log has to be read on, and which log it is; nowhere, when nothing is known.
    pub fn applied(&self) -> Option<(LogId, Position)> {
        self.0.applied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets everything, and begins with this log at `position`; [`Players::begin_at`] takes
    /// in the snapshot too.
    pub fn restart(&self, log: LogId, position: Position) {
        self.forget(History::from(&position));
        self.begin(log, position, Position::default());
    }

    /// Takes in events that were read from the log, in order and without duplicates, up to
    /// `position`. Those that lie before what is applied are passed over.
    pub fn apply<'a>(&self, records: impl Iterator<Item = &'a Record>, position: &Position) {
        let Some((log, applied)) = self.applied() else { return };
        let history_is_open = self.progress().history.is_open();
        for record in records.filter(|record| record.offset >= applied.get(record.partition)) {
            if history_is_open {
                self.progress().history.note(record);
            }
            if let Some(fact) = Fact::read(record) {
                let mut shard = self.shard(&fact.player_id);
                shard.requests.apply(&fact, &self.0.options, self.0.clock.now());
                shard.people.apply(&fact);
            }
        }
        let position = (0..applied.len().max(position.len()) as u32)
            .map(|partition| applied.get(partition).max(position.get(partition)))
            .collect();
        self.set_applied(log, position);
    }

    /// Notes what retention has removed before it was read.
    pub fn missed(&self, trimmed: &[Trimmed]) {
        for trimmed in trimmed {
            self.progress().history.interrupt(trimmed.partition);
        }
    }

    fn set_applied(&self, log: LogId, position: Position) {
        *self.0.applied.lock().unwrap_or_else(PoisonError::into_inner) = Some((log, position));
        // Who waits is counted before it looks at what is applied, under that lock: one that
        // has looked too early is counted by now.
        if self.0.waiting.load(Ordering::Relaxed) > 0 {
            self.0.moved.notify_waiters();
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, player_id: &str) -> MutexGuard<'_, Shard> {
        let number = self.0.hasher.hash_one(player_id) as usize % self.0.shards.len();
        self.0.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
