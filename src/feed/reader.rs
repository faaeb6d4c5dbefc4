//! One subscriber: a state machine that is polled for its next message.
//!
//! ```text
//! Opening ─► CatchingUp ◄─► Live ─► Closed
//! ```
//!
//! Catching up asks for pages of the log; live reads the ring. Both deliver from the reader's
//! own position, record by record, so that the hand-over between them can neither
//! leave out nor repeat anything: whatever lies before the position is passed over.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::catch_up::Caught;
use super::cursor::Cursor;
use super::filter::Filter;
use super::hub::{Batch, FeedEvent, Found, Join};
use super::{Feed, FeedError, Place, invariants, partition_offsets, proto_offset, proto_partition};
use crate::clock::Timestamp;
use crate::event_log::{LogId, Position, ReadError, ReadLimits, Record, Trimmed};
use crate::proto::{self, stream_events_response::Response};

/// The most events in one message.
pub const MAX_BATCH_EVENTS: usize = 250;

/// The most bytes of records in one message, unless a single one is larger. A subscriber
/// that does not read keeps one such message waiting, so this bounds what it costs: 64 KiB
/// of records, about as much again once they are decoded, and the send buffer.
pub const MAX_BATCH_BYTES: usize = 64 * 1024;

/// How much is read from the log at once. What is read at once fits into one message.
pub(super) const READ_LIMITS: ReadLimits =
    ReadLimits { records: MAX_BATCH_EVENTS, bytes: MAX_BATCH_BYTES };

/// How long clients are asked to wait before they come back after a shutdown: the
/// least, and how much at most is added at random.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);
const RECONNECT_SPREAD: Duration = Duration::from_secs(4);

/// What a reader is made of.
pub(super) struct Setup {
    pub feed: Feed,
    pub _place: Place,
    pub published: watch::Receiver<()>,
    pub log: LogId,
    pub start: Position,
    /// What lies behind the start and is not delivered.
    pub skipped: Vec<Skipped>,
    pub time: Timestamp,
    pub end: Position,
    pub filter: Filter,
    pub heartbeat: Duration,
    pub max_events: Option<u64>,
    pub stop_when_caught_up: bool,
    pub include_origin: bool,
    pub max_age: Option<Duration>,
}

/// What a subscriber asked to go on without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skipped {
    pub reason: proto::GapReason,
    pub missed: Trimmed,
}

/// A subscriber's stream of messages.
pub struct Reader {
    setup: Setup,
    state: State,
    /// Everything before it was delivered or passed over.
    position: Position,
    /// The append time of the newest record before the position.
    time: Timestamp,
    /// The end of the log that has not been reached yet.
    target: Option<Position>,
    /// Messages that are due, each with the cursor behind it. Filled by one step at a time,
    /// and so bounded by what one step reads.
    due: VecDeque<(String, Response)>,
    delivered: u64,
    last_message: Instant,
    /// When it is closed for its age.
    closes_at: Option<Instant>,
}

enum State {
    Opening,
    /// Reads the log; what it was asked for, if it was.
    CatchingUp(Option<oneshot::Receiver<Result<Caught, ReadError>>>),
    /// Reads the ring; the number of the next batch.
    Live(u64),
    Closed,
}

impl Reader {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            state: State::Opening,
            position: setup.start.clone(),
            time: setup.time,
            target: Some(setup.end.clone()),
            due: VecDeque::new(),
            delivered: 0,
            last_message: Instant::now(),
            closes_at: setup.max_age.map(|age| Instant::now() + spread_age(age)),
            setup,
        }
    }

    /// Waits for the next message; `None` when the stream has done what was asked or
    /// was closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<proto::StreamEventsResponse, FeedError>> {
        loop {
            if let Some((cursor, response)) = self.due.pop_front() {
                self.last_message = Instant::now();
                return Some(Ok(proto::StreamEventsResponse { cursor, response: Some(response) }));
            }
            if self.is_done() {
                return None;
            }
            if !matches!(self.state, State::Closed)
                && let Some(reason) = self.reason_to_close()
            {
                self.close(reason);
                continue;
            }
            let step = match self.state {
                State::Closed => return None,
                State::Opening => {
                    self.open();
                    Ok(())
                }
                State::CatchingUp(_) => self.catch_up().await,
                State::Live(next) => self.follow(next).await,
            };
            if let Err(error) = step {
                self.state = State::Closed;
                return Some(Err(error));
            }
            if let Some(target) = self.target.take_if(|target| self.position.covers(target)) {
                let end_offsets = partition_offsets(&target);
                self.say(Response::CaughtUp(proto::CaughtUp { end_offsets }));
            }
            if self.due.is_empty() && Instant::now() >= self.next_heartbeat() {
                self.heartbeat();
            }
        }
    }

    /// Whether as many events as were asked for have been delivered.
    fn has_enough(&self) -> bool {
        self.setup.max_events.is_some_and(|max| self.delivered >= max)
    }

    /// Whether everything that was asked for has been delivered.
    fn is_done(&self) -> bool {
        self.has_enough() || (self.setup.stop_when_caught_up && self.target.is_none())
    }

    /// Whether it has come to the end that the log had when it was opened, or had when it
    /// fell behind, and has said all that lies before it.
    pub(super) fn is_caught_up(&self) -> bool {
        let is_said = |(_, due): &(String, Response)| matches!(due, Response::CaughtUp(_));
        self.target.is_none() && self.due.iter().all(is_said)
    }

    /// The cursor behind everything that was delivered or passed over.
    pub(super) fn cursor(&self) -> String {
        Cursor::of(self.setup.log, &self.position, self.time)
    }

    fn reason_to_close(&self) -> Option<proto::ClosingReason> {
        if self.setup.feed.shared.closing.is_cancelled() {
            Some(proto::ClosingReason::Shutdown)
        } else if self.closes_at.is_some_and(|at| Instant::now() >= at) {
            Some(proto::ClosingReason::MaxAge)
        } else {
            None
        }
    }

    fn open(&mut self) {
        let skipped = std::mem::take(&mut self.setup.skipped);
        let mut start = self.position.clone();
        for Skipped { missed, .. } in &skipped {
            start.set(missed.partition, missed.to);
        }
        let start_offsets = partition_offsets(&start);
        self.say(Response::Opened(proto::Opened { start_offsets }));
        for Skipped { reason, missed } in skipped {
            self.skip(reason, missed);
        }
        self.state = State::CatchingUp(None);
    }

    /// One step of catching up.
    async fn catch_up(&mut self) -> Result<(), FeedError> {
        let shared = Arc::clone(&self.setup.feed.shared);
        match shared.hub.join(self.setup.log, &self.position) {
            Join::At(next) => {
                self.state = State::Live(next);
                return Ok(());
            }
            // Which of the two is the older one, only the log can tell: a stream may be opened
            // before the tail has noticed that there is another.
            Join::Replaced if shared.log.bounds().await?.log != self.setup.log => {
                return Err(ReadError::Replaced.into());
            }
            Join::Replaced | Join::Behind => {}
        }
        let next_look = self.next_look();
        let State::CatchingUp(asked) = &mut self.state else { return Ok(()) };
        let ask = || shared.catch_up.ask(self.setup.log, &self.position);
        let caught = tokio::select! {
            biased;
            caught = asked.get_or_insert_with(ask) => caught,
            () = shared.closing.cancelled() => return Ok(()),
            () = tokio::time::sleep_until(next_look) => return Ok(()),
        };
        *asked = None;
        // That nobody answers cannot happen: who is asked goes when the feed does.
        if let Caught::Page(page) = caught.unwrap_or(Ok(Caught::Look))? {
            let mut events = Vec::new();
            self.deliver(&page, &mut events);
            self.flush(&mut events);
        }
        Ok(())
    }

    /// One step of following the ring.
    async fn follow(&mut self, next: u64) -> Result<(), FeedError> {
        let shared = Arc::clone(&self.setup.feed.shared);
        self.setup.published.mark_unchanged();
        match shared.hub.find(next, READ_LIMITS) {
            Found::Batches(batches, next) => {
                self.state = State::Live(next);
                let mut events = Vec::new();
                for batch in batches {
                    self.deliver(&batch, &mut events);
                }
                self.flush(&mut events);
            }
            Found::Gone => {
                let end = shared.hub.end();
                if end.log != Some(self.setup.log) {
                    return Err(ReadError::Replaced.into());
                }
                // A log that has lost its end would otherwise go on at another place.
                let bounds = shared.log.bounds().await?;
                if bounds.log != self.setup.log {
                    return Err(ReadError::Replaced.into());
                }
                shared.bounds_reaching(&self.position, bounds).await?;
                shared.metrics.fell_behind.inc();
                self.say(Response::FellBehind(proto::FellBehind {}));
                self.state = State::CatchingUp(None);
                // Told again when this is reached, unless the first time is still due.
                self.target.get_or_insert(end.position.clone());
            }
            Found::Nothing => {
                let next_look = self.next_look();
                tokio::select! {
                    changed = self.setup.published.changed() => {
                        // Without the relay of its runtime it would never wake again.
                        if changed.is_err() {
                            self.close(proto::ClosingReason::Shutdown);
                        }
                    }
                    () = shared.closing.cancelled() => {}
                    () = tokio::time::sleep_until(next_look) => {}
                }
            }
        }
        Ok(())
    }

    /// Moves the position over a batch. What is wanted goes to `events`, which are
    /// flushed before anything else is said.
    fn deliver(&mut self, batch: &Batch, events: &mut Vec<proto::DeliveredEvent>) {
        if self.has_enough() {
            // In an earlier batch; what is left of that one must not be passed over.
            return;
        }
        debug_assert!(invariants::follows_on(&self.position, &batch.before));
        for trimmed in &batch.trimmed {
            self.pass_trimmed(*trimmed, events);
        }
        for record in &batch.records {
            if self.has_enough() {
                return;
            }
            let Record { partition, offset, .. } = record.record;
            if offset < self.position.get(partition) {
                continue;
            }
            match record.event() {
                Some(found) if self.setup.filter.matches(&found.event) => {
                    events.push(self.delivered_event(&record.record, found));
                    self.delivered += 1;
                    self.pass(&record.record);
                }
                Some(_) => self.pass(&record.record),
                None => {
                    self.flush(events);
                    self.pass(&record.record);
                    self.setup.feed.shared.metrics.undecodable.inc();
                    self.say_gap(proto::GapReason::Undecodable, partition, 1);
                }
            }
        }
        for (partition, offset) in batch.after.iter() {
            if offset > self.position.get(partition) {
                self.position.set(partition, offset);
            }
        }
    }

    fn pass(&mut self, record: &Record) {
        debug_assert!(invariants::in_order(&self.position, record.partition, record.offset));
        self.position.set(record.partition, record.offset + 1);
        self.time = self.time.max(record.append_time);
    }

    fn pass_trimmed(&mut self, trimmed: Trimmed, events: &mut Vec<proto::DeliveredEvent>) {
        if self.position.get(trimmed.partition) < trimmed.to {
            self.flush(events);
            self.skip(proto::GapReason::Retention, trimmed);
        }
    }

    /// Moves the position to the end of what is missing, and says so.
    fn skip(&mut self, reason: proto::GapReason, missed: Trimmed) {
        let from = self.position.get(missed.partition);
        let count = missed.to.saturating_sub(from);
        debug_assert!(invariants::gap_accounts(from, count, missed.to));
        self.position.set(missed.partition, missed.to);
        self.say_gap(reason, missed.partition, count);
    }

    fn delivered_event(&self, record: &Record, found: &FeedEvent) -> proto::DeliveredEvent {
        let mut event = found.event.clone();
        if self.setup.include_origin {
            event.origin.clone_from(&found.origin);
        }
        proto::DeliveredEvent {
            event: Some(event),
            partition: proto_partition(record.partition),
            offset: proto_offset(record.offset),
            append_time: Some(record.append_time.into()),
        }
    }

    fn flush(&mut self, events: &mut Vec<proto::DeliveredEvent>) {
        if !events.is_empty() {
            self.setup.feed.shared.metrics.delivered.inc_by(events.len() as u64);
            self.say(Response::Batch(proto::EventBatch { events: std::mem::take(events) }));
        }
    }

    fn say_gap(&mut self, reason: proto::GapReason, partition: u32, missed: u64) {
        self.say(Response::Gap(proto::Gap {
            reason: reason.into(),
            partition: proto_partition(partition),
            missed_records: proto_offset(missed),
        }));
    }

    fn next_heartbeat(&self) -> Instant {
        self.last_message + self.setup.heartbeat
    }

    /// When there is something to do although nothing has come.
    fn next_look(&self) -> Instant {
        let heartbeat = self.next_heartbeat();
        self.closes_at.map_or(heartbeat, |at| at.min(heartbeat))
    }

    fn heartbeat(&mut self) {
        let shared = &self.setup.feed.shared;
        let end = shared.hub.end();
        let is_this = end.log == Some(self.setup.log);
        let heartbeat = proto::Heartbeat {
            server_time: Some(shared.clock.now().into()),
            // Offsets of another log say nothing about this one.
            lag: if is_this { proto_offset(self.position.distance_to(&end.position)) } else { 0 },
        };
        self.say(Response::Heartbeat(heartbeat));
    }

    fn close(&mut self, reason: proto::ClosingReason) {
        let delay = match reason {
            proto::ClosingReason::MaxAge => Duration::ZERO,
            _ => RECONNECT_DELAY + RECONNECT_SPREAD.mul_f64(random_part()),
        };
        self.say(Response::Closing(proto::Closing {
            reason: reason.into(),
            reconnect_delay: prost_types::Duration::try_from(delay).ok(),
            resumable: true,
        }));
        self.state = State::Closed;
    }

    /// Puts a message behind those that are due, with the cursor of this moment.
    fn say(&mut self, response: Response) {
        debug_assert!(invariants::never_back(&self.setup.start, &self.position));
        self.due.push_back((self.cursor(), response));
    }
}

/// The age at which one stream is closed: up to a tenth less or more than was set, so that
/// those who came together do not come back together.
fn spread_age(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * random_part())
}

/// At random, from 0 to 1.
fn random_part() -> f64 {
    // A fresh `RandomState` is seeded at random: enough to spread things out.
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}
