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
mod claims;
mod fact;
mod guilds;
mod history;
mod keep;
mod key;
mod names;
mod parts;
mod people;
#[cfg(test)]
mod people_tests;
mod purchases;
mod requests;
#[cfg(test)]
mod requests_tests;
mod reserved;
#[cfg(test)]
mod size_tests;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;

use std::hash::RandomState;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};

use crate::clock::{Clock, Timestamp};
use crate::domain::Terms;
use crate::event_log::{LogId, Offset, Partition, Position, Record, Trimmed};

pub use ask::{PlayersError, field_rule};
pub use claims::{Claimed, Known, Outcome, Receipt, Ticket};
pub use keep::SnapshotOptions;

use fact::Fact;
use guilds::Guilds;
use history::History;
use key::{PlayerHash, PlayerKey};
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
    applied: ArcSwapOption<Applied>,
    progress: Mutex<Progress>,
    remembered: Mutex<Remembered>,
    /// For who waits for [`Applied::is_ready`].
    ready: watch::Sender<bool>,
    /// How many calls wait for more to be applied, and what wakes them.
    waiting: AtomicUsize,
    moved: Notify,
    /// What the snapshot holds; the lock of who writes it.
    saved: Mutex<Option<(LogId, Position)>>,
    metrics: Metrics,
}

/// Up to where the log was taken in. Changed by one thread, and looked at by all at each call,
/// which therefore lock nothing.
struct Applied {
    log: LogId,
    position: Position,
    /// Whether the log was read up to what it held when this began.
    is_ready: bool,
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

/// Which requests are known, beside what the shards have forgotten.
#[derive(Default)]
struct Remembered {
    /// Partitions that were not read from where requests are remembered, or of which some was
    /// removed before it was read, and of which nothing was read since.
    unbegun: Vec<Partition>,
    /// From when on all requests are known that were written to the others.
    since: Option<Timestamp>,
}

/// Some of the players.
struct Shard {
    /// None when nothing is known.
    log: Option<LogId>,
    people: People,
    requests: Requests,
}

impl Shard {
    fn new(
        options: &Options,
        guilds: &Arc<Guilds>,
        metrics: &Metrics,
        hasher: &RandomState,
    ) -> Self {
        let limits = Limits {
            max_age: options.request_max_age,
            max_entries: options.request_max_entries.div_ceil(SHARDS),
        };
        let people = People::new(Arc::clone(guilds), metrics.known.clone(), hasher.clone());
        Self { log: None, people, requests: Requests::new(limits) }
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
        let hasher = RandomState::new();
        let shard = |_| Mutex::new(Shard::new(&options, &guilds, &metrics, &hasher));
        let shards = (0..SHARDS).map(shard).collect();
        let players = Self(Arc::new(Shared {
            options,
            key_partitions,
            clock,
            hasher,
            shards,
            guilds,
            applied: ArcSwapOption::empty(),
            progress: Mutex::default(),
            remembered: Mutex::default(),
            ready: watch::Sender::new(false),
            waiting: AtomicUsize::new(0),
            moved: Notify::new(),
            saved: Mutex::default(),
            metrics,
        }));
        registry.register_collector(Box::new(claims::Gauges(players.clone())));
        players
    }

    /// Where the log has to be read on, and which log it is; nowhere, when nothing is known.
    pub fn applied(&self) -> Option<(LogId, Position)> {
        let applied = self.0.applied.load();
        applied.as_ref().map(|applied| (applied.log, applied.position.clone()))
    }

    /// Up to where a partition is known, and of which log, once that was read; all that is
    /// before it has been taken in.
    pub fn checked_through(&self, partition: Partition) -> Option<(LogId, Offset)> {
        let applied = self.0.applied.load();
        let applied = applied.as_ref().filter(|applied| applied.is_ready)?;
        Some((applied.log, applied.position.get(partition)))
    }

    /// Whether the log was read up to what it held when this began, and changes of that.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    fn is_ready(&self) -> bool {
        self.0.applied.load().as_ref().is_some_and(|applied| applied.is_ready)
    }

    /// Says that the log was read up to what it held when this began.
    pub fn set_ready(&self) {
        let mut remembered = self.remembered();
        if !std::mem::take(&mut remembered.unbegun).is_empty() {
            // There was something that cannot be read any more.
            remembered.since = remembered.since.max(Some(self.0.clock.now()));
        }
        drop(remembered);
        if let Some((log, position)) = self.applied() {
            self.set_applied(Applied { log, position, is_ready: true });
        }
        self.0.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    /// Forgets everything, and begins with this log at `position`; [`Players::begin_at`] takes
    /// in the snapshot too.
    pub fn restart(&self, log: LogId, position: Position) {
        self.forget(History::from(&position));
        let unbegun = position.iter().filter(|(_, offset)| *offset > 0).map(|(p, _)| p).collect();
        self.begin(log, position, Position::default(), unbegun);
    }

    /// Takes in events that were read from the log, in order and without duplicates, up to
    /// `position`. Those that lie before what is applied are passed over.
    pub fn apply<'a>(&self, records: impl Iterator<Item = &'a Record>, position: &Position) {
        let Some((log, mut applied)) = self.applied() else { return };
        let history_is_open = self.progress().history.is_open();
        let mut unbegun = self.remembered().unbegun.clone();
        let mut facts = Vec::new();
        for record in records.filter(|record| record.offset >= applied.get(record.partition)) {
            if history_is_open {
                self.progress().history.note(record);
            }
            if let Some(at) = unbegun.iter().position(|&partition| partition == record.partition) {
                unbegun.swap_remove(at);
                let mut remembered = self.remembered();
                remembered.unbegun.clone_from(&unbegun);
                remembered.since = remembered.since.max(Some(record.append_time));
            }
            let fact = Fact::read(record);
            facts.extend(fact.map(|fact| (self.key(fact.player_id).hash, fact)));
        }
        self.take_in(&facts);
        applied.advance_to(position);
        // Only now: who reads it may rely on all that lies before it.
        self.set_applied(Applied { log, position: applied, is_ready: self.is_ready() });
    }

    /// Takes in events shard by shard, so that a lock, and what it protects, is fetched from the
    /// other threads once for all of them. Those of a player keep their order.
    fn take_in(&self, facts: &[(PlayerHash, Fact<'_>)]) {
        let now = self.0.clock.now();
        let mut order: Vec<_> = facts.iter().collect();
        order.sort_by_key(|(player, _)| player.shard());
        for facts in order.chunk_by(|(one, _), (next, _)| one.shard() == next.shard()) {
            let mut shard = self.lock(facts[0].0.shard());
            for &(player, fact) in facts {
                if let Some(request_id) = fact.request_id {
                    let event = Written {
                        event_id: fact.event_id,
                        partition: fact.partition,
                        offset: fact.offset,
                        append_time: fact.append_time,
                        accept_time: fact.accept_time,
                        terms: Terms::None,
                    };
                    let key = Key::new(&self.0.hasher, *player, request_id);
                    let terms = || fact.payload.as_ref().map_or(Terms::None, Terms::of);
                    shard.requests.apply(key, event, terms, now);
                }
                shard.people.apply(*player, fact);
            }
        }
    }

    /// Notes what retention has removed before it was read: what players had there, and which
    /// requests were carried out.
    pub fn missed(&self, trimmed: &[Trimmed]) {
        for &Trimmed { partition, .. } in trimmed {
            self.progress().history.interrupt(partition);
            let mut remembered = self.remembered();
            if !remembered.unbegun.contains(&partition) {
                remembered.unbegun.push(partition);
            }
        }
    }

    fn set_applied(&self, applied: Applied) {
        self.0.applied.store(Some(Arc::new(applied)));
        // Who waits is counted before it looks at what is applied: either it sees this, or it
        // is counted by now.
        fence(Ordering::SeqCst);
        if self.0.waiting.load(Ordering::Relaxed) > 0 {
            self.0.moved.notify_waiters();
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By what a player is found.
    fn key<'a>(&self, player_id: &'a str) -> PlayerKey<'a> {
        PlayerKey::new(&self.0.hasher, player_id)
    }

    fn lock(&self, number: usize) -> MutexGuard<'_, Shard> {
        self.0.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
