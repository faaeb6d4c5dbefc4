//! One round: so many calls in flight, for so long.
//!
//! Each place in flight is a task that makes one call after the other. All of it
//! runs on one thread, so that the load stays small beside the server.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Uri};
use indicatif::ProgressBar;
use tokio::time::{Instant, sleep, timeout};

use super::machine::cpu_time;
use super::payload::{Call, PATH, Payload};
use super::tally::{Receipts, Round, Tally};
use super::wire;
use crate::tasks::{Death, Tasks};

/// A round ends when nothing was answered for so long: the server hangs.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(100);

/// How long calls may take to fail once their connections were cut.
const CUT_LIMIT: Duration = Duration::from_secs(5);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it is.
    pub server: Uri,
    /// Its process, where that is known.
    pub pid: Option<u32>,
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Load {
    /// Over how many connections.
    pub connections: usize,
    /// How many calls at once, over all connections.
    pub in_flight: usize,
    /// By how many players.
    pub players: u64,
    /// Whether a player's call waits for the one before it.
    pub ordered: bool,
    /// Whether the round goes on after a failure.
    pub tolerate_errors: bool,
    /// What is bought.
    pub item: String,
    /// For how long.
    pub length: Length,
}

/// How long a round is.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// The clock runs for `measured` after `warmup`.
    Time {
        /// Not measured.
        warmup: Duration,
        /// Measured.
        measured: Duration,
    },
    /// Exactly so many calls, all of them measured.
    Calls(u64),
}

/// What all places in flight share.
struct Shared {
    load: Load,
    payload: Payload,
    head: Request<()>,
    places: u64,
    next: AtomicU64,
    stop: AtomicBool,
    tally: Mutex<Tally>,
    receipts: Option<Arc<Mutex<Receipts>>>,
}

/// Runs one round against `target`.
pub async fn run(
    target: &Target,
    load: &Load,
    receipts: Option<Arc<Mutex<Receipts>>>,
    bar: &ProgressBar,
) -> anyhow::Result<Round> {
    let drivers = Tasks::new();
    let result = run_over(&drivers, target, load, receipts, bar).await;
    // Cuts the connections, also after an error.
    drivers.stop();
    drivers.ended().await;
    result
}

async fn run_over(
    drivers: &Tasks,
    target: &Target,
    load: &Load,
    receipts: Option<Arc<Mutex<Receipts>>>,
    bar: &ProgressBar,
) -> anyhow::Result<Round> {
    let mut places = load.in_flight.max(1);
    if load.ordered {
        // A player has one call in flight at the most.
        places = places.min(usize::try_from(load.players).unwrap_or(usize::MAX));
    }
    let mut connections = Vec::new();
    for _ in 0..load.connections.clamp(1, places) {
        connections.push(wire::connect(&target.server, wire::STREAM_WINDOW_BYTES, drivers).await?);
    }
    let shared = Arc::new(Shared {
        load: load.clone(),
        payload: Payload::new(&load.item),
        head: wire::head(&target.server, PATH)?,
        places: u64::try_from(places).unwrap_or(u64::MAX),
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        tally: Mutex::new(Tally::new()?),
        receipts,
    });
    let cpu = || target.pid.map(cpu_time).transpose();
    let calls = Tasks::new();
    let start_calls = || {
        for (place, connection) in (0..places).zip(connections.iter().cycle()) {
            let place = Place::new(&shared, place, connection.clone());
            calls.spawn("bench calls", Death::Expected, place.run());
        }
        // Only so that the end of all of them can be awaited.
        calls.stop();
    };

    if let Length::Time { warmup, .. } = load.length {
        start_calls();
        shared.watch(&calls, Until::Time(warmup), bar, "warming up").await;
    }
    let cpu_before = cpu()?;
    lock(&shared.tally).start();
    let started = Instant::now();
    match load.length {
        Length::Time { measured, .. } => {
            shared.watch(&calls, Until::Time(measured), bar, "measuring").await;
        }
        Length::Calls(_) => {
            start_calls();
            shared.watch(&calls, Until::Calls, bar, "measuring").await;
        }
    }
    let measured = lock(&shared.tally).stop();
    let time = started.elapsed();
    // A server that has died by now is reported by the calls it failed.
    let cpu_used = match (cpu_before, cpu().ok().flatten()) {
        (Some(before), Some(after)) => Some(after.saturating_sub(before)),
        _ => None,
    };

    shared.stop.store(true, Ordering::Relaxed);
    shared.watch(&calls, Until::Ended, bar, "waiting for the last answers").await;
    drivers.stop();
    timeout(CUT_LIMIT, calls.ended()).await.context("calls that do not end")?;
    if let Some(receipts) = &shared.receipts {
        lock(receipts).finish()?;
    }
    let tally = lock(&shared.tally);
    Ok(Round::new(&tally, measured, time, cpu_used))
}

/// What a round waits for.
#[derive(Clone, Copy)]
enum Until {
    /// This time to be over.
    Time(Duration),
    /// All the calls that were asked for.
    Calls,
    /// The calls that are under way.
    Ended,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Shared {
    /// Shows the progress until the time is over, all calls have ended, or nothing
    /// was answered for too long.
    async fn watch(&self, calls: &Tasks, until: Until, bar: &ProgressBar, what: &'static str) {
        let started = Instant::now();
        let before = lock(&self.tally).over();
        let time = match until {
            Until::Time(time) => Some(time),
            Until::Calls | Until::Ended => None,
        };
        if let Some(time) = time {
            bar.set_length(millis(time));
        }
        let mut newest = (0, started);
        let mut ended = pin!(calls.ended());
        while time.is_none_or(|time| started.elapsed() < time) {
            let left = time.map_or(TICK, |time| time.saturating_sub(started.elapsed()));
            tokio::select! {
                () = sleep(left.min(TICK)) => {}
                () = &mut ended => return,
            }
            let over = lock(&self.tally).over();
            match until {
                Until::Time(_) => bar.set_position(millis(started.elapsed())),
                Until::Calls => bar.set_position(over),
                Until::Ended => {}
            }
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            let rate = (over - before) as f64 / started.elapsed().as_secs_f64().max(0.001);
            bar.set_message(format!("{what}, {over} calls, {rate:.0}/s"));
            if over != newest.0 {
                newest = (over, Instant::now());
            } else if newest.1.elapsed() > SILENCE_LIMIT {
                let silent = || format!("nothing was answered for {SILENCE_LIMIT:?}");
                lock(&self.tally).first_failure.get_or_insert_with(silent);
                return;
            }
        }
    }
}

/// A place in flight.
struct Place {
    shared: Arc<Shared>,
    connection: SendRequest<Bytes>,
    /// Which one it is.
    index: u64,
    /// How many calls it has made.
    made: u64,
}

impl Place {
    fn new(shared: &Arc<Shared>, index: usize, connection: SendRequest<Bytes>) -> Self {
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        Self { shared: Arc::clone(shared), connection, index, made: 0 }
    }

    async fn run(mut self) {
        while let Some(call) = self.next_call() {
            let shared = Arc::clone(&self.shared);
            let frame = shared.payload.frame(call);
            let sent = std::time::Instant::now();
            match wire::call(&mut self.connection, shared.head.clone(), frame).await {
                Ok(answer) => {
                    lock(&shared.tally).acknowledge(sent);
                    if let Some(receipts) = &shared.receipts {
                        lock(receipts).add(&shared.payload, call, answer);
                    }
                }
                Err(failure) => {
                    let broken = matches!(failure, wire::Failure::Broken(_));
                    lock(&shared.tally).fail(failure);
                    if !shared.load.tolerate_errors {
                        shared.stop.store(true, Ordering::Relaxed);
                    }
                    if broken {
                        return;
                    }
                }
            }
        }
    }

    fn next_call(&mut self) -> Option<Call> {
        if self.shared.stop.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        if matches!(self.shared.load.length, Length::Calls(calls) if number >= calls) {
            return None;
        }
        let players = self.shared.load.players;
        let (player, sequence) = if self.shared.load.ordered {
            deal(self.index, self.shared.places, players, self.made)
        } else {
            (number % players, number / players + 1)
        };
        self.made += 1;
        Some(Call { number, player, sequence })
    }
}

/// The player and the sequence number of call `made` (from 0) of a place that has
/// players `index`, `index + places`, ... to itself.
fn deal(index: u64, places: u64, players: u64, made: u64) -> (u64, u64) {
    let own = (players - index).div_ceil(places);
    (index + made % own * places, made / own + 1)
}

/// A panic in a task is a bug that ends the round; the numbers are still whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn each_player_belongs_to_one_place_and_counts_from_one() {
        for (places, players) in [(1, 1), (3, 10), (4, 4), (7, 8)] {
            let mut owners = BTreeMap::new();
            for index in 0..places {
                let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
                for made in 0..100 {
                    let (player, sequence) = deal(index, places, players, made);
                    let before = seen.insert(player, sequence).unwrap_or(0);
                    assert_eq!(sequence, before + 1);
                    assert_eq!(*owners.entry(player).or_insert(index), index);
                }
            }
            assert!(owners.keys().copied().eq(0..players), "{owners:?}");
        }
    }
}
