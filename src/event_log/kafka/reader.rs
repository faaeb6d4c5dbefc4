//! Readers of the topic: the tail with a consumer of its own, and the others, which share a
//! few.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rdkafka::error::KafkaError;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until};

use super::board::Board;
use super::context::Context;
use super::monitor::Monitor;
use super::settings::{Options, Reading};
use super::source::{Source, Trouble};
use crate::event_log::{Bounds, LogId, LogReader, Position, ReadBatch, ReadError, ReadLimits};

/// How many consumers the readers share. Each costs a few threads, a connection to each
/// broker, and what it fetches ahead.
const SHARED_CONSUMERS: usize = 4;

/// How long a reader that has nothing to read keeps its consumer while others wait for one.
const IDLE_TURN: Duration = Duration::from_millis(200);

/// The same for one that is waiting for the brokers.
const BUSY_TURN: Duration = Duration::from_secs(2);

/// How long a reader that lost its place waits before it looks for it.
const TROUBLE_PAUSE: Duration = Duration::from_millis(100);

/// How long it then waits before it looks again.
const IDLE_PAUSE: Duration = Duration::from_millis(250);

/// How soon a reader that has come to an end asks whether there really is nothing more (what
/// ends a transaction is no record, and moves the end), and how often it does so after that.
const FIRST_RECHECK: Duration = Duration::from_millis(200);
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How long a place past the end is waited for: a replica that has just taken over may for
/// a moment know less than the one before it.
const AHEAD_PATIENCE: Duration = Duration::from_secs(10);
const AHEAD_PAUSE: Duration = Duration::from_millis(500);

/// What every reader needs.
#[derive(Clone)]
pub(super) struct Link {
    pub options: Options,
    pub context: Context,
    pub board: Arc<Board>,
    pub monitor: Monitor,
}

impl Link {
    /// A consumer. Made on a thread that may block, as it starts
    /// threads and reads certificates.
    async fn source(&self, reading: Reading) -> Result<Source, ReadError> {
        let (options, context) = (self.options.clone(), self.context.clone());
        let made = tokio::task::spawn_blocking(move || Source::new(&options, context, reading));
        let made = made.await.map_err(|error| ReadError::Unavailable(error.to_string().into()))?;
        made.map_err(unreadable)
    }

    /// The bounds, if it is still this log.
    pub async fn bounds_of(&self, log: LogId) -> Result<Bounds, ReadError> {
        let bounds = self.monitor.bounds().await?;
        if bounds.log == log { Ok(bounds) } else { Err(ReadError::Replaced) }
    }

    /// Has a source read from `from` on, after a look at identity and bounds.
    async fn assign(
        &self,
        source: &mut Source,
        log: LogId,
        from: &Position,
    ) -> Result<(), ReadError> {
        let deadline = Instant::now() + AHEAD_PATIENCE;
        loop {
            let bounds = self.bounds_of(log).await?;
            if bounds.end.covers(from) {
                return source.assign(from, &bounds).map_err(unreadable);
            }
            if Instant::now() >= deadline {
                let missing = from.iter().find(|(p, offset)| bounds.end.get(*p) < *offset);
                let (partition, offset) = missing.unwrap_or_default();
                let why = format!(
                    "partition {partition} ends at {} although it was read up to {offset} \
                     before; was a replica elected that was not in sync?",
                    bounds.end.get(partition)
                );
                return Err(ReadError::Damaged(why.into()));
            }
            sleep(AHEAD_PAUSE).await;
        }
    }

    /// Reads with a source until there is something to hand out, or, with none, until
    /// somebody else needs the source. May be dropped at any moment: what was taken stays in
    /// the source.
    async fn read(
        &self,
        source: &mut Source,
        log: LogId,
        limits: ReadLimits,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<ReadBatch>, ReadError> {
        let mut topic = self.board.topic();
        let mut waiting_since = Instant::now();
        loop {
            let now = *topic.borrow_and_update();
            let Some(now) = now.filter(|topic| topic.log == log) else {
                return Err(ReadError::Replaced);
            };
            source.take();
            if let Some(batch) = source.hand_out(limits) {
                return Ok(Some(batch));
            }
            let trouble = source.trouble();
            if trouble.is_some() {
                // Not at once over and over, should it come again.
                sleep(TROUBLE_PAUSE).await;
            }
            if trouble.is_some() || now.partitions as usize > source.partitions() {
                let from = source.position().clone();
                self.assign(source, log, &from).await?;
                if trouble == Some(Trouble::Denied) {
                    let why = "the topic may not be read; allow Read on it";
                    return Err(ReadError::Unavailable(why.into()));
                }
                continue;
            }
            let turn = if source.is_at_end() { IDLE_TURN } else { BUSY_TURN };
            let patience = if source.is_rechecked() { RECHECK_INTERVAL } else { FIRST_RECHECK };
            tokio::select! {
                () = source.ready() => {}
                // The sender is on the board, which `self` holds.
                _ = topic.changed() => {}
                () = sleep(turn), if is_wanted() => return Ok(None),
                () = sleep(IDLE_TURN), if !is_wanted() => {}
                () = sleep_until(waiting_since + patience) => {
                    waiting_since = Instant::now();
                    source.set_rechecked();
                    let bounds = self.bounds_of(log).await?;
                    if source.is_stuck_before(&bounds.end) {
                        let from = source.position().clone();
                        source.assign(&from, &bounds).map_err(unreadable)?;
                    }
                }
            }
        }
    }
}

fn unreadable(error: KafkaError) -> ReadError {
    ReadError::Unavailable(error.to_string().into())
}

/// The reader that follows the end of the log.
pub(super) struct Tail {
    link: Link,
    log: LogId,
    source: Source,
}

impl Tail {
    /// A tail that begins at `from`.
    pub async fn open(link: Link, log: LogId, from: Position) -> Result<Self, ReadError> {
        let mut source = link.source(Reading::Tail).await?;
        link.assign(&mut source, log, &from).await?;
        Ok(Self { link, log, source })
    }
}

impl LogReader for Tail {
    /// Ends when the brokers cannot be reached, so that whoever follows the log knows that
    /// there may be news that he does not see.
    fn next(&mut self, limits: ReadLimits) -> BoxFuture<'_, Result<ReadBatch, ReadError>> {
        async move {
            let mut reachable = self.link.board.reachable();
            tokio::select! {
                biased;
                read = self.link.read(&mut self.source, self.log, limits, || false) => {
                    // Nobody else wants it.
                    read?.ok_or_else(|| ReadError::Unavailable("nothing was read".into()))
                }
                Ok(verdict) = reachable.wait_for(Result::is_err) => {
                    let why = verdict.clone().err().unwrap_or_else(|| "unreachable".into());
                    Err(ReadError::Unavailable(why))
                }
            }
        }
        .boxed()
    }

    fn position(&self) -> &Position {
        self.source.position()
    }
}

/// The consumers that readers share: a reader has one while it waits for an answer, and
/// finds it as it left it if nobody else needed it in the meantime.
#[derive(Default)]
pub(super) struct Pool {
    seats: Mutex<Vec<Seat>>,
    permits: Permits,
    /// Readers that wait for a consumer.
    waiting: AtomicUsize,
    next_reader: AtomicU64,
}

struct Permits(Semaphore);

impl Default for Permits {
    fn default() -> Self {
        Self(Semaphore::new(SHARED_CONSUMERS))
    }
}

/// A consumer that nobody is using, and who used it last.
struct Seat {
    source: Source,
    reader: u64,
}

impl Pool {
    /// A consumer for a reader: the one that it had, or a new one, or the one that has been
    /// left alone for the longest.
    async fn take(&self, link: &Link, reader: u64) -> Result<Taking<'_>, ReadError> {
        let waiting = Waiting::new(&self.waiting);
        let permit = self.permits.0.acquire().await;
        drop(waiting);
        let Ok(permit) = permit else {
            return Err(ReadError::Unavailable("the log is being closed".into()));
        };
        let seat = {
            let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
            match seats.iter().position(|seat| seat.reader == reader) {
                Some(index) => Some(seats.remove(index)),
                // As many are in use as permits are out, so that there is one left when
                // there are as many as there may be.
                None if seats.len() + SHARED_CONSUMERS - self.permits.0.available_permits()
                    > SHARED_CONSUMERS =>
                {
                    Some(seats.remove(0))
                }
                None => None,
            }
        };
        let (source, is_as_left) = match seat {
            Some(Seat { source, reader: last }) => (source, last == reader),
            None => (link.source(Reading::Past).await?, false),
        };
        Ok(Taking { pool: self, source: Some(source), reader, is_as_left, _permit: permit })
    }

    fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Counts a reader that waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A consumer in use; goes back to the pool when dropped, and the permit after it.
struct Taking<'a> {
    pool: &'a Pool,
    source: Option<Source>,
    reader: u64,
    /// It is as this reader left it.
    is_as_left: bool,
    _permit: SemaphorePermit<'a>,
}

impl Taking<'_> {
    fn source(&mut self) -> &mut Source {
        self.source.as_mut().expect("it is there until it is given back")
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        if let Some(source) = self.source.take() {
            // Unless it was assigned, it is of no more use to the reader than any other.
            let reader = if self.is_as_left { self.reader } else { 0 };
            let mut seats = self.pool.seats.lock().unwrap_or_else(PoisonError::into_inner);
            seats.push(Seat { source, reader });
        }
    }
}

/// A reader that shares consumers with others.
pub(super) struct Shared {
    link: Link,
    pool: Arc<Pool>,
    log: LogId,
    reader: u64,
    position: Position,
}

impl Shared {
    /// A reader that begins at `from`.
    pub async fn open(
        link: Link,
        pool: Arc<Pool>,
        log: LogId,
        from: Position,
    ) -> Result<Self, ReadError> {
        link.bounds_of(log).await?;
        let reader = pool.next_reader.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Self { link, pool, log, reader, position: from })
    }

    async fn read(&mut self, limits: ReadLimits) -> Result<ReadBatch, ReadError> {
        loop {
            let mut taking = self.pool.take(&self.link, self.reader).await?;
            if !taking.is_as_left {
                let (log, from) = (self.log, &self.position);
                taking.source().forget();
                self.link.assign(taking.source(), log, from).await?;
                taking.is_as_left = true;
            }
            let pool = Arc::clone(&self.pool);
            let wanted = move || pool.is_wanted();
            let batch = self.link.read(taking.source(), self.log, limits, wanted).await?;
            match batch {
                Some(batch) => {
                    self.position.clone_from(&batch.position);
                    return Ok(batch);
                }
                None => {
                    drop(taking);
                    sleep(IDLE_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Shared {
    /// The consumer that it had must not go on fetching for nobody.
    fn drop(&mut self) {
        let mut seats = self.pool.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = seats.iter().position(|seat| seat.reader == self.reader);
        let seat = mine.map(|index| seats.remove(index));
        drop(seats);
        drop(seat);
    }
}

impl LogReader for Shared {
    fn next(&mut self, limits: ReadLimits) -> BoxFuture<'_, Result<ReadBatch, ReadError>> {
        self.read(limits).boxed()
    }

    fn position(&self) -> &Position {
        &self.position
    }
}
