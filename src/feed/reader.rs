//! One subscriber: a state machine that is polled for its next message.
//!
//! ```text
//! Opening ─► CatchingUp ─► Live ─► Closed
//!                ▲          │
//!                └─ FallingBehind
//! ```
//!
//! Catching up asks for pages of the log; live reads the ring; who has fallen out of that asks
//! the log whether its place is still there. All deliver from the reader's own place, so that
//! the hand-over between them can neither leave out nor repeat anything: whatever lies before
//! the place is passed over.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, Sleep, sleep_until};

use super::batch::Batch;
use super::catch_up::Caught;
use super::filter::Filter;
use super::hub::Join;
use super::lane::{Dispatcher, Next, Seat};
use super::place::{Place, Way};
use super::{
    Feed, FeedError, Permit, invariants, partition_offsets, proto_offset, proto_partition, written,
};
use crate::event_log::{Position, ReadError, ReadLimits, Trimmed};
use crate::history::Verdict;
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

/// A message is sent as it is in the ring if it is at least as large as this; smaller ones that
/// wait together are made one.
const MERGE_BELOW_BYTES: usize = 16 * 1024;

/// How many steps without a message a reader takes before it lets others have a turn.
const STEPS_IN_A_ROW: usize = 16;

/// How long clients are asked to wait before they come back after a shutdown: the
/// least, and how much at most is added at random.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);
const RECONNECT_SPREAD: Duration = Duration::from_secs(4);

/// What a reader is made of.
pub(super) struct Setup {
    pub feed: Feed,
    pub permit: Permit,
    pub lane: Arc<Dispatcher>,
    pub start: Place,
    /// What lies behind the start and is not delivered.
    pub skipped: Vec<Skipped>,
    pub end: Position,
    /// None where everything is wanted.
    pub filter: Option<Arc<Filter>>,
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
    feed: Feed,
    _permit: Permit,
    lane: Arc<Dispatcher>,
    filter: Option<Arc<Filter>>,
    heartbeat: Duration,
    max_events: Option<u64>,
    stop_when_caught_up: bool,
    include_origin: bool,
    state: State,
    /// Everything before it was delivered or passed over. While it is live, the lane may know
    /// better: see [`Seat::update`].
    place: Arc<Place>,
    /// The end of the log that has not been reached yet.
    target: Option<Box<Position>>,
    /// Messages that are due. Filled by one step at a time, and so bounded by what one step
    /// reads.
    due: VecDeque<Bytes>,
    /// The last of these says that it has caught up.
    says_caught_up: bool,
    delivered: u64,
    /// The time of this step, or a little before it.
    now: Instant,
    last_message: Instant,
    /// When it is closed for its age.
    closes_at: Option<Instant>,
    /// Rings at or before [`Reader::next_look`]. Not there while it is live: the lane has one
    /// for all.
    timer: Option<Pin<Box<Sleep>>>,
}

enum State {
    /// With what is not delivered although it lies behind the start.
    Opening(Vec<Skipped>),
    /// Asks for pages of the log; what was asked, if something was.
    CatchingUp(Option<BoxFuture<'static, Result<Caught, FeedError>>>),
    /// Looks whether its place still is one of the log.
    FallingBehind(BoxFuture<'static, Result<(), FeedError>>),
    /// Reads the ring.
    Live(Seat),
    Closed,
}

/// The events of the message that is being put together.
#[derive(Default)]
struct Picked {
    /// As they stand in a message.
    entries: Vec<u8>,
    events: u64,
    /// What they were picked from.
    batches: usize,
    records: usize,
}

impl Reader {
    pub(super) fn new(setup: Setup) -> Self {
        let now = Instant::now();
        Self {
            feed: setup.feed,
            _permit: setup.permit,
            lane: setup.lane,
            filter: setup.filter,
            heartbeat: setup.heartbeat,
            max_events: setup.max_events,
            stop_when_caught_up: setup.stop_when_caught_up,
            include_origin: setup.include_origin,
            state: State::Opening(setup.skipped),
            place: Arc::new(setup.start),
            target: Some(Box::new(setup.end)),
            due: VecDeque::new(),
            says_caught_up: false,
            delivered: 0,
            now,
            last_message: now,
            closes_at: setup.max_age.map(|age| now + spread_age(age)),
            timer: None,
        }
    }

    /// Waits for the next message, and reads it as clients do.
    #[cfg(test)]
    pub(super) async fn next(&mut self) -> Option<Result<proto::StreamEventsResponse, FeedError>> {
        let message = std::future::poll_fn(|cx| self.poll_message(cx)).await?;
        Some(message.map(|message| written::read(&message).expect("it was written here")))
    }

    /// The next message as it goes over the wire: a `StreamEventsResponse` behind the five
    /// bytes that gRPC puts before a message. `None` when the stream has done what was asked or
    /// was closed.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, FeedError>>> {
        if let Some((message, now)) = self.take_whole() {
            self.last_message = now;
            return Poll::Ready(Some(Ok(message)));
        }
        for _ in 0..STEPS_IN_A_ROW {
            if let Some(message) = self.due.pop_front() {
                self.says_caught_up &= !self.due.is_empty();
                return Poll::Ready(Some(Ok(message)));
            }
            if self.is_done() || matches!(self.state, State::Closed) {
                return Poll::Ready(None);
            }
            match self.step(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.state = State::Closed;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Pending if matches!(self.state, State::Live(_)) => return Poll::Pending,
                Poll::Pending => {
                    ready!(self.poll_timer(cx));
                    self.now = Instant::now();
                }
            }
            if let Some(target) = self.target.take_if(|end| self.place.position.covers(end)) {
                let end_offsets = partition_offsets(&target);
                self.say(Response::CaughtUp(proto::CaughtUp { end_offsets }));
                self.says_caught_up = true;
            }
            if self.closes_at.is_some_and(|at| self.now >= at) && !self.is_done() {
                self.close(proto::ClosingReason::MaxAge);
            } else if self.due.is_empty() && self.now >= self.next_heartbeat() {
                self.say_heartbeat();
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What nearly every message of a live feed is: the newest batch as it is, at the least
    /// cost.
    fn take_whole(&self) -> Option<(Bytes, Instant)> {
        let is_plain = self.due.is_empty() && self.target.is_none() && self.max_events.is_none();
        match &self.state {
            State::Live(seat) if is_plain && self.filter.is_none() => {
                seat.take_whole(self.include_origin)
            }
            _ => None,
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FeedError>> {
        match &mut self.state {
            State::Opening(skipped) => {
                let skipped = std::mem::take(skipped);
                self.open(skipped);
                Poll::Ready(Ok(()))
            }
            State::CatchingUp(reading) => {
                if let Some(reading) = reading {
                    let read = ready!(reading.poll_unpin(cx));
                    self.state = State::CatchingUp(None);
                    if let Caught::Page(page) = read? {
                        if self.takes_whole(&page) {
                            self.deliver_whole(&page);
                        } else {
                            let mut picked = Picked::default();
                            self.deliver(&page, &mut picked);
                            self.flush(&mut picked);
                        }
                    }
                } else {
                    self.catch_up();
                }
                Poll::Ready(Ok(()))
            }
            State::FallingBehind(look) => {
                ready!(look.poll_unpin(cx))?;
                self.fall_behind();
                Poll::Ready(Ok(()))
            }
            State::Live(_) => self.follow(cx).map(Ok),
            State::Closed => Poll::Ready(Ok(())),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.next_look();
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            // It was set before the last message.
            timer.as_mut().reset(at);
        }
    }

    /// Whether as many events as were asked for have been delivered.
    fn has_enough(&self) -> bool {
        self.max_events.is_some_and(|max| self.delivered >= max)
    }

    /// Whether everything that was asked for has been delivered.
    fn is_done(&self) -> bool {
        self.has_enough() || (self.stop_when_caught_up && self.target.is_none())
    }

    /// Whether it has come to the end that the log had when it was opened, or had when it
    /// fell behind, and has said all that lies before it.
    pub(super) fn is_caught_up(&self) -> bool {
        self.target.is_none() && self.due.len() <= usize::from(self.says_caught_up)
    }

    /// The cursor behind everything that was delivered or passed over.
    pub(super) fn cursor(&mut self) -> String {
        self.find_place();
        self.place.cursor().to_owned()
    }

    fn open(&mut self, skipped: Vec<Skipped>) {
        let mut start = self.place.position.clone();
        for Skipped { missed, .. } in &skipped {
            start.set(missed.partition, missed.to);
        }
        let start_offsets = partition_offsets(&start);
        self.say(Response::Opened(proto::Opened { start_offsets }));
        let mut way = Way::from(&self.place);
        for Skipped { reason, missed } in skipped {
            self.skip(&mut way, reason, missed);
        }
        self.state = State::CatchingUp(None);
    }

    /// Goes over to the ring, or asks for what lies between.
    fn catch_up(&mut self) {
        self.now = Instant::now();
        let shared = &self.feed.shared;
        if shared.closing.is_cancelled() {
            return self.close(proto::ClosingReason::Shutdown);
        }
        let join = shared.hub.join(&self.place);
        self.state = match join {
            Join::At(number) => {
                self.timer = None;
                State::Live(self.lane.seat(number, self.filter.clone(), self.next_look()))
            }
            Join::Replaced | Join::Behind => {
                let (shared, place) = (Arc::clone(shared), Arc::clone(&self.place));
                let reading = async move {
                    // Which of the two is the older one, only the log can tell: a stream may be
                    // opened before the tail has noticed that there is another.
                    if join == Join::Replaced && shared.log.bounds().await?.log != place.log {
                        return Err(ReadError::Replaced.into());
                    }
                    tokio::select! {
                        biased;
                        // That nobody answers cannot happen: who is asked goes when the feed
                        // does.
                        caught = shared.catch_up.ask(&place) => {
                            Ok(caught.unwrap_or(Ok(Caught::Look))?)
                        }
                        () = shared.closing.cancelled() => Ok(Caught::Look),
                    }
                };
                State::CatchingUp(Some(reading.boxed()))
            }
        };
    }

    /// One step of following the ring.
    fn follow(&mut self, cx: &Context<'_>) -> Poll<()> {
        let mut picked = Picked::default();
        loop {
            let State::Live(seat) = &self.state else { return Poll::Ready(()) };
            // Until it has caught up it has to say so when it has, whatever comes.
            let may_follow = self.target.is_none();
            let alarm = self.next_look();
            let fits = |batch: &Batch| picked.has_room_for(batch);
            match seat.poll(cx, &mut self.place, alarm, may_follow, fits) {
                Poll::Ready(Next::Batch { batch, waiting, now }) => {
                    self.now = self.now.max(now);
                    let is_alone = picked.batches == 0 && waiting == 0;
                    let is_large = batch.record_bytes() >= MERGE_BELOW_BYTES;
                    if self.takes_whole(&batch) && (is_alone || is_large) {
                        self.flush(&mut picked);
                        self.deliver_whole(&batch);
                        break;
                    }
                    self.deliver(&batch, &mut picked);
                    if waiting == 0 || !self.due.is_empty() {
                        break;
                    }
                }
                Poll::Ready(Next::Later) => break,
                Poll::Ready(Next::Alarm) => {
                    self.now = Instant::now();
                    break;
                }
                Poll::Ready(Next::Gone) => {
                    self.flush(&mut picked);
                    self.lose_place();
                    break;
                }
                Poll::Ready(Next::Closed) => {
                    self.flush(&mut picked);
                    self.close(proto::ClosingReason::Shutdown);
                    break;
                }
                Poll::Pending if picked.batches == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        self.flush(&mut picked);
        Poll::Ready(())
    }

    /// What is next has left the ring: the log has to say whether the place is still there.
    fn lose_place(&mut self) {
        let (shared, place) = (Arc::clone(&self.feed.shared), Arc::clone(&self.place));
        let look = async move {
            let end = shared.hub.end();
            let is_this = end.is_some_and(|end| end.log == place.log);
            // A log that has lost its end would otherwise go on at another place.
            let bounds = shared.log.bounds().await?;
            if !is_this || bounds.log != place.log {
                return Err(ReadError::Replaced.into());
            }
            shared.bounds_reaching(&place.position, bounds).await?;
            Ok(())
        };
        self.state = State::FallingBehind(look.boxed());
    }

    fn fall_behind(&mut self) {
        let shared = &self.feed.shared;
        shared.metrics.fell_behind.inc();
        // Told again when this is reached, unless the first time is still due. The tail may not
        // have come as far as the pages of the log have brought this reader.
        if let Some(end) = shared.hub.end() {
            self.target.get_or_insert_with(|| {
                let mut target = end.position.clone();
                target.advance_to(&self.place.position);
                Box::new(target)
            });
        }
        self.say(Response::FellBehind(proto::FellBehind {}));
        self.state = State::CatchingUp(None);
    }

    /// Whether it gets all of a batch and nothing but the batch.
    fn takes_whole(&self, batch: &Batch) -> bool {
        self.filter.is_none() && self.stands_before(batch) && batch.is_whole()
    }

    /// Whether it stands where a batch begins and goes on to where it ends.
    fn stands_before(&self, batch: &Batch) -> bool {
        let events = batch.events as u64;
        self.max_events.is_none_or(|max| self.delivered + events <= max)
            && self.place.is_same(&batch.before)
    }

    /// Delivers a batch as it is, which costs the same for any number of events.
    fn deliver_whole(&mut self, batch: &Batch) {
        self.place = self.place.onward(&batch.after);
        let events = batch.events as u64;
        if events > 0 {
            self.delivered += events;
            self.feed.shared.metrics.delivered.inc_by(events);
            self.send(batch.message(self.include_origin).clone());
        }
    }

    /// Moves the place over a batch. What is wanted goes to `picked`, which is flushed
    /// before anything else is said.
    fn deliver(&mut self, batch: &Batch, picked: &mut Picked) {
        if self.has_enough() {
            // In an earlier batch; what is left of that one must not be passed over.
            return;
        }
        debug_assert!(invariants::follows_on(&self.place.position, &batch.before.position));
        picked.batches += 1;
        picked.records += batch.records.len();
        if batch.is_whole() && self.stands_before(batch) {
            for index in 0..batch.records.len() {
                if self.wants(batch, index) {
                    self.pick(batch, index, picked);
                }
            }
            self.place = self.place.onward(&batch.after);
        } else {
            self.deliver_slowly(batch, picked);
        }
    }

    /// As [`Reader::deliver`], record by record: from the middle of a batch, over gaps, and up
    /// to the last event that was asked for.
    fn deliver_slowly(&mut self, batch: &Batch, picked: &mut Picked) {
        let mut way = Way::from(&self.place);
        let before = &self.place.position.clone();
        for trimmed in &batch.trimmed {
            if way.position.get(trimmed.partition) < trimmed.to {
                self.flush_at(&way, picked);
                self.skip(&mut way, proto::GapReason::Retention, *trimmed);
            }
        }
        for (index, (record, verdict)) in batch.records.iter().zip(&batch.verdicts).enumerate() {
            if self.has_enough() {
                self.place = way.place();
                return;
            }
            if record.offset < way.position.get(record.partition) {
                continue;
            }
            match verdict {
                Verdict::Event(_) | Verdict::Duplicate => {
                    if self.wants(batch, index) {
                        self.pick(batch, index, picked);
                    }
                    way.pass(record.partition, record.offset, record.append_time);
                }
                Verdict::Foreign => {
                    self.flush_at(&way, picked);
                    way.pass(record.partition, record.offset, record.append_time);
                    self.feed.shared.metrics.undecodable.inc();
                    self.say_gap(&way, proto::GapReason::Undecodable, record.partition, 1);
                }
            }
        }
        for (partition, offset) in batch.after.position.iter() {
            if offset > way.position.get(partition) {
                way.position.set(partition, offset);
            }
        }
        let after = &batch.after;
        self.place = if way.position == after.position && way.time <= after.time {
            Arc::clone(&batch.after)
        } else {
            way.place()
        };
        debug_assert!(invariants::never_back(before, &self.place.position));
    }

    /// Whether it wants the event of a record, if there is one.
    fn wants(&self, batch: &Batch, index: usize) -> bool {
        match &self.filter {
            None => batch.verdicts[index].is_event(),
            Some(filter) => {
                batch.keys()[index].as_ref().is_some_and(|event| event.are_wanted_by(filter))
            }
        }
    }

    fn pick(&mut self, batch: &Batch, index: usize, picked: &mut Picked) {
        let entry = batch.entries(index..index + 1, self.include_origin);
        picked.entries.extend_from_slice(entry);
        picked.events += 1;
        self.delivered += 1;
    }

    /// Says what was picked, if anything was, with the cursor of this moment.
    fn flush(&mut self, picked: &mut Picked) {
        let Picked { entries, events, .. } = std::mem::take(picked);
        if events > 0 {
            self.feed.shared.metrics.delivered.inc_by(events);
            self.send(written::chosen(self.place.cursor(), &entries));
        }
    }

    fn flush_at(&mut self, way: &Way, picked: &mut Picked) {
        if picked.events > 0 {
            self.place = way.place();
            self.flush(picked);
        }
    }

    /// Moves to the end of what is missing, and says so.
    fn skip(&mut self, way: &mut Way, reason: proto::GapReason, missed: Trimmed) {
        let from = way.position.get(missed.partition);
        let count = missed.to.saturating_sub(from);
        debug_assert!(invariants::gap_accounts(from, count, missed.to));
        way.position.set(missed.partition, missed.to);
        self.say_gap(way, reason, missed.partition, count);
    }

    fn say_gap(&mut self, way: &Way, reason: proto::GapReason, partition: u32, missed: u64) {
        self.place = way.place();
        self.say(Response::Gap(proto::Gap {
            reason: reason.into(),
            partition: proto_partition(partition),
            missed_records: proto_offset(missed),
        }));
    }

    fn next_heartbeat(&self) -> Instant {
        self.last_message + self.heartbeat
    }

    /// When there is something to do although nothing has come.
    fn next_look(&self) -> Instant {
        let heartbeat = self.next_heartbeat();
        self.closes_at.map_or(heartbeat, |at| at.min(heartbeat))
    }

    fn say_heartbeat(&mut self) {
        self.find_place();
        let shared = &self.feed.shared;
        // Offsets of another log say nothing about this one.
        let end = shared.hub.end().filter(|end| end.log == self.place.log);
        let lag = end.map_or(0, |end| self.place.position.distance_to(&end.position));
        let server_time = Some(shared.clock.now().into());
        self.say(Response::Heartbeat(proto::Heartbeat { server_time, lag: proto_offset(lag) }));
    }

    fn close(&mut self, reason: proto::ClosingReason) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.find_place();
        let delay = match reason {
            proto::ClosingReason::MaxAge => Duration::ZERO,
            _ => reconnect_delay(),
        };
        self.say(Response::Closing(proto::Closing {
            reason: reason.into(),
            reconnect_delay: prost_types::Duration::try_from(delay).ok(),
            resumable: true,
        }));
        self.state = State::Closed;
    }

    /// Takes over the place from the lane, where it knows better.
    fn find_place(&mut self) {
        if let State::Live(seat) = &self.state {
            seat.update(&mut self.place);
        }
    }

    /// Puts a message behind those that are due, with the cursor of this moment.
    fn say(&mut self, response: Response) {
        self.send(written::message(self.place.cursor(), response));
    }

    fn send(&mut self, message: Bytes) {
        self.last_message = self.now;
        self.due.push_back(message);
    }
}

impl Picked {
    /// Whether a batch may come into the same message. The first one always may.
    fn has_room_for(&self, batch: &Batch) -> bool {
        self.batches == 0
            || (self.records + batch.records.len() <= MAX_BATCH_EVENTS
                && self.entries.len() + batch.record_bytes() <= MAX_BATCH_BYTES)
    }
}

/// How long to wait before coming back to a server that is gone. Differs from stream to stream,
/// so that not all come back at once.
pub fn reconnect_delay() -> Duration {
    RECONNECT_DELAY + RECONNECT_SPREAD.mul_f64(random_part())
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
