//! The feed: the log, read back to subscribers.
//!
//! # What it promises
//!
//! * One tail per process reads the end of the log into a bounded ring ([`hub`]).
//!   Subscribers at the end share what is in the ring; for subscribers that are behind it,
//!   a few readers read the log ([`catch_up`]). The tail never waits for a subscriber.
//! * A subscriber gets each event behind its start once, in the order of each
//!   partition, or a gap that says what it missed. Its cursor is a vector with one
//!   offset per partition and moves over filtered-out records too, so that every
//!   message resumes rightly, and every event of one for who passes them on singly
//!   ([`steps`]).
//! * The start is fixed before the first message: what is acknowledged later is
//!   delivered.
//! * Waking subscribers costs one wake-up across threads for each runtime that owns
//!   connections ([`lane`]), however many subscribers it has. Whoever has nothing in what is
//!   new is not woken at all.
//! * A message is written once for all who get it ([`written`]), from the bytes in the log.
//!
//! # What it may not know
//!
//! Transports, and how events come to be written.

mod batch;
mod catch_up;
mod fields;
mod filter;
mod follow;
mod hub;
mod invariants;
mod lane;
#[cfg(test)]
mod model_tests;
mod place;
mod poll;
mod reader;
mod steps;
mod tail;
#[cfg(test)]
mod tests;
mod written;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::domain::{Caller, Violations};
use crate::event_log::{
    Appended, Bounds, Cursor, CursorMalformed, EventLog, Position, ReadError, Trimmed,
};
use crate::proto;

pub use fields::field_rule;
pub use filter::{Filter, MAX_FILTER_VALUES};
pub use follow::{Follow, Followed, Follower};
pub use poll::{DEFAULT_MAX_WAIT, LONGEST_MAX_WAIT, PollAnswer};
pub use reader::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Reader, reconnect_delay};
pub use steps::{Step, Steps};
pub use written::{Outline, OutlineBatch};

use catch_up::CatchUp;
use hub::{Hub, Signal};
use lane::Dispatcher;
use place::Place;
use reader::Skipped;

/// The shortest and the longest heartbeat interval, and the default.
const HEARTBEAT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(15);

/// How far apart the two looks at the log are before a cursor is called ahead of it:
/// a replica that has just taken over may for a moment show an older end.
const AHEAD_SECOND_LOOK: Duration = Duration::from_secs(2);

/// Settings of the feed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most streams open at once.
    pub max_subscribers: usize,
    /// Most bytes of records, and of the messages that are made of them, that the ring holds.
    pub ring_bytes: usize,
    /// How old a stream becomes before it is closed, give or take a tenth; never, when none.
    pub max_stream_age: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_subscribers: 10_000,
            ring_bytes: 32 << 20,
            max_stream_age: Some(Duration::from_secs(3600)),
        }
    }
}

/// What a subscriber asks for; the request as it came.
pub type Subscription = proto::StreamEventsRequest;

/// Why a subscriber cannot be served.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FeedError {
    /// Fields of the request are wrong.
    #[error("the request is not valid")]
    Invalid(Violations),
    /// The cursor is none.
    #[error("{0}")]
    CursorMalformed(#[from] CursorMalformed),
    /// Retention has removed what is behind the cursor.
    #[error("events behind the cursor have been removed by retention")]
    CursorExpired(ValidCursors),
    /// The cursor is past the end of the log.
    #[error("the cursor is past the end of the log")]
    CursorAhead(ValidCursors),
    /// The cursor is of another log.
    #[error("the cursor is of another log than the one that is served")]
    EpochChanged,
    /// The caller may not read origins.
    #[error("include_origin is not allowed here")]
    OriginDenied,
    /// Too many streams are open.
    #[error("{0} streams are open, which is the limit")]
    SubscriberLimit(usize),
    /// The log cannot be read.
    #[error("{0}")]
    Log(#[from] ReadError),
}

/// Cursors that can be used instead of one that cannot.
#[derive(Debug, Clone)]
pub struct ValidCursors {
    /// Before the oldest event.
    pub earliest: String,
    /// Behind the newest event.
    pub latest: String,
}

/// What the feed counts.
#[derive(Clone, Default)]
struct Metrics {
    subscribers: Gauge,
    delivered: Counter,
    undecodable: Counter,
    duplicates: Counter,
    fell_behind: Counter,
    catch_up: catch_up::Gauges,
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("feed");
        r.register("subscribers", "Streams that are open", self.subscribers.clone());
        r.register("delivered_events", "Events handed to streams", self.delivered.clone());
        r.register(
            "undecodable_records",
            "Times that a stream came upon a record that is no event",
            self.undecodable.clone(),
        );
        r.register(
            "duplicate_records",
            "Records that the tail came upon whose event was in the log before",
            self.duplicates.clone(),
        );
        r.register(
            "fell_behind",
            "Times that a stream fell out of the ring and went back to the log",
            self.fell_behind.clone(),
        );
        r.register(
            "catch_up_bytes",
            "Bytes of the log that are kept for streams that are behind the ring",
            self.catch_up.bytes.clone(),
        );
        r.register(
            "catch_up_waiting",
            "Streams that wait for what lies behind the ring",
            self.catch_up.waiting.clone(),
        );
    }
}

/// The feed. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    log: Arc<dyn EventLog>,
    hub: Arc<Hub>,
    catch_up: CatchUp,
    /// For who follows the tail.
    follower: Arc<Signal>,
    options: Options,
    clock: Clock,
    metrics: Metrics,
    subscribers: AtomicUsize,
    closing: CancellationToken,
    live: watch::Sender<bool>,
}

impl Feed {
    /// A feed of `log`. [`Feed::run_tail`] has to run for anything to be live, and
    /// [`Feed::run_catch_up`] for anything that is older.
    pub fn build(
        log: Arc<dyn EventLog>,
        options: Options,
        clock: Clock,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::default();
        metrics.register(registry);
        let hub = Arc::new(Hub::new(options.ring_bytes));
        let shared = Shared {
            follower: hub.add_lane(),
            hub,
            catch_up: CatchUp::new(metrics.catch_up.clone()),
            log,
            options,
            clock,
            metrics,
            subscribers: AtomicUsize::new(0),
            closing: CancellationToken::new(),
            live: watch::Sender::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Reads the end of the log into the ring, for as long as it is polled.
    pub async fn run_tail(&self) {
        tail::run(&self.shared).await;
    }

    /// Reads the log for subscribers that are behind the ring, for as long as it is polled.
    pub async fn run_catch_up(&self) {
        let Shared { catch_up, log, hub, .. } = &*self.shared;
        catch_up.run(log, hub).await;
    }

    /// Whether the tail is reading the log, and changes of that.
    pub fn live(&self) -> watch::Receiver<bool> {
        self.shared.live.subscribe()
    }

    /// A handle for one runtime, and the relay that has to run there.
    pub fn lane(&self) -> (Lane, Relay) {
        let Shared { hub, metrics, .. } = &*self.shared;
        let dispatcher = Dispatcher::new(Arc::clone(hub), metrics.delivered.clone());
        let relay = Relay { shared: Arc::clone(&self.shared), dispatcher: Arc::clone(&dispatcher) };
        (Lane { feed: self.clone(), dispatcher }, relay)
    }

    /// Tells every subscriber that the server stops, which ends their streams.
    pub fn close(&self) {
        self.shared.closing.cancel();
    }

    /// The cursor of a receipt: where the tail is, and just behind the event in the
    /// event's own partition.
    pub fn cursor_behind(&self, appended: &Appended) -> String {
        let end = self.shared.hub.peek_end();
        // Where the tail is not in this log (yet), everything in it is still to be read.
        let end = end.as_ref().filter(|end| end.log == appended.log);
        let mut position = end.map_or_else(Position::default, |end| end.position.clone());
        position.set(appended.partition, appended.offset + 1);
        Cursor { epoch: appended.log, position, time: appended.append_time }.encode()
    }

    /// The bounds of the feed.
    pub async fn describe(&self) -> Result<proto::GetFeedResponse, FeedError> {
        let bounds = self.shared.log.bounds().await?;
        let valid = self.shared.valid_cursors(&bounds);
        Ok(proto::GetFeedResponse {
            feed_epoch: bounds.log.to_string(),
            partitions: bounds
                .end
                .iter()
                .map(|(partition, end)| proto::FeedPartition {
                    partition: proto_partition(partition),
                    start_offset: proto_offset(bounds.start.get(partition)),
                    end_offset: proto_offset(end),
                })
                .collect(),
            earliest_cursor: valid.earliest,
            latest_cursor: valid.latest,
            // Not the feed's.
            request_horizon: None,
        })
    }
}

impl Shared {
    fn valid_cursors(&self, bounds: &Bounds) -> ValidCursors {
        let now = self.clock.now();
        ValidCursors {
            earliest: Cursor::of(bounds.log, &bounds.start, Timestamp::default()),
            latest: Cursor::of(bounds.log, &bounds.end, now),
        }
    }
}

/// The feed as seen from one runtime. Cheap to clone.
#[derive(Clone)]
pub struct Lane {
    feed: Feed,
    dispatcher: Arc<Dispatcher>,
}

/// Hands what is new to the subscribers of one runtime, on that runtime. When it is dropped,
/// their streams are closed.
pub struct Relay {
    shared: Arc<Shared>,
    dispatcher: Arc<Dispatcher>,
}

impl Relay {
    /// Runs until dropped.
    pub async fn run(self) {
        let closing = async {
            self.shared.closing.cancelled().await;
            self.dispatcher.close();
        };
        tokio::join!(self.dispatcher.run(), closing);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.dispatcher.close();
    }
}

impl Lane {
    /// The feed itself.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Opens a stream: checks what is asked for and fixes the start.
    pub async fn subscribe(
        &self,
        caller: &Caller,
        subscription: Subscription,
    ) -> Result<Reader, FeedError> {
        let shared = &self.feed.shared;
        let checked = check(&subscription)?;
        if subscription.include_origin && !caller.may_read_origin() {
            return Err(FeedError::OriginDenied);
        }
        let permit = Permit::take(&self.feed)?;
        let start = shared.fix_start(subscription.start, checked.expired).await?;
        Ok(Reader::new(reader::Setup {
            feed: self.feed.clone(),
            permit,
            lane: Arc::clone(&self.dispatcher),
            start: Place::new(start.bounds.log, start.position, start.time),
            skipped: start.skipped,
            end: start.bounds.end,
            filter: (!checked.filter.is_all()).then(|| Arc::new(checked.filter)),
            heartbeat: checked.heartbeat,
            max_events: checked.max_events,
            stop_when_caught_up: subscription.stop_when_caught_up,
            include_origin: subscription.include_origin,
            max_age: shared.options.max_stream_age,
        }))
    }

    /// Returns the next events, once there are any, or when it is time to answer.
    pub async fn poll(
        &self,
        caller: &Caller,
        request: proto::PollEventsRequest,
        answer_by: Option<Instant>,
    ) -> Result<PollAnswer, FeedError> {
        let (subscription, max_wait) = poll::subscription(request)?;
        let until = Instant::now() + max_wait;
        let mut reader = self.subscribe(caller, subscription).await?;
        poll::collect(&mut reader, until, answer_by).await
    }
}

/// Where a stream starts.
struct Start {
    /// Everything before it is behind the subscriber, but for what is skipped.
    position: Position,
    /// What lies behind the position and is not delivered, in partitions of their own.
    skipped: Vec<Skipped>,
    /// Of the newest record before the position, as far as that is known.
    time: Timestamp,
    bounds: Bounds,
}

impl Shared {
    async fn fix_start(
        &self,
        start: Option<proto::stream_events_request::Start>,
        expired: proto::ExpiredCursorPolicy,
    ) -> Result<Start, FeedError> {
        use proto::stream_events_request::Start as Asked;
        // Before anything is asked that depends on it: a log says "the end" of a time for which
        // it has no record, and what is appended meanwhile must not be passed over.
        let bounds = self.log.bounds().await?;
        let (position, skipped, time, bounds) = match start {
            Some(Asked::AfterCursor(text)) => {
                let cursor = Cursor::decode(&text)?;
                if cursor.epoch != bounds.log {
                    return Err(FeedError::EpochChanged);
                }
                let bounds = self.bounds_reaching(&cursor.position, bounds).await?;
                let mut position = cursor.position;
                for (partition, oldest) in bounds.start.iter() {
                    if partition as usize >= position.len() {
                        // Added since the cursor was made: begins at its start.
                        position.set(partition, oldest);
                    }
                }
                let skipped = self.skip_expired(&position, &bounds, expired)?;
                (position, skipped, cursor.time, bounds)
            }
            Some(Asked::StartTime(time)) => {
                let time = not_before(time);
                let found = self.log.position_at(bounds.log, time).await?;
                // What has come since the end was read is later than that, also in partitions
                // that were not there yet: those are read from their start.
                let ends = bounds.end.iter();
                let position = ends.map(|(partition, end)| found.get(partition).min(end)).collect();
                (position, Vec::new(), time.min(self.clock.now()), bounds)
            }
            Some(Asked::StartPosition(position))
                if position == i32::from(proto::StartPosition::Earliest) =>
            {
                (bounds.start.clone(), Vec::new(), Timestamp::default(), bounds)
            }
            // `check` has refused what is no position at all.
            Some(Asked::StartPosition(_)) | None => {
                (bounds.end.clone(), Vec::new(), self.clock.now(), bounds)
            }
        };
        Ok(Start { position, skipped, time, bounds })
    }

    /// What a subscriber misses whose place is in part removed, if it agrees.
    fn skip_expired(
        &self,
        position: &Position,
        bounds: &Bounds,
        policy: proto::ExpiredCursorPolicy,
    ) -> Result<Vec<Skipped>, FeedError> {
        use proto::ExpiredCursorPolicy as Policy;
        let (reason, goes_on_at) = match policy {
            _ if position.covers(&bounds.start) => return Ok(Vec::new()),
            Policy::Earliest => (proto::GapReason::Retention, &bounds.start),
            Policy::Latest => (proto::GapReason::Skipped, &bounds.end),
            Policy::Fail | Policy::Unspecified => {
                return Err(FeedError::CursorExpired(self.valid_cursors(bounds)));
            }
        };
        Ok(goes_on_at
            .iter()
            .map(|(partition, to)| Trimmed { partition, from: position.get(partition), to })
            .filter(|missed| missed.from < missed.to)
            .map(|missed| Skipped { reason, missed })
            .collect())
    }

    /// The bounds, once they reach a cursor's position.
    async fn bounds_reaching(
        &self,
        position: &Position,
        bounds: Bounds,
    ) -> Result<Bounds, FeedError> {
        let reaches =
            |bounds: &Bounds| position.len() <= bounds.end.len() && bounds.end.covers(position);
        if reaches(&bounds) {
            return Ok(bounds);
        }
        tokio::time::sleep(AHEAD_SECOND_LOOK).await;
        let (log, bounds) = (bounds.log, self.log.bounds().await?);
        if bounds.log != log {
            Err(FeedError::EpochChanged)
        } else if reaches(&bounds) {
            Ok(bounds)
        } else {
            Err(FeedError::CursorAhead(self.valid_cursors(&bounds)))
        }
    }
}

/// Leave to be one of the subscribers; given back when dropped.
struct Permit(Feed);

impl Permit {
    fn take(feed: &Feed) -> Result<Self, FeedError> {
        let limit = feed.shared.options.max_subscribers;
        let taken =
            feed.shared.subscribers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < limit).then_some(open + 1)
            });
        match taken {
            Ok(_) => {
                feed.shared.metrics.subscribers.inc();
                Ok(Self(feed.clone()))
            }
            Err(_) => Err(FeedError::SubscriberLimit(limit)),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.shared.subscribers.fetch_sub(1, Ordering::Relaxed);
        self.0.shared.metrics.subscribers.dec();
    }
}

/// What is asked for, once it was checked.
struct Checked {
    filter: Filter,
    heartbeat: Duration,
    max_events: Option<u64>,
    expired: proto::ExpiredCursorPolicy,
}

/// Checks a subscription.
fn check(subscription: &Subscription) -> Result<Checked, FeedError> {
    use proto::stream_events_request::Start;
    let mut violations = Violations::default();
    match subscription.start {
        Some(Start::StartPosition(position))
            if proto::StartPosition::try_from(position).is_err() =>
        {
            violations.add("start_position", "not a StartPosition that this server knows");
        }
        Some(Start::StartTime(time)) if !is_valid(time) => {
            violations.add("start_time", "not a time between the years 1 and 9999");
        }
        _ => {}
    }
    let filter = Filter::parse(subscription.filter.as_ref(), &mut violations);
    let heartbeat = match subscription.heartbeat_interval {
        None => DEFAULT_HEARTBEAT,
        Some(interval) => match Duration::try_from(interval) {
            Ok(interval) => interval.clamp(HEARTBEAT_RANGE.0, HEARTBEAT_RANGE.1),
            Err(_) => {
                violations.add("heartbeat_interval", "negative or not a valid Duration");
                DEFAULT_HEARTBEAT
            }
        },
    };
    let max_events = match u64::try_from(subscription.max_events) {
        Ok(0) => None,
        Ok(max) => Some(max),
        Err(_) => {
            violations.add("max_events", "negative; 0 means no end");
            None
        }
    };
    let expired = proto::ExpiredCursorPolicy::try_from(subscription.expired_cursor_policy);
    if expired.is_err() {
        violations
            .add("expired_cursor_policy", "not an ExpiredCursorPolicy that this server knows");
    }
    if !violations.is_empty() {
        return Err(FeedError::Invalid(violations));
    }
    Ok(Checked { filter, heartbeat, max_events, expired: expired.unwrap_or_default() })
}

/// Whether a time is one. Source: the comment on seconds and nanos in
/// `google/protobuf/timestamp.proto`.
fn is_valid(time: prost_types::Timestamp) -> bool {
    (-62_135_596_800..=253_402_300_799).contains(&time.seconds)
        && (0..=999_999_999).contains(&time.nanos)
}

/// The first moment that append times can tell from those before `time`.
fn not_before(time: prost_types::Timestamp) -> Timestamp {
    let begun = i64::from(time.nanos % 1_000_000 != 0);
    Timestamp::from_millis(Timestamp::from(time).as_millis().saturating_add(begun))
}

/// A partition as messages carry it. Logs have far fewer than 2^31.
pub(crate) fn proto_partition(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// An offset as messages carry it. Offsets stay far below 2^63.
pub(crate) fn proto_offset(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn partition_offsets(position: &Position) -> Vec<proto::PartitionOffset> {
    position
        .iter()
        .map(|(partition, offset)| proto::PartitionOffset {
            partition: proto_partition(partition),
            offset: proto_offset(offset),
        })
        .collect()
}
