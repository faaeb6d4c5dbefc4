//! Reading a log that another process may have open.
//!
//! Nothing is taken from that process: not the folder's lock, so that it may start, stop and
//! die as it likes, and no more of the database than a short read transaction at a time.
//!
//! Each read looks at the database anew, and takes bounds and records from one snapshot. A
//! record is acknowledged once its transaction is committed, and a snapshot has all that was
//! committed before it (<https://sqlite.org/isolation.html>); so nothing that was acknowledged
//! before a call is missing from its answer. Nothing runs between the calls.
//!
//! # What SQLite does on behalf of a reader
//!
//! * It makes the files `-wal` and `-shm` beside the database where they are missing, and
//!   readers mark in `-shm` what they are reading. Who may not write them can read only while
//!   both are there, as while a server runs
//!   (<https://sqlite.org/wal.html#read_only_databases>). What it makes has the database's
//!   permissions and, made by root, its owner: a server finds nothing that it may not use.
//! * A server that was killed leaves records in `-wal` alone. Who comes first reads that file
//!   through, once, and who comes second waits for it, be it reader or server
//!   (<https://sqlite.org/walformat.html#recovery>).
//! * The last connection that is closed moves `-wal` into the database and deletes it, under an
//!   exclusive lock on the database
//!   (<https://sqlite.org/walformat.html#operations_that_require_locks_and_which_locks_those_operations_use>).
//!   A read-only connection never does: the lock is one for writing, which the system does not
//!   give on a file that is open for reading. Then both files stay, with all that is in them,
//!   and the next server goes on from them. A server that closes last but for a reader leaves
//!   them too, empty.
//! * Until a read has ended `-wal` cannot start anew: it grows by what is written meanwhile. A
//!   read ends within its limits, milliseconds for a few MiB.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::data_dir::DATABASE_FILE;
use super::queue::CLOSED;
use super::reader::{FileId, ReadFailure, ReadPool, View, position_at};
use super::schema::{check_format, is_blank, open_error};
use super::store::{self, PartitionSql, explain_reading};
use super::{MAX_PARTITIONS, OpenError};
use crate::clock::Timestamp;
use crate::event_log::{
    Ack, AppendError, Bounds, EventLog, Health, LogId, LogReader, NewRecord, Partition, Position,
    ReadBatch, ReadError, ReadLimits,
};

/// How often a reader that waits at the end looks whether there is more (100 ms). Nothing
/// else tells one process what another has committed. A look at six partitions takes some 0.2 ms.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Why nothing can be written.
const READ_ONLY: &str = "it is open for reading only; write through the server";

/// Opens the log in a folder for reading, also while another process writes to it, and
/// whatever becomes of that process. Makes neither folder nor log, and does not keep a server
/// from starting. The log has as many partitions as it was made with.
///
/// Its readers belong on a tokio runtime with time. Where another log is put into the folder,
/// readers end with [`ReadError::Replaced`], and new ones read that. While the folder is gone
/// they end with [`ReadError::Unavailable`].
///
/// Blocks while the disk works, as [`super::LocalLog::open`] does.
///
/// # Errors
///
/// [`OpenError::NoLog`] where the folder or the log is missing, and those for a file that is
/// no log, is damaged, or cannot be read.
pub fn open_read_only(dir: &Path) -> Result<Arc<dyn EventLog>, OpenError> {
    let found = Arc::new(Found::in_folder(dir)?);
    tracing::info!(
        dir = %dir.display(), id = %found.id, partitions = found.partitions,
        "opened the log for reading"
    );
    Ok(Arc::new(ReadOnlyLog {
        log: Arc::new(Opened {
            dir: dir.to_path_buf(),
            found: Mutex::new(found),
            closed: CancellationToken::new(),
        }),
        health: watch::Sender::new(Health::Unwritable(READ_ONLY.into())),
    }))
}

/// A log that somebody else may write. See the module.
struct ReadOnlyLog {
    log: Arc<Opened>,
    /// Never changes.
    health: watch::Sender<Health>,
}

/// What the log and its readers share.
struct Opened {
    dir: PathBuf,
    found: Mutex<Arc<Found>>,
    closed: CancellationToken,
}

/// The log that was found in the folder.
struct Found {
    id: LogId,
    partitions: u32,
    pool: ReadPool,
}

impl Found {
    fn in_folder(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(DATABASE_FILE);
        let none = || OpenError::NoLog { dir: dir.to_path_buf() };
        let file = FileId::of(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => none(),
            _ => OpenError::DataDir { dir: dir.to_path_buf(), source },
        })?;
        let failed = |error: rusqlite::Error| {
            let reason = explain_reading(&error, dir);
            match open_error(&path, error) {
                OpenError::Database { path, .. } => OpenError::Database { path, reason },
                other => other,
            }
        };
        let connection = store::connect_reader(&path, MAX_PARTITIONS).map_err(failed)?;
        // One view of it all.
        let transaction = connection.unchecked_transaction().map_err(failed)?;
        if is_blank(&connection).map_err(failed)? {
            return Err(none());
        }
        check_format(&connection, &path)?;
        let id = store::log_id(&connection).map_err(failed)?;
        let partitions = store::partitions_of(&connection).map_err(failed)?;
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            let reason = format!("it has {partitions} partitions");
            return Err(OpenError::Corrupt { path, reason });
        }
        transaction.finish().map_err(failed)?;
        let pool = ReadPool::of_file(path, file, partitions, connection);
        Ok(Self { id, partitions, pool })
    }
}

impl Opened {
    fn found(&self) -> Arc<Found> {
        Arc::clone(&self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `work` on a snapshot of the log and its bounds. With `of` that has to be this log.
    async fn look<T: Send + 'static>(
        &self,
        of: Option<LogId>,
        work: impl FnOnce(&Connection, &[PartitionSql], Bounds) -> Result<T, ReadFailure>
        + Clone
        + Send
        + 'static,
    ) -> Result<T, ReadError> {
        loop {
            let found = self.found();
            let id = found.id;
            if of.is_some_and(|of| of != id) {
                return Err(ReadError::Replaced);
            }
            let work = work.clone();
            let looked = found.pool.run(move |conn, sql| {
                if store::log_id(conn)? != id {
                    return Err(ReadFailure::Read(ReadError::Replaced));
                }
                let bounds = store::contents(conn, sql, id)?.bounds;
                work(conn, sql, bounds)
            });
            match looked.await {
                Err(ReadError::Replaced) => self.find_again().await?,
                looked => return looked,
            }
        }
    }

    /// Another file is there: another log, or the same one from a copy.
    async fn find_again(&self) -> Result<(), ReadError> {
        let dir = self.dir.clone();
        let unavailable = |reason: String| ReadError::Unavailable(reason.into());
        let found = tokio::task::spawn_blocking(move || Found::in_folder(&dir))
            .await
            .map_err(|_| unavailable("the read was cut off by a shutdown".into()))?
            .map_err(|error| unavailable(error.to_string()))?;
        tracing::info!(dir = %self.dir.display(), id = %found.id, "found another file of a log");
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
        Ok(())
    }

    /// Waits until there is something behind a place, and reads it.
    async fn next(
        self: Arc<Self>,
        log: LogId,
        position: Position,
        turn: Partition,
        limits: ReadLimits,
    ) -> Result<ReadBatch, ReadError> {
        loop {
            let is_closed = self.closed.is_cancelled();
            let position = position.clone();
            let read = self.look(Some(log), move |conn, sql, bounds| {
                View { bounds, position, turn }.read_database(conn, sql, limits)
            });
            let batch = read.await?;
            if !batch.records.is_empty() || !batch.trimmed.is_empty() {
                return Ok(batch);
            }
            if is_closed {
                return Err(ReadError::Unavailable(CLOSED.into()));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = self.closed.cancelled() => {}
            }
        }
    }
}

impl EventLog for ReadOnlyLog {
    fn key_partitions(&self) -> u32 {
        self.log.found().partitions
    }

    fn submit(&self, _record: NewRecord, ack: Ack) {
        ack.complete(Err(AppendError::Unavailable(READ_ONLY.into())));
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, ReadError>> {
        self.log.look(None, |_, _, bounds| Ok(bounds)).boxed()
    }

    fn open_reader(
        &self,
        log: LogId,
        from: Position,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, ReadError>> {
        async move {
            let bounds = self.log.look(Some(log), |_, _, bounds| Ok(bounds)).await?;
            let reader = ReadOnlyReader {
                log: Arc::clone(&self.log),
                of: log,
                position: named(from, &bounds.end),
                turn: 0,
                pending: None,
            };
            Ok(Box::new(reader) as Box<dyn LogReader>)
        }
        .boxed()
    }

    fn position_at(
        &self,
        log: LogId,
        time: Timestamp,
    ) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.log
            .look(Some(log), move |conn, sql, bounds| position_at(conn, sql, &bounds, time))
            .boxed()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.log.closed.cancel();
        std::future::ready(()).boxed()
    }
}

impl Drop for ReadOnlyLog {
    fn drop(&mut self) {
        self.log.closed.cancel();
    }
}

/// A reader of all partitions.
struct ReadOnlyReader {
    log: Arc<Opened>,
    /// The log that its position is of.
    of: LogId,
    position: Position,
    /// The partition that is read first next time.
    turn: Partition,
    /// A read under way, kept apart from the future that awaits it: who drops that one and
    /// asks again finds it where it was, and does not look more often.
    pending: Option<BoxFuture<'static, Result<ReadBatch, ReadError>>>,
}

impl ReadOnlyReader {
    async fn read_next(&mut self, limits: ReadLimits) -> Result<ReadBatch, ReadError> {
        let pending = self.pending.get_or_insert_with(|| {
            let position = self.position.clone();
            Arc::clone(&self.log).next(self.of, position, self.turn, limits).boxed()
        });
        let read = pending.await;
        self.pending = None;
        let batch = read?;
        self.position = batch.position.clone();
        self.turn = (self.turn + 1) % self.log.found().partitions;
        Ok(batch)
    }
}

impl LogReader for ReadOnlyReader {
    fn next(&mut self, limits: ReadLimits) -> BoxFuture<'_, Result<ReadBatch, ReadError>> {
        self.read_next(limits).boxed()
    }

    fn seek(&mut self, log: LogId, from: Position) {
        self.of = log;
        self.position = named(from, &Position::zero(self.log.found().partitions as usize));
        self.pending = None;
    }

    fn position(&self) -> &Position {
        &self.position
    }
}

/// The same place, with every partition named that `all` names.
fn named(mut place: Position, all: &Position) -> Position {
    for (partition, _) in all.iter() {
        place.set(partition, place.get(partition));
    }
    place
}
