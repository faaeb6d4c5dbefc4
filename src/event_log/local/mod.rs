//! The embedded log: one SQLite database in one folder, for one process; others may read it.
//!
//! * `data_dir`: the folder, its lock; `folder`: what can be said of it from outside.
//! * `schema`, `store`: the database, and what a failed write means.
//! * `queue`, `writer`: from the callers through one thread to the disk.
//! * `cache`, `reader`: from memory or from the disk to the readers.
//! * `read_only`: from the disk to the readers of another process.
//! * `retention`: what is removed, when that is asked for.
//!
//! # What it promises beyond the port
//!
//! A record is acknowledged when SQLite has committed it with `synchronous=FULL`, that
//! is, when the disk has synced it. Killing the process at any moment loses nothing that
//! was acknowledged. A disk that is full, or fails, makes the log unwritable; it stays
//! readable, says why ([`EventLog::health`]), and takes writes again by itself.
//!
//! `rusqlite` is used in this folder only.

mod cache;
mod data_dir;
mod folder;
mod queue;
mod read_only;
#[cfg(test)]
mod read_only_tests;
mod reader;
mod retention;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use self::cache::Cache;
use self::data_dir::DataDir;
pub use self::folder::{FolderDescription, describe_folder};
use self::queue::Queue;
pub use self::read_only::open_read_only;
use self::reader::{LocalReader, ReadPool, position_at};
pub use self::retention::MIN_RETENTION_BYTES;
use self::retention::Policy;
use self::store::Store;
use self::writer::Writer;
use super::{Ack, Bounds, EventLog, Health, LogId, LogReader, NewRecord, Position, ReadError};
use crate::clock::{Clock, Timestamp};

/// Most partitions of a log. Each is a table, and the view over all of them may have at
/// most 500 parts in SQLite; one process gains nothing from many.
pub const MAX_PARTITIONS: u32 = 256;

/// How to open a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder; made where there is none.
    pub data_dir: PathBuf,
    /// How many partitions keys are spread over, from 1 to [`MAX_PARTITIONS`]. Decided
    /// when the log is made; it cannot be opened with another number.
    pub partitions: u32,
    /// Records older than this are removed, by their append time. None keeps them all.
    pub retention_age: Option<Duration>,
    /// When the pages in use take more bytes than this, the oldest records are removed;
    /// at least 4 MiB. None sets no limit. Looked at once a second, so that a second's
    /// worth of records may be there beyond it. The file keeps its largest size, as freed
    /// pages are used again; the write-ahead file beside it is not counted.
    pub retention_bytes: Option<u64>,
    /// Gives the append times.
    pub clock: Clock,
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made or used.
    #[error("cannot use {dir} as data directory; check the path and its permissions")]
    DataDir {
        /// The folder.
        dir: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{dir} is in use by another process; stop it, or choose another data directory")]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// There is nothing to read.
    #[error(
        "there is no log in {dir}; name the data directory of a server, which makes the log when it starts"
    )]
    NoLog {
        /// The folder.
        dir: PathBuf,
    },
    /// The file is something else.
    #[error("{path} is not a herald log; choose another data directory, or move the file away")]
    NotALog {
        /// The file.
        path: PathBuf,
    },
    /// The log has a format that this version cannot read.
    #[error(
        "{path} has format {found}, made by another version of herald; this one reads format {known}: upgrade herald"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The format that this version reads.
        known: i64,
    },
    /// The log has another number of partitions.
    #[error(
        "{path} was made with {found} partitions, not {wanted}; ask for {found}, or choose another data directory"
    )]
    Partitions {
        /// The file.
        path: PathBuf,
        /// How many it has.
        found: u32,
        /// How many were asked for.
        wanted: u32,
    },
    /// A number of partitions that no log can have.
    #[error("a log cannot have {0} partitions; choose from 1 to {MAX_PARTITIONS}")]
    PartitionCount(u32),
    /// A size to keep that is too small.
    #[error("cannot keep the log within {0} bytes; allow at least {MIN_RETENTION_BYTES}")]
    RetentionBytes(u64),
    /// The log is damaged.
    #[error("{path} is damaged ({reason}); restore it from a copy")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The database could not be opened or made.
    #[error("cannot open {path}: {reason}")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The operating system gave no thread.
    #[error("cannot start the log's writer thread ({0}); check the limit of threads")]
    Thread(io::Error),
}

/// A log in a folder of this machine. See the module.
pub struct LocalLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the log, its writer and its readers share.
struct Shared {
    id: LogId,
    partitions: u32,
    queue: Queue,
    cache: Cache,
    pool: ReadPool,
    /// Closed when the writer has ended.
    bounds: watch::Receiver<Bounds>,
    health: watch::Receiver<Health>,
}

impl Shared {
    /// The log in a folder stays the same one for as long as the folder is held.
    fn check(&self, log: LogId) -> Result<(), ReadError> {
        if self.id == log { Ok(()) } else { Err(ReadError::Replaced) }
    }

    /// The same place, with every partition named.
    fn named(&self, mut place: Position) -> Position {
        for partition in 0..self.partitions {
            place.set(partition, place.get(partition));
        }
        place
    }
}

impl LocalLog {
    /// Opens the log in a folder, and makes it where there is none. Blocks while the
    /// disk works: milliseconds, or as long as SQLite takes to recover after a crash.
    pub fn open(options: Options) -> Result<Arc<Self>, OpenError> {
        let Options { data_dir, partitions, retention_age, retention_bytes, clock } = options;
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(OpenError::PartitionCount(partitions));
        }
        if let Some(bytes) = retention_bytes
            && bytes < MIN_RETENTION_BYTES
        {
            return Err(OpenError::RetentionBytes(bytes));
        }
        let dir = DataDir::open(&data_dir)?;
        let (store, contents) = Store::open(&dir, partitions)?;
        tracing::info!(
            dir = %dir.path().display(), id = %contents.bounds.log, partitions, "opened the log"
        );
        let (bounds, bounds_seen) = watch::channel(contents.bounds.clone());
        let (health, health_seen) = watch::channel(Health::Writable);
        let shared = Arc::new(Shared {
            id: contents.bounds.log,
            partitions,
            queue: Queue::new(partitions),
            cache: Cache::new(partitions),
            pool: ReadPool::new(dir.database(), partitions),
            bounds: bounds_seen,
            health: health_seen,
        });
        let policy = Policy { age: retention_age, bytes: retention_bytes };
        let writer = Writer::new(
            Arc::clone(&shared),
            (store, contents),
            (policy, clock),
            (bounds, health),
            dir,
        );
        let writer = thread::Builder::new()
            .name("herald-log".to_owned())
            .spawn(move || writer.run())
            .map_err(OpenError::Thread)?;
        Ok(Arc::new(Self { shared, writer: Mutex::new(Some(writer)) }))
    }
}

impl EventLog for LocalLog {
    fn key_partitions(&self) -> u32 {
        self.shared.partitions
    }

    fn submit(&self, record: NewRecord, ack: Ack) {
        self.shared.queue.submit(record, ack);
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, ReadError>> {
        let bounds = self.shared.bounds.borrow().clone();
        async move { Ok(bounds) }.boxed()
    }

    fn open_reader(
        &self,
        log: LogId,
        from: Position,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, ReadError>> {
        async move {
            self.shared.check(log)?;
            let reader = LocalReader::new(Arc::clone(&self.shared), from);
            Ok(Box::new(reader) as Box<dyn LogReader>)
        }
        .boxed()
    }

    fn position_at(
        &self,
        log: LogId,
        time: Timestamp,
    ) -> BoxFuture<'_, Result<Position, ReadError>> {
        async move {
            self.shared.check(log)?;
            let bounds = self.shared.bounds.borrow().clone();
            self.shared.pool.run(move |conn, sql| position_at(conn, sql, &bounds, time)).await
        }
        .boxed()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.clone()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.shared.queue.close();
            let mut bounds = self.shared.bounds.clone();
            while bounds.changed().await.is_ok() {}
        }
        .boxed()
    }
}

impl Drop for LocalLog {
    /// As [`EventLog::close`], and blocks until the writer has ended, so that the folder
    /// is free. What it still has to do takes milliseconds.
    fn drop(&mut self) {
        self.shared.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the log's writer had panicked");
        }
    }
}
