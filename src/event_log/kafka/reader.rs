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

/// How long a reader that lost its place waits before it looks for it.
const TROUBLE_PAUSE: Duration = Duration::from_millis(100);

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

    /// Reads with a source until there is something to hand out. May be dropped at any
    /// moment: what was taken stays in the source.
    async fn read(
        &self,
        source: &mut Source,
        log: LogId,
        limits: ReadLimits,
    ) -> Result<ReadBatch, ReadError> {
        let mut topic = self.board.topic();
        let mut waiting_since = Instant::now();
        loop {
            let now = *topic.borrow_and_update();
            let Some(now) = now.filter(|topic| topic.log == log) else {
                return Err(ReadError::Replaced);
            };
            source.take();
            if let Some(batch) = source.hand_out(limits) {
                return Ok(batch);
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
            let patience = if source.is_rechecked() { RECHECK_INTERVAL } else { FIRST_RECHECK };
            tokio::select! {
                () = source.ready() => {}
                // The sender is on the board, which `self` holds.
                _ = topic.changed() => {}
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

/// A reader with a consumer of its own, which is made at the first read.
pub(super) struct Reader {
    link: Link,
    reading: Reading,
    log: LogId,
    /// Everything before it was handed out.
    position: Position,
    source: Option<Source>,
    /// The source reads on from the position.
    is_assigned: bool,
}

impl Reader {
    /// A reader that begins at `from`. Its consumer is a few threads, a connection to each
    /// broker, and what it fetches ahead.
    pub async fn open(link: Link, log: LogId, from: Position) -> Result<Self, ReadError> {
        link.bounds_of(log).await?;
        Ok(Self::new(link, Reading::Past, log, from))
    }

    /// A reader that follows the end of the log from `from` on.
    pub async fn open_tail(link: Link, log: LogId, from: Position) -> Result<Self, ReadError> {
        let mut tail = Self::new(link, Reading::Tail, log, from);
        tail.assign().await?;
        Ok(tail)
    }

    fn new(link: Link, reading: Reading, log: LogId, from: Position) -> Self {
        Self { link, reading, log, position: from, source: None, is_assigned: false }
    }

    /// Has a source that reads on from the position.
    async fn assign(&mut self) -> Result<(), ReadError> {
        if self.source.is_none() {
            self.source = Some(self.link.source(self.reading).await?);
        }
        let source = self.source.as_mut().expect("it was made");
        if !self.is_assigned {
            source.forget();
            self.link.assign(source, self.log, &self.position).await?;
            self.is_assigned = true;
        }
        Ok(())
    }

    async fn read(&mut self, limits: ReadLimits) -> Result<ReadBatch, ReadError> {
        self.assign().await?;
        let source = self.source.as_mut().expect("it was assigned");
        let batch = self.link.read(source, self.log, limits).await?;
        self.position.clone_from(&batch.position);
        Ok(batch)
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
        self.is_assigned = false;
    }

    fn position(&self) -> &Position {
        &self.position
    }
}
