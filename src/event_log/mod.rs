//! The event log: the one place where events are kept, as a port with back ends.
//!
//! # What it promises
//!
//! A log is an identity ([`LogId`]) and one or more partitions, each an ordered
//! sequence of records with offsets that count upwards from 0. An offset, once
//! given, never names another record of the same log.
//!
//! A back end serves one log at a time. Where somebody else can put another one in
//! its place (a topic that is deleted and made anew), the back end notices and goes
//! on with that; readers of the old one end with [`ReadError::Replaced`].
//!
//! * **Durable before acknowledged.** [`EventLog::submit`] returns at once; its
//!   [`Ack`] is completed only when the record would survive the death of the
//!   process and of the machine (as far as the back end's storage keeps its
//!   word), or when the back end knows that it never will.
//! * **In order.** Records submitted to one partition one after the other by one
//!   thread are appended in that order.
//! * **Never lost silently.** An error says whether the record may still appear
//!   ([`AppendError::OutcomeUnknown`]) or surely will not (the others). A reader
//!   whose place was trimmed by retention gets a [`Trimmed`] that says so.
//! * **Visible once durable.** Every record that was acknowledged before
//!   [`EventLog::bounds`] is called lies below the end that it returns, and a
//!   reader is woken when a record is appended.
//! * **Append time** is the log's own clock, never decreasing within a partition.
//! * **Bounded.** What is queued and not yet appended is bounded by number and by
//!   bytes ([`AppendError::Overloaded`] beyond), a read by [`ReadLimits`].
//!
//! `conformance` holds the suite of tests that states this contract in code;
//! every back end passes it.
//!
//! # What it may not know
//!
//! Games. A record is bytes with a key; what they mean is `domain`'s business.

mod ack;
#[cfg(test)]
mod conformance;
mod cursor;
pub mod kafka;
pub mod local;
#[cfg(test)]
pub(crate) mod memory;
mod partitioner;
mod position;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

pub use ack::{Ack, AckBatch, AckDriver, Appender, Appending};
pub use cursor::{Cursor, CursorMalformed};
pub use partitioner::partition_of_key;
pub use position::Position;

use crate::clock::Timestamp;

/// The number of a partition, from 0.
pub type Partition = u32;

/// The place of a record in its partition, from 0.
pub type Offset = u64;

/// The most bytes that key and value of one record may have together: 1,000,000,
/// which stays below Kafka's default `max.message.bytes` (1,048,588) with room
/// for headers.
pub const MAX_RECORD_BYTES: usize = 1_000_000;

/// The identity of a log: another log has another one, also when it has the same
/// name or lies in the same folder. Kafka's topic id, or a random UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId(pub uuid::Uuid);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record to be appended.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// Where to. Below [`EventLog::key_partitions`].
    pub partition: Partition,
    /// What the record is about; decides nothing here, as the caller has already
    /// chosen the partition.
    pub key: Option<Bytes>,
    /// The record itself.
    pub value: Bytes,
    /// For foreign readers of a shared topic; see [`Attributes`].
    pub attributes: Attributes,
}

/// The CloudEvents 1.0 attributes of a record.
///
/// A back end whose log is read by others too (Kafka) writes them as headers
/// beside the record. One that is read through Herald alone may leave them out,
/// as everything in them is also in the value; they are never read back.
#[derive(Clone, Debug)]
pub struct Attributes {
    /// `ce_id`.
    pub id: uuid::Uuid,
    /// `ce_type`, such as `game.v1.ItemPurchased`.
    pub event_type: &'static str,
    /// `ce_time`.
    pub time: Timestamp,
    /// W3C trace context, when the call carried one.
    pub traceparent: Option<String>,
}

/// Where a record was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// In which log, as far as it was known then.
    pub log: LogId,
    /// Its partition.
    pub partition: Partition,
    /// Its offset there.
    pub offset: Offset,
    /// When the log took it.
    pub append_time: Timestamp,
}

/// A record read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: Partition,
    /// Its offset there.
    pub offset: Offset,
    /// When the log took it.
    pub append_time: Timestamp,
    /// As it was submitted.
    pub key: Option<Bytes>,
    /// As it was submitted.
    pub value: Bytes,
}

/// Why a record was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue is full. Not written; worth another try in a moment.
    #[error("the log's queue is full; try again shortly")]
    Overloaded,
    /// The log takes no writes now. Not written; worth another try later.
    #[error("the log takes no writes: {0}")]
    Unavailable(Arc<str>),
    /// Key and value are over [`MAX_RECORD_BYTES`]. Not written; no use trying
    /// again.
    #[error("a record of {0} bytes is over the limit of {MAX_RECORD_BYTES}")]
    TooLarge(usize),
    /// Nobody can say. The record may be in the log, or may still come.
    #[error("the log gave no answer: {0}")]
    OutcomeUnknown(Arc<str>),
}

/// Why the log could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It cannot be reached, or cannot be read. Worth another try later.
    #[error("the log cannot be read: {0}")]
    Unavailable(Arc<str>),
    /// Records are missing that have to be there. Trying again does not help.
    #[error("the log is damaged: {0}")]
    Damaged(Arc<str>),
    /// It is no longer the log with this identity; positions in it mean nothing.
    #[error("the log was replaced by another one")]
    Replaced,
}

/// The extent of the log at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Which log it is.
    pub log: LogId,
    /// The first record of each partition that is still there (or, where there is
    /// none, the same as the end).
    pub start: Position,
    /// The offset that the next record of each partition will get.
    pub end: Position,
}

/// How much one read may return. A read returns at least one record when there is
/// one, also when that one alone is over `bytes`.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Most records.
    pub records: usize,
    /// Most bytes of keys and values.
    pub bytes: usize,
}

/// What one read returned. `records` and `trimmed` may both be empty when only
/// the position moved (offsets that hold no record, such as Kafka's transaction
/// markers).
#[derive(Clone, Debug)]
pub struct ReadBatch {
    /// In the order of the log within each partition.
    pub records: Vec<Record>,
    /// What is missing before these records because retention removed it.
    pub trimmed: Vec<Trimmed>,
    /// Where to read on.
    pub position: Position,
}

/// Records that were gone before they could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// The partition they were in.
    pub partition: Partition,
    /// The offset that the reader wanted.
    pub from: Offset,
    /// The first offset that is still there; the reader goes on from it.
    pub to: Offset,
}

/// Whether the log takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Writable,
    /// It does not, and why, in words for an operator.
    Unwritable(Arc<str>),
}

/// A log. See the module for what it promises.
pub trait EventLog: Send + Sync + 'static {
    /// Over how many partitions keys are spread: those from 0 up to this number
    /// take new records. There may be more partitions to read.
    fn key_partitions(&self) -> u32;

    /// Hands over a record and returns at once, never blocking. `ack` is completed
    /// exactly once, on whatever thread; see the module for when.
    fn submit(&self, record: NewRecord, ack: Ack);

    /// The extent of the log now, as the log itself gives it.
    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, ReadError>>;

    /// Opens a reader of the log `log` at `from`. Partitions that `from` does not name
    /// are read from their start. [`ReadError::Replaced`] where it is another log now,
    /// as `from` means nothing there. What a reader costs is up to the back end (a consumer,
    /// with Kafka), so that who opens them has to set a limit to their number.
    fn open_reader(
        &self,
        log: LogId,
        from: Position,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, ReadError>>;

    /// As [`EventLog::open_reader`], for the one reader that follows the end for as long
    /// as the process runs, and wants each record soon.
    fn open_tail(
        &self,
        log: LogId,
        from: Position,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, ReadError>> {
        self.open_reader(log, from)
    }

    /// For each partition of the log `log`, the offset of the first record appended at
    /// `time` or later; the end where there is none.
    fn position_at(
        &self,
        log: LogId,
        time: Timestamp,
    ) -> BoxFuture<'_, Result<Position, ReadError>>;

    /// Whether the log takes writes, and changes of that.
    fn health(&self) -> watch::Receiver<Health>;

    /// Stops taking records ([`AppendError::Unavailable`] from then on) and returns
    /// when all that were taken are completed. The caller sets the deadline, by
    /// dropping the future.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Reads the log from a position on.
pub trait LogReader: Send {
    /// Waits until there is something behind the reader's position, and returns it.
    /// Dropping the future loses nothing: the next call returns the same again, also
    /// when it brings other limits.
    fn next(&mut self, limits: ReadLimits) -> BoxFuture<'_, Result<ReadBatch, ReadError>>;

    /// Goes to `from` of the log `log`, as if it were opened there: the next read begins there,
    /// and ends with [`ReadError::Replaced`] where it is another log now. No dearer than another
    /// reader.
    fn seek(&mut self, log: LogId, from: Position);

    /// Where the next read begins.
    fn position(&self) -> &Position;
}
