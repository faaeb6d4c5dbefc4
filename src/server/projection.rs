//! Keeps the players in step with the log: from where they are known on by reading it, then by
//! following the feed's tail.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::event_log::{EventLog, LogId, Position, ReadError, ReadLimits};
use crate::feed::{Feed, Follow};
use crate::history::Reader;
use crate::players::Players;

/// How much is read from the log at once. What is read at once holds up the tail, which shares
/// the thread: for about a millisecond.
const READ_LIMITS: ReadLimits = ReadLimits { records: 1000, bytes: 1 << 20 };

/// The pauses between attempts to read a log that cannot be read: doubling from the first up to
/// the second.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long reading takes before it is told how far it is, and how often that is told.
const TOLD_AFTER: Duration = Duration::from_secs(2);
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Projection {
    log: Arc<dyn EventLog>,
    feed: Feed,
    players: Players,
    stopping: watch::Receiver<bool>,
}

/// The way to where the players are ready.
struct Way {
    log: LogId,
    from: Position,
    goal: Position,
    begun: Instant,
    told: Instant,
}

impl Projection {
    pub fn new(
        log: Arc<dyn EventLog>,
        feed: Feed,
        players: Players,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { log, feed, players, stopping }
    }

    /// Keeps up for as long as it is polled.
    pub async fn run(self) {
        let mut pause = RETRY_PAUSES.0;
        let mut told = None;
        let mut way = None;
        loop {
            let before = self.players.applied();
            let error = self.keep_up(&mut way).await;
            if *self.stopping.borrow() {
                // The log goes before this does; that it cannot be read then is no news.
                return std::future::pending().await;
            }
            if self.players.applied() != before {
                pause = RETRY_PAUSES.0;
                told = None;
            }
            match &error {
                ReadError::Replaced => continue,
                // One that stays the same is said once.
                error if told.as_ref() == Some(error) => {
                    tracing::debug!(%error, "the players still cannot be read from the log");
                }
                error => {
                    tracing::warn!(%error, "the players cannot be read from the log; trying again");
                    told = Some(error.clone());
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSES.1);
        }
    }

    /// Reads and follows until that fails.
    async fn keep_up(&self, way: &mut Option<Way>) -> ReadError {
        let log = match self.begin(way).await {
            Ok(log) => log,
            Err(error) => return error,
        };
        let mut live = self.feed.live();
        let mut reader = None;
        loop {
            let Some(position) = self.arrived(log, way) else { return ReadError::Replaced };
            let follow = self.feed.follow(log, &position);
            if let Follow::At(mut follower) = follow {
                reader = None;
                while let Some(batch) = follower.next().await {
                    self.players.missed(batch.trimmed());
                    self.players.apply(batch.events(), batch.position());
                    if way.is_some() {
                        self.arrived(log, way);
                    }
                }
                continue;
            }
            // The tail may not have noticed yet that there is another log, or this may be it.
            if matches!(follow, Follow::Replaced) {
                match self.log.bounds().await {
                    Ok(bounds) if bounds.log == log => {}
                    Ok(_) => return ReadError::Replaced,
                    Err(error) => return error,
                }
            }
            let reader = match &mut reader {
                Some(reader) => reader,
                None => match Reader::open(Arc::clone(&self.log), log, position).await {
                    Ok(opened) => reader.insert(opened),
                    Err(error) => return error,
                },
            };
            tokio::select! {
                read = reader.next(READ_LIMITS) => match read {
                    Ok(read) => {
                        self.players.missed(&read.trimmed);
                        self.players.apply(read.events(), &read.position);
                    }
                    Err(error) => return error,
                },
                // The ring has begun: perhaps there is nothing to read before it.
                Ok(()) = live.changed() => {}
            }
            // What is at hand is read without waiting, and others wait for this thread.
            tokio::task::yield_now().await;
        }
    }

    /// Which log it is. Players of another one are forgotten.
    async fn begin(&self, way: &mut Option<Way>) -> Result<LogId, ReadError> {
        let bounds = self.log.bounds().await?;
        let is_this = |log: LogId| log == bounds.log;
        if !self.players.applied().is_some_and(|(log, _)| is_this(log)) {
            let horizon = self.log.position_at(bounds.log, self.players.horizon_at_most()).await?;
            self.players.begin_at(&bounds, &horizon).await;
        }
        let is_ready = *self.players.ready().borrow();
        if !is_ready && !way.as_ref().is_some_and(|way| is_this(way.log)) {
            let from = self.players.applied().map_or_else(Position::default, |(_, from)| from);
            let now = Instant::now();
            *way = Some(Way { log: bounds.log, from, goal: bounds.end, begun: now, told: now });
        }
        Ok(bounds.log)
    }

    /// How far the players are known, unless they are of another log; looks whether that is far
    /// enough.
    fn arrived(&self, log: LogId, way: &mut Option<Way>) -> Option<Position> {
        let (_, position) = self.players.applied().filter(|(of, _)| *of == log)?;
        if let Some(done) = way.take_if(|way| position.covers(&way.goal)) {
            done.tell_the_end();
            self.players.set_ready();
        } else if let Some(way) = way {
            way.tell(&position);
        }
        Some(position)
    }
}

impl Way {
    fn tell(&mut self, position: &Position) {
        let taken = self.begun.elapsed();
        let is_due = self.told == self.begun || self.told.elapsed() >= TOLD_EVERY;
        if taken >= TOLD_AFTER && is_due {
            self.told = Instant::now();
            let (records, of) =
                (self.from.distance_to(position), self.from.distance_to(&self.goal));
            let per_second = (records as f64 / taken.as_secs_f64()) as u64;
            tracing::info!(records, of, per_second, "reading the players from the log");
        }
    }

    fn tell_the_end(&self) {
        let taken = self.begun.elapsed();
        if taken >= TOLD_AFTER {
            let records = self.from.distance_to(&self.goal);
            let seconds = taken.as_secs_f64();
            tracing::info!(records, seconds, "the players are read from the log");
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use prost::Message as _;

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::event_log::memory::MemoryLog;
    use crate::tasks::{Death, Tasks};
    use crate::{feed, players, proto};

    struct Fixture {
        log: Arc<MemoryLog>,
        feed: Feed,
        players: Players,
        ready: watch::Receiver<bool>,
        tasks: Tasks,
    }

    impl Fixture {
        /// With so many events before the start; nothing runs yet but what keeps up.
        fn new(events: u64) -> Self {
            let log = MemoryLog::new(1);
            let as_log = Arc::clone(&log) as Arc<dyn EventLog>;
            let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
            let mut registry = Registry::default();
            let options = feed::Options { ring_bytes: 1, ..feed::Options::default() };
            let feed = Feed::build(Arc::clone(&as_log), options, clock.clone(), &mut registry);
            let players = Players::build(players::Options::default(), 1, clock, &mut registry);
            let stopping = watch::Sender::new(false).subscribe();
            let projection = Projection::new(as_log, feed.clone(), players.clone(), stopping);
            let (ready, tasks) = (players.ready(), Tasks::new());
            let this = Self { log, feed, players, ready, tasks };
            this.push(events);
            this.tasks.spawn("players", Death::Fatal, projection.run());
            this
        }

        fn push(&self, events: u64) {
            for _ in 0..events {
                let event = proto::GameEvent {
                    event_id: uuid::Uuid::new_v4().to_string(),
                    event_type: "session_started".into(),
                    player_id: "alice".into(),
                    ..Default::default()
                };
                self.log.push(0, event.encode_to_vec());
            }
        }

        fn start_tail(&self) {
            let feed = self.feed.clone();
            self.tasks.spawn("tail", Death::Fatal, async move { feed.run_tail().await });
        }

        async fn is_ready(&mut self) {
            self.ready.wait_for(|ready| *ready).await.unwrap();
        }

        /// Returns once the players are known up to the end of the log.
        async fn applied_all(&self) {
            let bounds = self.log.bounds().await.unwrap();
            let is_there = |(log, at): (_, Position)| log == bounds.log && at.covers(&bounds.end);
            while !self.players.applied().is_some_and(is_there) {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn players_are_ready_once_they_are_known_up_to_the_end_and_keep_up_from_there() {
        let mut fixture = Fixture::new(3000);
        assert!(!*fixture.ready.borrow());
        fixture.is_ready().await;
        assert_eq!(fixture.players.applied().unwrap().1.get(0), 3000);
        fixture.start_tail();
        fixture.push(10);
        fixture.applied_all().await;
        // One that is too slow reads what has left the ring.
        for _ in 0..5 {
            fixture.push(1000);
            tokio::task::yield_now().await;
        }
        fixture.applied_all().await;
        fixture.tasks.stop();
    }

    #[tokio::test]
    async fn an_empty_log_is_known_at_once() {
        let mut fixture = Fixture::new(0);
        fixture.is_ready().await;
        fixture.start_tail();
        fixture.push(1);
        fixture.applied_all().await;
    }

    #[tokio::test]
    async fn players_of_a_log_that_was_replaced_are_forgotten() {
        for has_tail in [false, true] {
            let mut fixture = Fixture::new(10);
            if has_tail {
                fixture.start_tail();
            }
            fixture.is_ready().await;
            fixture.applied_all().await;
            let before = fixture.players.applied().unwrap().0;
            fixture.log.replace();
            fixture.push(2);
            fixture.applied_all().await;
            fixture.is_ready().await;
            let (log, position) = fixture.players.applied().unwrap();
            assert_ne!(log, before);
            assert_eq!(position.get(0), 2);
        }
    }
}
