//! The conformance suite, read beside the writer, and what only that can show.

use std::fs;
use std::path::Path;
use std::process::Command as Process;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::watch;

use super::tests::{Local, in_a_mount_of_its_own, options};
use super::{LocalLog, OpenError, Options, open_read_only};
use crate::clock::{Clock, Timestamp};
use crate::event_log::conformance::{
    Harness, Writing, conformance_suite, id, next, read_all, reader, record, within_patience,
};
use crate::event_log::{
    Ack, AppendError, Bounds, EventLog, Health, LogId, LogReader, NewRecord, Offset, Partition,
    Position, ReadError, ReadLimits,
};

const ALL: ReadLimits = ReadLimits { records: 10_000, bytes: 64 << 20 };

/// Written by one who has it, read by one who has not.
struct Beside {
    local: Local,
    read: Arc<dyn EventLog>,
}

/// What is written goes one way, and what is read the other.
struct Both {
    written: Arc<dyn EventLog>,
    read: Arc<dyn EventLog>,
}

impl EventLog for Both {
    fn key_partitions(&self) -> u32 {
        self.read.key_partitions()
    }

    fn submit(&self, record: NewRecord, ack: Ack) {
        self.written.submit(record, ack);
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, ReadError>> {
        self.read.bounds()
    }

    fn open_reader(
        &self,
        log: LogId,
        from: Position,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, ReadError>> {
        self.read.open_reader(log, from)
    }

    fn position_at(
        &self,
        log: LogId,
        time: Timestamp,
    ) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.read.position_at(log, time)
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.written.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.written.close()
    }
}

impl Harness for Beside {
    async fn create(partitions: u32) -> Self {
        let local = Local::create(partitions).await;
        let read = open_read_only(&local.options.data_dir).expect("there is a log");
        Self { local, read }
    }

    fn log(&self) -> Arc<dyn EventLog> {
        Arc::new(Both { written: self.local.log(), read: Arc::clone(&self.read) })
    }

    /// Who reads stays where it is.
    async fn reopen(&mut self) {
        self.local.reopen().await;
    }

    async fn trim(&self, partition: Partition, to: Offset) {
        self.local.trim(partition, to).await;
    }

    fn clock(&self) -> Option<Clock> {
        self.local.clock()
    }

    async fn stall(&self) -> Option<Box<dyn Send>> {
        self.local.stall().await
    }
}

conformance_suite!(Beside);

fn write(options: Options) -> Arc<LocalLog> {
    LocalLog::open(options).expect("the folder is well")
}

/// Makes a log with records in it, and closes it.
async fn written(dir: &Path, partitions: u32, records: u32) -> LogId {
    let log = write(options(dir, partitions));
    let writing = Writing::to(Arc::clone(&log) as _);
    for number in 0..records {
        writing.append(number % partitions, b"x").await;
    }
    writing.end().await;
    id(&log).await
}

fn refused(dir: &Path) -> OpenError {
    open_read_only(dir).err().expect("it is refused")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .expect("it is there")
        .map(|entry| entry.expect("it is there").file_name().into_string().expect("ours are"))
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn no_folder_and_no_log_is_made() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let dir = root.path().join("data");
    let error = refused(&dir);
    assert!(matches!(error, OpenError::NoLog { .. }), "{error}");
    assert!(error.to_string().contains("name the data directory of a server"), "{error}");
    assert!(!dir.exists());
    fs::create_dir(&dir).expect("space");
    assert!(matches!(refused(&dir), OpenError::NoLog { .. }));
    assert!(names(&dir).is_empty());
    // A server has begun to make it.
    fs::write(dir.join("events.sqlite3"), b"").expect("space");
    assert!(matches!(refused(&dir), OpenError::NoLog { .. }));
    assert_eq!(names(&dir), ["events.sqlite3"]);
    assert!(matches!(refused(&dir.join("events.sqlite3")), OpenError::DataDir { .. }));
}

#[tokio::test]
async fn foreign_newer_and_damaged_files_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("events.sqlite3");
    fs::write(&path, b"these are my notes, and they are longer than any header").expect("space");
    assert!(matches!(refused(dir.path()), OpenError::NotALog { .. }));
    assert!(fs::read(&path).expect("it is there").starts_with(b"these are my notes"));

    fs::remove_file(&path).expect("it is there");
    let foreign = Connection::open(&path).expect("space");
    foreign.execute_batch("CREATE TABLE mine (x)").expect("space");
    drop(foreign);
    assert!(matches!(refused(dir.path()), OpenError::NotALog { .. }));

    fs::remove_file(&path).expect("it is there");
    written(dir.path(), 1, 1).await;
    let change = |sql| {
        Connection::open(&path).expect("it is there").execute_batch(sql).expect("it is ours");
    };
    change("PRAGMA user_version = 2");
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Version { found: 2, known: 1, .. }), "{error}");
    change("PRAGMA user_version = 1; DELETE FROM partition_state");
    assert!(matches!(refused(dir.path()), OpenError::Corrupt { .. }));
    change("DELETE FROM meta");
    assert!(matches!(refused(dir.path()), OpenError::Corrupt { .. }));
}

#[tokio::test]
async fn nothing_is_written_and_the_partitions_are_those_of_the_log() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    written(dir.path(), 5, 10).await;
    let log = open_read_only(dir.path()).expect("there is a log");
    assert_eq!(log.key_partitions(), 5);
    let writing = Writing::to(Arc::clone(&log));
    let refused = writing.appender.append(record(0, b"x")).await;
    let Err(AppendError::Unavailable(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("for reading only"), "{reason}");
    assert_eq!(*log.health().borrow(), Health::Unwritable(reason));
    writing.end().await;
    assert_eq!(read_all(&log, Position::default()).await.records.len(), 10);
}

#[tokio::test]
async fn a_reader_that_waits_ends_with_the_log_and_one_that_is_behind_reads_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    written(dir.path(), 1, 10).await;
    for dropped in [false, true] {
        let log = open_read_only(dir.path()).expect("there is a log");
        let mut waiting = reader(&log, vec![10].into()).await;
        let mut behind = reader(&log, vec![9].into()).await;
        let mut wait = waiting.next(ALL);
        assert!((&mut wait).now_or_never().is_none(), "there is nothing to read");
        if dropped {
            drop(log);
        } else {
            log.close().await;
        }
        let ended = within_patience(async {
            let ended = wait.await;
            assert!(matches!(&ended, Err(ReadError::Unavailable(_))), "{ended:?}");
        });
        ended.await;
        assert_eq!(next(&mut behind, ALL).await.records.len(), 1);
        assert!(matches!(behind.next(ALL).await, Err(ReadError::Unavailable(_))));
    }
}

/// A server starts, writes and ends, and none of it is held up.
#[tokio::test]
async fn who_reads_holds_up_nobody() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let first = written(dir.path(), 1, 10).await;
    let log = open_read_only(dir.path()).expect("there is a log");
    let mut reader = reader(&log, Position::default()).await;
    for round in 1..4 {
        assert_eq!(next(&mut reader, ALL).await.records.len(), 10);
        assert_eq!(written(dir.path(), 1, 10).await, first);
        let bounds = log.bounds().await.expect("the log is well");
        assert_eq!(bounds.end.get(0), (round + 1) * 10);
    }
}

/// The newest records are in the write-ahead file alone. Who only reads takes nothing out of
/// it, and leaves it to the next server.
#[tokio::test]
async fn what_a_killed_process_leaves_is_read_and_stays() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let original = write(options(&dir.path().join("log"), 1));
    let writing = Writing::to(Arc::clone(&original) as _);
    for _ in 0..100 {
        writing.append(0, b"x").await;
    }
    let left = dir.path().join("left");
    fs::create_dir(&left).expect("space");
    for file in ["events.sqlite3", "events.sqlite3-wal"] {
        fs::copy(dir.path().join("log").join(file), left.join(file)).expect("space");
    }
    let file = |name: &str| fs::read(left.join(name)).expect("it is there");
    let before = (file("events.sqlite3"), file("events.sqlite3-wal"));
    for _ in 0..2 {
        let log = open_read_only(&left).expect("there is a log");
        assert_eq!(read_all(&log, Position::default()).await.records.len(), 100);
        drop(log);
        assert_eq!((file("events.sqlite3"), file("events.sqlite3-wal")), before);
    }
    let log = write(options(&left, 1));
    assert_eq!(id(&log).await, id(&original).await);
    assert_eq!(Writing::to(log).append(0, b"y").await.offset, 100);
    writing.end().await;
}

#[tokio::test]
async fn what_is_made_for_a_reader_is_nothing_to_a_server() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    written(dir.path(), 1, 10).await;
    let database = fs::read(dir.path().join("events.sqlite3")).expect("it is there");
    assert_eq!(names(dir.path()), ["events.sqlite3", "lock"]);
    let log = open_read_only(dir.path()).expect("there is a log");
    assert_eq!(read_all(&log, Position::default()).await.records.len(), 10);
    drop(log);
    // Whatever of them is left.
    for name in names(dir.path()) {
        if name.ends_with("-wal") || name.ends_with("-shm") {
            use std::os::unix::fs::MetadataExt as _;
            let made = fs::metadata(dir.path().join(&name)).expect("it is there");
            let of = fs::metadata(dir.path().join("events.sqlite3")).expect("it is there");
            assert_eq!((made.mode(), made.uid(), made.gid()), (of.mode(), of.uid(), of.gid()));
            assert!(name.ends_with("-shm") || made.len() == 0, "{name}: {}", made.len());
        } else {
            assert!(["events.sqlite3", "lock"].contains(&&*name), "{name}");
        }
    }
    assert_eq!(fs::read(dir.path().join("events.sqlite3")).expect("it is there"), database);
    written(dir.path(), 1, 10).await;
    assert_eq!(names(dir.path()), ["events.sqlite3", "lock"]);
}

/// Has `dir`, which is a link, lead to another folder, in one step.
fn lead_to(dir: &Path, other: &Path) {
    let link = dir.with_extension("next");
    std::os::unix::fs::symlink(other, &link).expect("space");
    fs::rename(link, dir).expect("it is there");
}

#[tokio::test]
async fn readers_of_a_log_that_was_replaced_are_told_and_new_ones_read_the_new_one() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let [dir, one, other] = ["data", "one", "other"].map(|name| root.path().join(name));
    let first = written(&one, 2, 10).await;
    let second = written(&other, 3, 30).await;
    lead_to(&dir, &one);
    let log = open_read_only(&dir).expect("there is a log");
    let mut waiting = reader(&log, vec![5, 5].into()).await;
    let mut behind = reader(&log, Position::default()).await;
    let mut wait = waiting.next(ALL);
    assert!((&mut wait).now_or_never().is_none(), "there is nothing to read");
    lead_to(&dir, &other);
    assert_eq!(wait.await.err(), Some(ReadError::Replaced));
    assert_eq!(behind.next(ALL).await.err(), Some(ReadError::Replaced));
    let opened = log.open_reader(first, Position::default()).await;
    assert!(matches!(opened, Err(ReadError::Replaced)));
    let at = log.position_at(first, Timestamp::default()).await;
    assert_eq!(at, Err(ReadError::Replaced));

    assert_eq!((id(&log).await, log.key_partitions()), (second, 3));
    assert_eq!(read_all(&log, Position::default()).await.records.len(), 30);
    behind.seek(second, vec![10, 10].into());
    assert_eq!(next(&mut behind, ALL).await.records.len(), 10);
    assert_eq!(behind.position(), &Position::from(vec![10, 10, 10]));
}

/// The same log, put back from a copy, is no other one.
#[tokio::test]
async fn a_folder_that_is_gone_is_waited_for_by_who_asks_again() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let (dir, away) = (root.path().join("data"), root.path().join("away"));
    written(&dir, 1, 10).await;
    let log = open_read_only(&dir).expect("there is a log");
    let mut reader = reader(&log, vec![9].into()).await;
    fs::rename(&dir, &away).expect("it is there");
    let gone = reader.next(ALL).await;
    let Err(ReadError::Unavailable(reason)) = gone else { panic!("{gone:?}") };
    assert!(reason.contains("events.sqlite3 is not there"), "{reason}");
    assert!(matches!(log.bounds().await, Err(ReadError::Unavailable(_))));
    fs::create_dir(&dir).expect("space");
    fs::copy(away.join("events.sqlite3"), dir.join("events.sqlite3")).expect("space");
    assert_eq!(next(&mut reader, ALL).await.records.len(), 1);
    written(&dir, 1, 1).await;
    assert_eq!(next(&mut reader, ALL).await.records[0].offset, 10);
}

/// Set for the process that the test below starts, to the file system made for it.
const MOUNTED: &str = "HERALD_TEST_READ_ONLY_MOUNT";

/// A file system of its own, in a mount namespace of a child process, which is this test again.
/// Left out where that is not allowed.
#[test]
fn a_folder_that_may_not_be_written_says_what_to_do() {
    #[allow(clippy::disallowed_methods, reason = "how the child learns that it is the child")]
    if let Some(mounted) = std::env::var_os(MOUNTED) {
        let mounted = Path::new(&mounted);
        let remount = |how: &str| {
            let status = Process::new("mount").args(["-o", how]).arg(mounted).status();
            assert!(status.expect("it is there").success());
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let dir = mounted.join("data");
            written(&dir, 1, 10).await;
            remount("remount,ro");
            let error = refused(&dir);
            assert!(matches!(error, OpenError::Database { .. }), "{error}");
            assert!(error.to_string().contains("to write events.sqlite3-shm beside it"), "{error}");
            assert!(error.to_string().contains("copy the folder"), "{error}");
            remount("remount,rw");
            let log = open_read_only(&dir).expect("there is a log");
            assert_eq!(read_all(&log, Position::default()).await.records.len(), 10);
        });
        println!("read once it could be written");
        return;
    }
    in_a_mount_of_its_own(
        MOUNTED,
        concat!(module_path!(), "::a_folder_that_may_not_be_written_says_what_to_do"),
        "read once it could be written",
    );
}
