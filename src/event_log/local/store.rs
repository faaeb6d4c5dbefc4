//! The database: opening it, what the writer does to it, and what a failure means.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use uuid::Uuid;

use super::OpenError;
use super::data_dir::{DATABASE_FILE, DataDir};
use super::queue::Pending;
use super::schema::{check_format, create, is_blank, open_error};
use crate::clock::Timestamp;
use crate::event_log::{Appended, Bounds, LogId, Offset, Partition, Position};

/// How long to wait for another program's lock, such as a `sqlite3` shell with an
/// open transaction. Herald itself writes from one connection only.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// What is cut off a write-ahead file that had to grow beyond it (64 MiB), once it
/// starts anew.
const WAL_KEPT_BYTES: u64 = 64 << 20;

/// What a probe writes: more than the slack that a full file system may still have
/// in the last block of a file.
const PROBE_BYTES: i64 = 64 << 10;

/// The statements of one partition.
pub(super) struct PartitionSql {
    insert: String,
    /// The records from one offset up to another.
    pub(super) read: String,
    /// The append time of an offset.
    pub(super) append_time: String,
    last: String,
    delete: String,
}

impl PartitionSql {
    fn new(partition: Partition) -> Self {
        let table = format!("partition_{partition}");
        Self {
            insert: format!(
                "INSERT INTO {table} (offset, append_time, key, value) VALUES (?1, ?2, ?3, ?4)"
            ),
            read: format!(
                "SELECT offset, append_time, key, value FROM {table} \
                 WHERE offset >= ?1 AND offset < ?2 ORDER BY offset"
            ),
            append_time: format!("SELECT append_time FROM {table} WHERE offset = ?1"),
            last: format!("SELECT offset, append_time FROM {table} ORDER BY offset DESC LIMIT 1"),
            delete: format!("DELETE FROM {table} WHERE offset < ?1"),
        }
    }

    pub(super) fn all(partitions: u32) -> Vec<Self> {
        (0..partitions).map(Self::new).collect()
    }
}

/// Why a transaction did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing of it is in the log, nor will be.
    NotWritten(rusqlite::Error),
    /// It may be in the log; opening the database again decides.
    Unknown(rusqlite::Error),
}

impl Failure {
    pub(super) fn error(&self) -> &rusqlite::Error {
        match self {
            Self::NotWritten(error) | Self::Unknown(error) => error,
        }
    }
}

/// What the database says about the log.
pub(super) struct Contents {
    pub(super) bounds: Bounds,
    /// The append time of each partition's newest record, also when that has been
    /// trimmed since.
    pub(super) newest: Vec<Timestamp>,
}

/// The writer's connection.
pub(super) struct Store {
    conn: Connection,
    sql: Vec<PartitionSql>,
    /// A test's: what happens to the next commit.
    #[cfg(test)]
    pub(super) break_commit: Option<BrokenCommit>,
}

/// A commit that fails as a failing disk would make it.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(super) enum BrokenCommit {
    /// It reached the disk.
    Written,
    /// It did not.
    Lost,
}

impl Store {
    /// Opens the database in `dir`, and makes it where there is none.
    pub(super) fn open(dir: &DataDir, partitions: u32) -> Result<(Self, Contents), OpenError> {
        let path = dir.database();
        let sql_failed = |error| open_error(&path, error);
        let conn = connect(&path, OpenFlags::SQLITE_OPEN_CREATE).map_err(sql_failed)?;
        let is_new = is_blank(&conn).map_err(sql_failed)?;
        if !is_new {
            // Before anything is changed: the file may be somebody else's.
            check_format(&conn, &path)?;
        }
        configure(&conn).map_err(sql_failed)?;
        if is_new {
            create(&conn, partitions).map_err(sql_failed)?;
            dir.sync()
                .map_err(|source| OpenError::DataDir { dir: dir.path().to_path_buf(), source })?;
        }
        let found = partitions_of(&conn).map_err(sql_failed)?;
        if found != partitions {
            return Err(OpenError::Partitions { path, found, wanted: partitions });
        }
        let store = Self::with(conn, partitions);
        let contents = store.contents().map_err(sql_failed)?;
        Ok((store, contents))
    }

    /// Opens a database again that was open before.
    pub(super) fn reopen(path: &Path, partitions: u32) -> rusqlite::Result<(Self, Contents)> {
        let conn = connect(path, OpenFlags::empty())?;
        configure(&conn)?;
        let store = Self::with(conn, partitions);
        let contents = store.contents()?;
        Ok((store, contents))
    }

    fn with(conn: Connection, partitions: u32) -> Self {
        // Every statement of every partition, and a handful of others.
        conn.set_prepared_statement_cache_capacity(4 * partitions as usize + 16);
        Self {
            conn,
            sql: PartitionSql::all(partitions),
            #[cfg(test)]
            break_commit: None,
        }
    }

    fn contents(&self) -> rusqlite::Result<Contents> {
        contents(&self.conn, &self.sql, log_id(&self.conn)?)
    }

    /// Appends a group in one transaction, which is durable on return.
    pub(super) fn append(&mut self, group: &[Pending], places: &[Appended]) -> Result<(), Failure> {
        self.transact(|store| {
            // Looked up once a group, not once a record.
            let mut inserts: Vec<_> = store.sql.iter().map(|_| None).collect();
            for (pending, place) in group.iter().zip(places) {
                let partition = place.partition as usize;
                let insert = match &mut inserts[partition] {
                    Some(insert) => insert,
                    empty => empty.insert(store.conn.prepare_cached(&store.sql[partition].insert)?),
                };
                insert.execute(params![
                    to_sql(place.offset),
                    place.append_time.as_millis(),
                    pending.key.as_deref(),
                    &pending.value[..],
                ])?;
            }
            Ok(())
        })
    }

    /// Removes the records of a partition below `to`, within a transaction.
    pub(super) fn trim(&self, partition: Partition, to: Offset) -> rusqlite::Result<()> {
        let Some(last) = to.checked_sub(1) else { return Ok(()) };
        let time = self.append_time(partition, last)?;
        self.conn.prepare_cached(&self.sql[partition as usize].delete)?.execute([to_sql(to)])?;
        self.conn
            .prepare_cached(
                "UPDATE partition_state SET log_start = ?2, \
                 trimmed_time = max(trimmed_time, coalesce(?3, trimmed_time)) \
                 WHERE partition = ?1",
            )?
            .execute(params![partition, to_sql(to), time.map(Timestamp::as_millis)])?;
        Ok(())
    }

    /// The append time of a record, where there is one.
    pub(super) fn append_time(
        &self,
        partition: Partition,
        offset: Offset,
    ) -> rusqlite::Result<Option<Timestamp>> {
        append_time(&self.conn, &self.sql[partition as usize], offset)
    }

    /// The bytes of the pages that hold something. Free pages are used again before
    /// the file grows.
    pub(super) fn used_bytes(&self) -> rusqlite::Result<u64> {
        let pragma = |name: &str| {
            self.conn
                .prepare_cached(&format!("PRAGMA {name}"))?
                .query_row([], |row| row.get::<_, i64>(0))
        };
        let pages = pragma("page_count")? - pragma("freelist_count")?;
        Ok(from_sql(pages * pragma("page_size")?))
    }

    /// Writes a little, for real, to learn whether writing works.
    pub(super) fn probe(&mut self) -> Result<(), Failure> {
        self.transact(|store| {
            store
                .conn
                .prepare_cached(
                    "INSERT OR REPLACE INTO probe (id, payload) VALUES (0, zeroblob(?1))",
                )?
                .execute([PROBE_BYTES])?;
            Ok(())
        })
    }

    /// Moves records from the write-ahead file into the database. Returns the length
    /// of the write-ahead file; once all of it was moved and no reader is in it, the
    /// next transaction starts it anew.
    pub(super) fn checkpoint(&self, mode: Checkpoint) -> rusqlite::Result<u64> {
        let sql = match mode {
            Checkpoint::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            Checkpoint::Restart => "PRAGMA wal_checkpoint(RESTART)",
            Checkpoint::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
        };
        let frames: i64 = self.conn.query_row(sql, [], |row| row.get(1))?;
        let page: i64 = self.conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        Ok(from_sql(frames.max(0) * page))
    }

    /// Runs `work` in one transaction.
    pub(super) fn transact<T>(
        &mut self,
        work: impl FnOnce(&Self) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        let result = self.run("BEGIN IMMEDIATE").and_then(|()| work(self));
        let value = match result {
            Ok(value) => value,
            Err(error) => {
                // Some errors have rolled back already. Whatever this says: without
                // a commit nothing is written, and the writer opens anew.
                let _ = self.run("ROLLBACK");
                return Err(Failure::NotWritten(error));
            }
        };
        match self.commit() {
            Ok(()) => Ok(value),
            Err(error) => {
                let _ = self.run("ROLLBACK");
                Err(failed_commit(error))
            }
        }
    }

    fn commit(&mut self) -> rusqlite::Result<()> {
        #[cfg(test)]
        if let Some(broken) = self.break_commit.take() {
            let end = match broken {
                BrokenCommit::Written => "COMMIT",
                BrokenCommit::Lost => "ROLLBACK",
            };
            self.run(end)?;
            let code = rusqlite::ffi::SQLITE_IOERR_FSYNC;
            return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        }
        self.run("COMMIT")
    }

    fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(drop)
    }

    /// For tests to meddle with.
    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.conn
    }
}

/// How far a checkpoint goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Checkpoint {
    /// Waits for nobody.
    Passive,
    /// Waits for readers, so that the write-ahead file starts anew.
    Restart,
    /// As that, and empties the file.
    Truncate,
}

/// What a failed commit means.
///
/// SQLite writes the transaction's pages behind the write-ahead file, the last one
/// marked as the commit, and syncs the file; then it enters the pages in the shared
/// index. `SQLITE_FULL` comes from a write that did not fit, so the marked page is
/// not there in full, its check sum does not hold, and recovery passes over it: not
/// written. Any other error may come from the sync, or from the index after it, when
/// the marked page may be on the disk: recovery after a crash would take it, while
/// going on overwrites it. So nobody can say.
///
/// (Padding behind the marked page, which could fail as well, is written only where
/// a VFS does not promise "powersafe overwrite"; SQLite's own do.)
fn failed_commit(error: rusqlite::Error) -> Failure {
    if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
        Failure::NotWritten(error)
    } else {
        Failure::Unknown(error)
    }
}

/// The identity of the log in a database.
pub(super) fn log_id(conn: &Connection) -> rusqlite::Result<LogId> {
    let id: String = conn
        .prepare_cached("SELECT value FROM meta WHERE name = 'log_id'")?
        .query_row([], |row| row.get(0))?;
    Uuid::parse_str(&id).map(LogId).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}

/// How many partitions the log has.
pub(super) fn partitions_of(conn: &Connection) -> rusqlite::Result<u32> {
    conn.query_row("SELECT count(*) FROM partition_state", [], |row| row.get(0))
}

/// What the database says about its log, which is `log`.
pub(super) fn contents(
    conn: &Connection,
    sql: &[PartitionSql],
    log: LogId,
) -> rusqlite::Result<Contents> {
    let mut bounds = Bounds { log, start: Position::default(), end: Position::default() };
    let mut newest = Vec::new();
    let mut state = conn.prepare_cached(
        "SELECT log_start, trimmed_time FROM partition_state WHERE partition = ?1",
    )?;
    for (partition, sql) in (0..).zip(sql) {
        let (start, trimmed_time): (i64, i64) =
            state.query_row([partition], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let last: Option<(i64, i64)> = conn
            .prepare_cached(&sql.last)?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        // A partition without records goes on where its trimmed ones ended.
        let (end, time) = last.map_or((start, trimmed_time), |(last, time)| (last + 1, time));
        bounds.start.set(partition, from_sql(start));
        bounds.end.set(partition, from_sql(end.max(start)));
        newest.push(Timestamp::from_millis(time.max(trimmed_time)));
    }
    Ok(Contents { bounds, newest })
}

/// The append time of a record, where there is one.
pub(super) fn append_time(
    conn: &Connection,
    sql: &PartitionSql,
    offset: Offset,
) -> rusqlite::Result<Option<Timestamp>> {
    conn.prepare_cached(&sql.append_time)?
        .query_row([to_sql(offset)], |row| row.get(0))
        .optional()
        .map(|time| time.map(Timestamp::from_millis))
}

/// The first offset of a partition, as of the transaction that is open.
pub(super) fn log_start(conn: &Connection, partition: Partition) -> rusqlite::Result<Offset> {
    conn.prepare_cached("SELECT log_start FROM partition_state WHERE partition = ?1")?
        .query_row([partition], |row| row.get(0))
        .map(from_sql)
}

/// A connection that only reads. It makes no database, and no log in it.
pub(super) fn connect_reader(path: &Path, partitions: u32) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // Every statement of every partition that reads, and a handful of others.
    conn.set_prepared_statement_cache_capacity(3 * partitions as usize + 16);
    Ok(conn)
}

fn connect(path: &Path, create: OpenFlags) -> rusqlite::Result<Connection> {
    // The writer is one thread, so SQLite need not lock the connection.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

/// Pages stay at SQLite's 4 KiB (8 and 16 KiB were no faster), and so does the page
/// cache (2 MB; eight times as much changed nothing, as appending touches only the
/// last pages of each table).
fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
        let mode: String = row.get(0)?;
        // A file system without shared memory would leave it as it was.
        if mode.eq_ignore_ascii_case("wal") { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
    })?;
    // In full: each commit is synced before it returns. On macOS a plain sync does
    // not reach the disk; elsewhere these two change nothing.
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "fullfsync", true)?;
    conn.pragma_update(None, "checkpoint_fullfsync", true)?;
    // The writer makes its own checkpoints, after it has answered.
    conn.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    conn.query_row(&format!("PRAGMA journal_size_limit = {WAL_KEPT_BYTES}"), [], |_| Ok(()))
}

/// A database error in an operator's words.
pub(super) fn explain(error: &rusqlite::Error, dir: &Path) -> String {
    let dir = dir.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => format!("the disk is full; free space under {dir}"),
        Some(ErrorCode::SystemIoFailure) => {
            format!("reading or writing under {dir} failed ({error}); check the disk and its space")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            format!(
                "the files under {dir} cannot be opened for writing ({error}); check their permissions"
            )
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("another program keeps the database under {dir} locked; end its transaction")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            format!("the database under {dir} is damaged ({error}); restore it from a copy")
        }
        _ => format!("the database under {dir} failed: {error}"),
    }
}

/// The same where nothing but reading was wanted.
pub(super) fn explain_reading(error: &rusqlite::Error, dir: &Path) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => format!(
            "SQLite has to read the database and to write {DATABASE_FILE}-shm beside it, and may not \
             do both under {} ({error}); read it as the user that owns it, or copy the folder to \
             where you may write",
            dir.display()
        ),
        _ => explain(error, dir),
    }
}

/// SQLite's integers are signed. Offsets stay far below 2^63: that many records
/// take 29,000 years at ten million a second.
pub(super) fn to_sql(number: u64) -> i64 {
    number as i64
}

/// The other way; a negative number, which nobody has written, is 0.
pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
