//! Readers of the topic, each with a consumer of its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rdkafka::error::KafkaError;
use tokio::time::{Instant, sleep, sleep_until};

use super::board::Board;
use super::context::Context;
use super::monitor::Monitor;
use super::settings::{Options, Reading};
use super::source::{Source, Trouble};
use crate::event_log::{Bounds, LogId, LogReader, Position, ReadBatch, ReadError, ReadLimits};

/// How often a reader makes a consumer at the most: one costs threads and connections, and
/// what made it necessary may come again and again. To close one takes a tenth of a second, so
/// that a reader has three at the most, and for a moment.
const OPEN_INTERVAL: Duration = Duration::from_millis(50);

/// How soon a reader that has come to an end asks whether there really is nothing more (what
/// ends a transaction is no record, and moves the end), and how often it does so after that.
const FIRST_RECHECK: Duration = Duration::from_millis(200);
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How long bounds are waited for that have the place to be read: a replica that has just taken
/// over may for a moment know less than the one before it, and while a topic is being made anew
/// there is none, and nobody knows yet that it is another log. How often they are asked for.
const BOUNDS_PATIENCE: Duration = Duration::from_secs(10);
const BOUNDS_PAUSE: Duration = Duration::from_millis(500);

/// What every reader needs.
#[derive(Clone)]
pub(super) struct Link {
    pub options: Options,
    pub context: Context,
    pub board: Arc<Board>,
    pub monitor: Monitor,
}

impl Link {
    /// The bounds, if it is still this log.
    async fn bounds_of(&self, log: LogId) -> Result<Bounds, ReadError> {
        let bounds = self.monitor.bounds().await?;
        if bounds.log == log { Ok(bounds) } else { Err(ReadError::Replaced) }
    }

    /// The bounds, once they have `from`. See [`BOUNDS_PATIENCE`].
    async fn bounds_with(&self, log: LogId, from: &Position) -> Result<Bounds, ReadError> {
        let deadline = Instant::now() + BOUNDS_PATIENCE;
        loop {
            let error = match self.bounds_of(log).await {
                Ok(bounds) if bounds.end.covers(from) => return Ok(bounds),
                Ok(bounds) => ends_before(&bounds, from),
                Err(error @ ReadError::Unavailable(_)) => error,
                Err(error) => return Err(error),
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            sleep(BOUNDS_PAUSE).await;
        }
    }

    /// A source that reads from `from` on, after a look at identity and bounds.
    async fn source(
        &self,
        reading: Reading,
        log: LogId,
        from: &Position,
    ) -> Result<Source, ReadError> {
        let bounds = self.bounds_with(log, from).await?;
        let (options, context, from) = (self.options.clone(), self.context.clone(), from.clone());
        let open = move || Source::open(&options, context, reading, &from, &bounds);
        let opened = tokio::task::spawn_blocking(open).await;
        opened
            .map_err(|error| ReadError::Unavailable(error.to_string().into()))?
            .map_err(unreadable)
    }
}

/// What it means that the log ends before a place that was read.
fn ends_before(bounds: &Bounds, from: &Position) -> ReadError {
    let missing = from.iter().find(|(p, offset)| bounds.end.get(*p) < *offset);
    let (partition, offset) = missing.unwrap_or_default();
    let why = format!(
        "partition {partition} ends at {} although it was read up to {offset} before; was a \
         replica elected that was not in sync?",
        bounds.end.get(partition)
    );
    ReadError::Damaged(why.into())
}

fn unreadable(error: KafkaError) -> ReadError {
    ReadError::Unavailable(error.to_string().into())
}

/// A reader with a consumer of its own, which is made at the first read, and anew where that
/// one cannot read on.
pub(super) struct Reader {
    link: Link,
    reading: Reading,
    log: LogId,
    /// Everything before it was handed out. A new source begins here, so that what the one
    /// before it has taken and not handed out comes again.
    position: Position,
    source: Option<Source>,
    /// When a source may be made again. See [`OPEN_INTERVAL`].
    opens_at: Instant,
}

impl Reader {
    /// A reader that begins at `from`. Its consumer is a few threads, a connection to each
    /// broker, and what it fetches ahead.
    pub async fn open(link: Link, log: LogId, from: Position) -> Result<Self, ReadError> {
        link.bounds_with(log, &Position::default()).await?;
        Ok(Self::new(link, Reading::Past, log, from))
    }

    /// A reader that follows the end of the log from `from` on.
    pub async fn open_tail(link: Link, log: LogId, from: Position) -> Result<Self, ReadError> {
        let mut tail = Self::new(link, Reading::Tail, log, from);
        tail.have_source().await?;
        Ok(tail)
    }

    fn new(link: Link, reading: Reading, log: LogId, from: Position) -> Self {
        Self { link, reading, log, position: from, source: None, opens_at: Instant::now() }
    }

    /// Has a source that reads on from the position.
    async fn have_source(&mut self) -> Result<(), ReadError> {
        if self.source.is_none() {
            sleep_until(self.opens_at).await;
            self.opens_at = Instant::now() + OPEN_INTERVAL;
            let source = self.link.source(self.reading, self.log, &self.position).await?;
            self.source = Some(source);
        }
        Ok(())
    }

    /// Reads until there is something to hand out. May be dropped at any moment: what was
    /// taken stays in the source.
    async fn read(&mut self, limits: ReadLimits) -> Result<ReadBatch, ReadError> {
        let mut topic = self.link.board.topic();
        let mut waiting_since = Instant::now();
        loop {
            self.have_source().await?;
            let source = self.source.as_mut().expect("there is one now");
            let now = *topic.borrow_and_update();
            let Some(now) = now.filter(|topic| topic.log == self.log) else {
                return Err(ReadError::Replaced);
            };
            source.take();
            if source.is_unproven() {
                self.link.bounds_with(self.log, &Position::default()).await?;
                source.set_proven();
            }
            if let Some(batch) = source.hand_out(limits) {
                self.position.clone_from(&batch.position);
                return Ok(batch);
            }
            match source.trouble() {
                Some(Trouble::Denied) => {
                    // Whoever is told may try again at once, with another reader.
                    sleep_until(self.opens_at).await;
                    self.source = None;
                    let why = "the topic may not be read; allow Read on it";
                    return Err(ReadError::Unavailable(why.into()));
                }
                Some(Trouble::Lost) => {
                    self.source = None;
                    continue;
                }
                None if now.partitions as usize > source.partitions() => {
                    self.source = None;
                    continue;
                }
                None => {}
            }
            let patience = if source.is_rechecked() { RECHECK_INTERVAL } else { FIRST_RECHECK };
            tokio::select! {
                () = source.ready() => {}
                // The sender is on the board, which the link holds.
                _ = topic.changed() => {}
                () = sleep_until(waiting_since + patience) => {
                    waiting_since = Instant::now();
                    source.set_rechecked();
                    let bounds = self.link.bounds_with(self.log, &Position::default()).await?;
                    if source.is_stuck_before(&bounds.end) {
                        self.source = None;
                    }
                }
            }
        }
    }
}

impl LogReader for Reader {
    /// That of the tail ends when the brokers cannot be reached, so that whoever follows the
    /// log knows that there may be news that he does not see. The others wait for them.
    fn next(&mut self, limits: ReadLimits) -> BoxFuture<'_, Result<ReadBatch, ReadError>> {
        async move {
            let mut reachable = self.link.board.reachable();
            let follows = self.reading == Reading::Tail;
            tokio::select! {
                biased;
                read = self.read(limits) => read,
                Ok(verdict) = reachable.wait_for(Result::is_err), if follows => {
                    let why = verdict.clone().err().unwrap_or_else(|| "unreachable".into());
                    Err(ReadError::Unavailable(why))
                }
            }
        }
        .boxed()
    }

    fn seek(&mut self, log: LogId, from: Position) {
        self.log = log;
        self.position = from;
        self.source = None;
    }

    fn position(&self) -> &Position {
        &self.position
    }
}
