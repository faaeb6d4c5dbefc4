//! Reading: from the cache where the records are new, else from the database.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io, mem};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::{Connection, params};
use tokio::sync::{Semaphore, watch};

use super::queue::CLOSED;
use super::store::{self, PartitionSql, explain, explain_reading, from_sql, to_sql};
use super::{Cache, Shared};
use crate::clock::Timestamp;
use crate::event_log::{
    Bounds, LogId, LogReader, Offset, Partition, Position, ReadBatch, ReadError, ReadLimits,
    Record, Trimmed,
};

/// How many reads of the database run at a time. More would only compete with the
/// writer for the same disk and processors, and each may take a page cache (2 MB).
const READ_CONNECTIONS: usize = 2;

/// A value at least this large gets memory of its own; smaller ones share a block, so
/// that reading many costs few allocations.
const OWN_BLOCK_BYTES: usize = 16 << 10;

/// What a run of shared values is put in (64 KiB), and the most that one small value
/// which is kept for long may keep with it.
const BLOCK_BYTES: usize = 64 << 10;

/// The connections that only read, each for one short transaction at a time: a long
/// one would keep the write-ahead file from starting anew.
pub(super) struct ReadPool {
    path: PathBuf,
    /// The file that they are of, where somebody else may put another one in its place.
    file: Option<FileId>,
    sql: Arc<[PartitionSql]>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl ReadPool {
    /// For a file that stays.
    pub(super) fn new(path: PathBuf, partitions: u32) -> Self {
        Self {
            path,
            file: None,
            sql: PartitionSql::all(partitions).into(),
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(READ_CONNECTIONS)),
        }
    }

    /// For a file that may become another one, which is [`ReadError::Replaced`]; with a first
    /// connection to it.
    pub(super) fn of_file(
        path: PathBuf,
        file: FileId,
        partitions: u32,
        connection: Connection,
    ) -> Self {
        let idle = Arc::new(Mutex::new(vec![connection]));
        Self { file: Some(file), idle, ..Self::new(path, partitions) }
    }

    /// Runs `work` in a read transaction, on a thread where it may block. What was
    /// begun runs to its end also when the future is dropped, and counts until then.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &[PartitionSql]) -> Result<T, ReadFailure> + Send + 'static,
    ) -> Result<T, ReadError> {
        let permit =
            Arc::clone(&self.permits).acquire_owned().await.expect("nothing closes the semaphore");
        let (path, sql, idle) = (self.path.clone(), Arc::clone(&self.sql), Arc::clone(&self.idle));
        let file = self.file;
        let read = move || {
            let _permit = permit;
            if let Some(file) = file
                && FileId::of(&path).map_err(|error| not_there(&path, &error))? != file
            {
                return Err(ReadFailure::Read(ReadError::Replaced));
            }
            let pooled = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let partitions = u32::try_from(sql.len()).unwrap_or(u32::MAX);
            let conn = match pooled {
                Some(conn) => conn,
                None => store::connect_reader(&path, partitions)?,
            };
            let transaction = conn.unchecked_transaction()?;
            let value = work(&conn, &sql)?;
            transaction.finish()?;
            // A connection that failed is not kept.
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
            Ok(value)
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(ReadFailure::Read(error))) => Err(error),
            Ok(Err(ReadFailure::Sql(error))) => {
                let dir = self.path.parent().unwrap_or(&self.path);
                let explain = if self.file.is_some() { explain_reading } else { explain };
                Err(ReadError::Unavailable(explain(&error, dir).into()))
            }
            Err(_) => Err(ReadError::Unavailable("the read was cut off by a shutdown".into())),
        }
    }

    /// Closes the connections that nobody uses.
    pub(super) fn close_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// For each partition, the first offset within `bounds` that was appended at `time` or
/// later. As append times never decrease, halving finds it.
pub(super) fn position_at(
    conn: &Connection,
    sql: &[PartitionSql],
    bounds: &Bounds,
    time: Timestamp,
) -> Result<Position, ReadFailure> {
    let mut position = Position::zero(sql.len());
    for (partition, sql) in (0..).zip(sql) {
        let end = bounds.end.get(partition);
        let mut low = store::log_start(conn, partition)?.min(end);
        let mut high = end;
        while low < high {
            let middle = low + (high - low) / 2;
            let at =
                store::append_time(conn, sql, middle)?.ok_or_else(|| missing(partition, middle))?;
            if at < time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        position.set(partition, low);
    }
    Ok(position)
}

/// Tells a file from another one of the same name.
///
/// Asked for by the path, and never by opening the file: with POSIX's locks, closing any
/// descriptor of a file lets go of all locks that this process has on it, SQLite's among them
/// (<https://sqlite.org/howtocorrupt.html>, 2.2). A connection holds its file, so that no other
/// one gets the same numbers meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self { device: file.dev(), inode: file.ino() })
    }
}

fn not_there(path: &Path, error: &io::Error) -> ReadFailure {
    let reason = format!("{} is not there ({error}); put it back, or end this", path.display());
    ReadFailure::Read(ReadError::Unavailable(reason.into()))
}

/// Why a read failed.
pub(super) enum ReadFailure {
    /// By the database.
    Sql(rusqlite::Error),
    /// By what was found in it.
    Read(ReadError),
}

impl From<rusqlite::Error> for ReadFailure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

fn missing(partition: Partition, offset: Offset) -> ReadFailure {
    let reason = format!(
        "partition {partition} lacks offset {offset}, which it had; restore the database from a copy"
    );
    ReadFailure::Read(ReadError::Damaged(reason.into()))
}

/// What a reader is behind by in one partition; never empty.
#[derive(Clone, Copy)]
pub(super) struct Want {
    pub(super) partition: Partition,
    pub(super) from: Offset,
    pub(super) end: Offset,
}

/// The records of one read, within its limits.
pub(super) struct Gather {
    records: Vec<Record>,
    left: ReadLimits,
}

impl Gather {
    fn new(limits: ReadLimits) -> Self {
        Self { records: Vec::new(), left: limits }
    }

    /// An equal share of what is left, when so many partitions are still to be read.
    pub(super) fn share(&self, partitions: usize) -> ReadLimits {
        let partitions = partitions.max(1);
        ReadLimits {
            records: self.left.records.div_ceil(partitions),
            bytes: self.left.bytes.div_ceil(partitions),
        }
    }

    /// Whether a record of so many bytes may still come in, and counts it. The first
    /// one always may.
    pub(super) fn admits(&mut self, share: &mut ReadLimits, bytes: usize) -> bool {
        let fits = share.records > 0 && share.bytes >= bytes;
        if !fits && !self.records.is_empty() {
            return false;
        }
        for limits in [share, &mut self.left] {
            limits.records = limits.records.saturating_sub(1);
            limits.bytes = limits.bytes.saturating_sub(bytes);
        }
        true
    }

    pub(super) fn push(&mut self, record: Record) {
        self.records.push(record);
    }
}

/// A reader of all partitions.
pub(super) struct LocalReader {
    shared: Arc<Shared>,
    /// The log that its position is of.
    log: LogId,
    bounds: watch::Receiver<Bounds>,
    position: Position,
    /// The partition that is read first next time, so that each is in its turn,
    /// however small the limits.
    turn: Partition,
    /// A read under way. Kept apart from the future that awaits it, so that who drops
    /// that one and asks again finds the read where it was, and not at the end of the
    /// queue for a connection.
    pending: Option<BoxFuture<'static, Result<ReadBatch, ReadError>>>,
}

impl LocalReader {
    pub(super) fn new(shared: Arc<Shared>, from: Position) -> Self {
        let position = shared.named(from);
        Self {
            log: shared.id,
            bounds: shared.bounds.clone(),
            shared,
            position,
            turn: 0,
            pending: None,
        }
    }

    async fn read_next(&mut self, limits: ReadLimits) -> Result<ReadBatch, ReadError> {
        self.shared.check(self.log)?;
        loop {
            let pending = match &mut self.pending {
                Some(pending) => pending,
                None => {
                    // Marked as seen before it is read: what comes meanwhile wakes us.
                    let bounds = self.bounds.borrow_and_update().clone();
                    let position = self.position.clone();
                    let view = View { bounds, position, turn: self.turn };
                    let shared = Arc::clone(&self.shared);
                    self.pending.insert(async move { view.read(&shared, limits).await }.boxed())
                }
            };
            let read = pending.await;
            self.pending = None;
            let batch = read?;
            if !batch.records.is_empty() || !batch.trimmed.is_empty() {
                // Nothing is awaited behind this: a future that was dropped has not moved
                // the position.
                self.position = batch.position.clone();
                self.turn = (self.turn + 1) % self.shared.partitions;
                return Ok(batch);
            }
            if self.bounds.changed().await.is_err() {
                return Err(ReadError::Unavailable(CLOSED.into()));
            }
        }
    }
}

/// What one read starts from.
#[derive(Clone)]
pub(super) struct View {
    pub(super) bounds: Bounds,
    pub(super) position: Position,
    pub(super) turn: Partition,
}

impl View {
    /// Reads from the cache what it has, and the rest from the database.
    async fn read(self, shared: &Shared, limits: ReadLimits) -> Result<ReadBatch, ReadError> {
        let (wants, mut trimmed) = self.wants();
        let mut gather = Gather::new(limits);
        let missing = read_cache(&shared.cache, wants, &mut gather);
        if !missing.is_empty() {
            let read = move |conn: &_, sql: &_| read_database(conn, sql, &missing, gather);
            let (gathered, gone) = shared.pool.run(read).await?;
            gather = gathered;
            trimmed.extend(gone);
        }
        Ok(self.batch(gather, trimmed))
    }

    /// Reads all of it from the database, within a transaction.
    pub(super) fn read_database(
        self,
        conn: &Connection,
        sql: &[PartitionSql],
        limits: ReadLimits,
    ) -> Result<ReadBatch, ReadFailure> {
        let (wants, mut trimmed) = self.wants();
        let (gather, gone) = read_database(conn, sql, &wants, Gather::new(limits))?;
        trimmed.extend(gone);
        Ok(self.batch(gather, trimmed))
    }

    /// What was read, and where that leads.
    fn batch(self, gather: Gather, trimmed: Vec<Trimmed>) -> ReadBatch {
        let mut position = self.position;
        for gone in &trimmed {
            position.set(gone.partition, gone.to);
        }
        for record in &gather.records {
            position.set(record.partition, record.offset + 1);
        }
        ReadBatch { records: gather.records, trimmed, position }
    }

    /// What is to be read, in order: the partition whose turn it is, then the rest by
    /// how little it is behind, so that what one leaves of its share goes to those
    /// that need more. And what is to be told because it is not there any more.
    fn wants(&self) -> (Vec<Want>, Vec<Trimmed>) {
        let bounds = &self.bounds;
        let (mut wants, mut trimmed) = (Vec::new(), Vec::new());
        for (partition, end) in bounds.end.iter() {
            let (from, start) = (self.position.get(partition), bounds.start.get(partition));
            if from < start {
                trimmed.push(Trimmed { partition, from, to: start });
            }
            let from = from.max(start);
            if from < end {
                wants.push(Want { partition, from, end });
            }
        }
        let first = wants.iter().position(|want| want.partition >= self.turn).unwrap_or(0);
        if first < wants.len() {
            wants.swap(0, first);
            wants[1..].sort_unstable_by_key(|want| want.end - want.from);
        }
        (wants, trimmed)
    }
}

/// Reads what the cache has, and returns the rest. When the partition whose turn it
/// is is not there, all is left to the database, so that the others cannot take its
/// place for ever.
fn read_cache(cache: &Cache, wants: Vec<Want>, gather: &mut Gather) -> Vec<Want> {
    let cached = cache.lock();
    if !wants.first().is_some_and(|first| cached.has(first)) {
        return wants;
    }
    let mut missing = Vec::new();
    for (done, want) in wants.iter().enumerate() {
        if cached.has(want) {
            cached.read(want, wants.len() - done, gather);
        } else {
            missing.push(*want);
        }
    }
    missing
}

fn read_database(
    conn: &Connection,
    sql: &[PartitionSql],
    wants: &[Want],
    mut gather: Gather,
) -> Result<(Gather, Vec<Trimmed>), ReadFailure> {
    let mut trimmed = Vec::new();
    let mut block = BytesMut::new();
    for (done, want) in wants.iter().enumerate() {
        let Want { partition, from, end } = *want;
        // Retention may have come between the reader's view and this transaction.
        let start = store::log_start(conn, partition)?;
        if from < start {
            trimmed.push(Trimmed { partition, from, to: start });
        }
        let mut share = gather.share(wants.len() - done);
        let mut next = from.max(start);
        let mut statement = conn.prepare_cached(&sql[partition as usize].read)?;
        let mut rows = statement.query(params![to_sql(next), to_sql(end)])?;
        while next < end {
            let Some(row) = rows.next()? else { return Err(missing(partition, next)) };
            if from_sql(row.get(0)?) != next {
                return Err(missing(partition, next));
            }
            let key = row.get_ref(2)?.as_bytes_or_null().map_err(rusqlite::Error::from)?;
            let value = row.get_ref(3)?.as_bytes().map_err(rusqlite::Error::from)?;
            if !gather.admits(&mut share, key.map_or(0, <[u8]>::len) + value.len()) {
                break;
            }
            gather.push(Record {
                partition,
                offset: next,
                append_time: Timestamp::from_millis(row.get(1)?),
                key: key.map(|key| shared_copy(&mut block, key)),
                value: shared_copy(&mut block, value),
            });
            next += 1;
        }
    }
    Ok((gather, trimmed))
}

fn shared_copy(block: &mut BytesMut, bytes: &[u8]) -> Bytes {
    if bytes.len() >= OWN_BLOCK_BYTES {
        return Bytes::copy_from_slice(bytes);
    }
    if block.capacity() < bytes.len() {
        // Not `reserve`, which could grow the old block.
        drop(mem::replace(block, BytesMut::with_capacity(BLOCK_BYTES)));
    }
    block.extend_from_slice(bytes);
    block.split().freeze()
}

impl LogReader for LocalReader {
    fn next(&mut self, limits: ReadLimits) -> BoxFuture<'_, Result<ReadBatch, ReadError>> {
        self.read_next(limits).boxed()
    }

    fn seek(&mut self, log: LogId, from: Position) {
        self.log = log;
        self.position = self.shared.named(from);
        self.pending = None;
    }

    fn position(&self) -> &Position {
        &self.position
    }
}
