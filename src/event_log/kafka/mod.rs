//! The log in Apache Kafka: one topic, whose partitions are the log's.
//!
//! # What it promises
//!
//! The port's contract, with these particulars:
//!
//! * **Durable** means: written by all replicas that are in sync, of which there are at
//!   least `min.insync.replicas`. The producer is idempotent, so that its own retries
//!   neither repeat nor reorder.
//! * A record that was taken waits for a broker for as long as the process lives, in order;
//!   how many may wait is bounded. A caller that does not wait so long has been told that the
//!   outcome is unknown. While nothing gets through, new records are refused at once.
//! * The topic's identity is looked at before a reader begins, every five seconds, and
//!   whenever a read fails. A topic that was deleted and made anew is another log; for up to
//!   five seconds its records may be taken for those of the old one.
//! * Append times are the broker's, which is why the topic has to be set to
//!   `LogAppendTime`. A topic that is missing is made; one that is not fit to be a log is
//!   refused, with the reason.
//! * Brokers that cannot be reached stop nothing but writing and reading: both go on by
//!   themselves when the brokers are back.
//!
//! # How it works
//!
//! A thread polls the producer ([`writer`]), another asks about the topic ([`monitor`]), and
//! what both know is on the [`board`]. Readers poll their own consumers, woken by librdkafka
//! ([`reader`], [`source`]); librdkafka's own queue, which is bounded, is what
//! lies between. A consumer is assigned once: to read elsewhere takes another one.

mod board;
mod context;
mod ffi;
mod monitor;
mod reader;
mod settings;
mod source;
mod tally;
#[cfg(test)]
mod tests;
mod topic;
mod writer;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use rdkafka::error::KafkaError;
use tokio::sync::watch;

use self::board::Board;
use self::context::Context;
use self::monitor::Monitor;
use self::reader::{Link, Reader};
pub use self::settings::{
    DEFAULT_KEY_PARTITIONS, DEFAULT_TOPIC, MAX_KEY_PARTITIONS, MAX_QUEUED_KIB, MAX_QUEUED_RECORDS,
    MIN_QUEUED_PER_PARTITION, Options, Properties,
};
use self::topic::Inspector;
pub use self::topic::{DescribeError, PartitionDescription, TopicDescription};
use self::writer::Writer;
use super::{Ack, Bounds, EventLog, Health, LogId, LogReader, NewRecord, Position, ReadError};
use crate::clock::Timestamp;

/// How long opening waits for the first look at the topic, so that a log that is well is
/// well from the start.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// How long the end of the process waits for the last clients; letting go of one takes a tenth of
/// a second.
const LAST_CLIENTS: Duration = Duration::from_secs(2);

/// Why a log that was closed takes nothing.
const CLOSED: &str = "herald is stopping";

/// Why a log could not be opened. That brokers cannot be reached is no reason.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// librdkafka refuses its configuration.
    #[error("the Kafka client cannot be configured: {0}; check --kafka-config")]
    Client(#[from] KafkaError),
    /// The operating system gave no thread.
    #[error("cannot start a thread for Kafka ({0}); check the limit of threads")]
    Thread(io::Error),
}

/// A log in Kafka. See the module.
pub struct KafkaLog {
    key_partitions: u32,
    writer: Arc<Writer>,
    link: Link,
}

impl KafkaLog {
    /// Opens the log. Waits a while for the brokers, and returns also without them.
    pub async fn open(options: Options, registry: &mut Registry) -> Result<Arc<Self>, OpenError> {
        let key_partitions = options.key_partitions();
        let context = Context::new(registry);
        let board = Arc::new(Board::new());
        let writer = Writer::start(options.clone(), context.clone(), Arc::clone(&board))?;
        let writer = Arc::new(writer);
        let (monitor, mut settled) = Monitor::start(
            options.clone(),
            context.clone(),
            Arc::clone(&board),
            Arc::clone(&writer),
        )?;
        let link = Link { options, context, board, monitor };
        // What comes of it is on the board either way.
        let _ = tokio::time::timeout(FIRST_LOOK, settled.wait_for(|settled| *settled)).await;
        Ok(Arc::new(Self { key_partitions, writer, link }))
    }
}

/// Asks about a topic, without opening it as a log. Blocks for some seconds when the brokers
/// do not answer, and may not be called on a runtime's thread. Makes nothing.
///
/// # Errors
///
/// Why nothing can be said, for an operator.
pub fn describe_topic(options: Options) -> Result<TopicDescription, DescribeError> {
    let inspector = Inspector::new(options, Context::default())
        .map_err(|error| DescribeError::Unavailable(error.to_string().into()))?;
    inspector.describe()
}

/// Waits until the clients that were dropped have ended: to be called before the process ends.
///
/// A consumer is let go of on a thread of its own, and its connections are TLS until it has
/// ended; when OpenSSL is taken down under them, as it is when a process exits, they may end it
/// by SIGSEGV. Where none was made, it returns at once; at the latest after
/// 2 seconds.
pub fn wait_for_clients() {
    if !ffi::all_ended(LAST_CLIENTS) {
        tracing::debug!("clients of Kafka have not ended");
    }
}

impl EventLog for KafkaLog {
    fn key_partitions(&self) -> u32 {
        self.key_partitions
    }

    fn submit(&self, record: NewRecord, ack: Ack) {
        self.writer.submit(record, ack);
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, ReadError>> {
        self.link.monitor.bounds()
    }

    fn open_reader(
        &self,
        log: LogId,
        from: Position,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, ReadError>> {
        async move {
            let reader = Reader::open(self.link.clone(), log, from).await?;
            Ok(Box::new(reader) as Box<dyn LogReader>)
        }
        .boxed()
    }

    fn open_tail(
        &self,
        log: LogId,
        from: Position,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, ReadError>> {
        async move {
            let tail = Reader::open_tail(self.link.clone(), log, from).await?;
            Ok(Box::new(tail) as Box<dyn LogReader>)
        }
        .boxed()
    }

    fn position_at(
        &self,
        log: LogId,
        time: Timestamp,
    ) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.link.monitor.position_at(log, time)
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.link.board.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.writer.close().boxed()
    }
}
