//! The conformance suite, and what only the embedded log can show.

use std::fs;
use std::path::Path;
use std::process::Command as Process;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::store::BrokenCommit;
use super::writer::Writer;
use super::{LocalLog, OpenError, Options};
use crate::clock::{Clock, Timestamp};
use crate::event_log::conformance::{
    Harness, Writing, conformance_suite, id, next, read_all, reader, record, within_patience,
};
use crate::event_log::{
    AppendError, Appended, EventLog, Health, Offset, Partition, Position, ReadLimits,
};

const ALL: ReadLimits = ReadLimits { records: 10_000, bytes: 64 << 20 };

pub(super) fn options(dir: &Path, partitions: u32) -> Options {
    Options {
        data_dir: dir.to_path_buf(),
        partitions,
        retention_age: None,
        retention_bytes: None,
        clock: Clock::manual(Timestamp::from_millis(1_000_000)),
    }
}

fn open(dir: &Path) -> Arc<LocalLog> {
    LocalLog::open(options(dir, 1)).expect("the folder is well")
}

impl LocalLog {
    /// Runs `work` on the writer's thread, and returns what it gave.
    async fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> T {
        let (done, result) = oneshot::channel();
        self.shared.queue.command(Box::new(move |writer| {
            let _ = done.send(work(writer));
        }));
        result.await.expect("the writer runs")
    }

    async fn retain(&self) {
        self.on_writer(|writer| while writer.retain() {}).await;
    }

    async fn break_next_commit(&self, broken: BrokenCommit) {
        self.on_writer(move |writer| {
            writer.store.as_mut().expect("the log is well").break_commit = Some(broken);
        })
        .await;
    }
}

pub(super) struct Local {
    dir: TempDir,
    pub(super) options: Options,
    log: Option<Arc<LocalLog>>,
}

impl Local {
    fn local(&self) -> &Arc<LocalLog> {
        self.log.as_ref().expect("it is open")
    }
}

impl Harness for Local {
    async fn create(partitions: u32) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let options = options(&dir.path().join("data"), partitions);
        let log = LocalLog::open(options.clone()).expect("the folder is well");
        Self { dir, options, log: Some(log) }
    }

    fn log(&self) -> Arc<dyn EventLog> {
        Arc::clone(self.local()) as _
    }

    async fn reopen(&mut self) {
        self.log = None;
        self.log = Some(LocalLog::open(self.options.clone()).expect("nobody else has it"));
        assert!(self.dir.path().exists());
    }

    async fn trim(&self, partition: Partition, to: Offset) {
        self.local().on_writer(move |writer| writer.trim(partition, to)).await;
    }

    fn clock(&self) -> Option<Clock> {
        Some(self.options.clock.clone())
    }

    async fn stall(&self) -> Option<Box<dyn Send>> {
        Some(Box::new(Stalled::on(self.local()).await))
    }
}

conformance_suite!(Local);

#[test]
fn a_folder_is_used_by_one_at_a_time() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = open(dir.path());
    let error = LocalLog::open(options(dir.path(), 1)).err().expect("it is in use");
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(log);
    drop(open(dir.path()));
}

#[tokio::test]
async fn a_closed_log_frees_its_folder() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = open(dir.path());
    log.close().await;
    open(dir.path()).close().await;
    drop(log);
}

#[test]
fn another_number_of_partitions_is_refused_naming_both() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    drop(LocalLog::open(options(dir.path(), 6)).expect("the folder is well"));
    let error = LocalLog::open(options(dir.path(), 7)).err().expect("it has six");
    assert!(matches!(error, OpenError::Partitions { found: 6, wanted: 7, .. }));
    assert!(error.to_string().contains("with 6 partitions, not 7"), "{error}");
    for count in [0, 257] {
        let error = LocalLog::open(options(dir.path(), count)).err();
        assert!(matches!(error, Some(OpenError::PartitionCount(_))));
    }
}

#[test]
fn foreign_newer_and_damaged_files_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("events.sqlite3");
    let refused = || LocalLog::open(options(dir.path(), 1)).err().expect("it is refused");

    fs::write(&path, b"these are my notes, and they are longer than any header").expect("space");
    assert!(matches!(refused(), OpenError::NotALog { .. }));
    assert!(fs::read(&path).expect("it is there").starts_with(b"these are my notes"));

    fs::remove_file(&path).expect("it is there");
    let foreign = Connection::open(&path).expect("space");
    foreign.execute_batch("CREATE TABLE mine (x)").expect("space");
    drop(foreign);
    let before = fs::read(&path).expect("it is there");
    assert!(matches!(refused(), OpenError::NotALog { .. }));
    assert_eq!(fs::read(&path).expect("it is there"), before);

    fs::remove_file(&path).expect("it is there");
    drop(open(dir.path()));
    let change = |sql| {
        Connection::open(&path).expect("it is there").execute_batch(sql).expect("it is ours");
    };
    change("PRAGMA user_version = 2");
    let error = refused();
    assert!(matches!(error, OpenError::Version { found: 2, known: 1, .. }), "{error}");
    change("PRAGMA user_version = 1; DELETE FROM meta");
    assert!(matches!(refused(), OpenError::Corrupt { .. }));

    fs::write(dir.path().join("file"), b"").expect("space");
    let error = LocalLog::open(options(&dir.path().join("file/data"), 1)).err();
    assert!(matches!(error, Some(OpenError::DataDir { .. })));
}

/// What lies on the disk while the log is open is what a killed process leaves.
#[tokio::test]
async fn what_a_killed_process_leaves_holds_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = open(&dir.path().join("log"));
    let writing = Writing::to(Arc::clone(&log) as _);
    for _ in 0..100 {
        writing.append(0, b"x").await;
    }
    let left = dir.path().join("left");
    fs::create_dir(&left).expect("space");
    for file in ["events.sqlite3", "events.sqlite3-wal"] {
        fs::copy(dir.path().join("log").join(file), left.join(file)).expect("space");
    }
    let recovered: Arc<dyn EventLog> = open(&left);
    assert_eq!(id(&recovered).await, id(&log).await);
    let log = recovered;
    assert_eq!(read_all(&log, Position::default()).await.records.len(), 100);
    assert_eq!(Writing::to(log).append(0, b"y").await.offset, 100);
    writing.end().await;
}

#[tokio::test]
async fn people_can_read_the_records_with_sqlite() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = LocalLog::open(options(dir.path(), 3)).expect("the folder is well");
    let writing = Writing::to(Arc::clone(&log) as _);
    writing.append(2, b"x").await;
    let shell = Connection::open(dir.path().join("events.sqlite3")).expect("it is there");
    let row: (i64, i64, i64, Vec<u8>, Vec<u8>) = shell
        .query_row("SELECT partition, offset, append_time, key, value FROM record", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })
        .expect("there is one");
    assert_eq!(row, (2, 0, 1_000_000, b"player".to_vec(), b"x".to_vec()));
    writing.end().await;
}

async fn until(log: &Arc<LocalLog>, wanted: impl Fn(&Health) -> bool) {
    let mut health = log.health();
    health.wait_for(|health| wanted(health)).await.expect("the writer runs");
}

/// Fills the disk under `dir`, frees it by `free`, and shows what must hold.
async fn fill_and_recover(dir: &Path, fill: impl AsyncFnOnce(&LocalLog), free: impl FnOnce()) {
    let log = open(dir);
    let writing = Writing::to(Arc::clone(&log) as _);
    let mut acknowledged: Vec<Appended> = Vec::new();
    acknowledged.push(writing.append(0, b"first").await);
    fill(&log).await;
    let reason = loop {
        let group: Vec<_> =
            (0..20).map(|_| writing.appender.append(record(0, &[1; 20_000]))).collect();
        let mut failure = None;
        for outcome in join_all(group).await {
            match outcome {
                Ok(appended) => acknowledged.push(appended),
                Err(AppendError::Unavailable(reason)) => failure = Some(reason),
                Err(error) => panic!("{error}"),
            }
        }
        if let Some(reason) = failure {
            break reason;
        }
    };
    assert_eq!(&*reason, &format!("the disk is full; free space under {}", dir.display()));
    assert_eq!(*log.health().borrow(), Health::Unwritable(Arc::clone(&reason)));

    // What was acknowledged can be read meanwhile, and nothing else.
    let as_log = Arc::clone(&log) as Arc<dyn EventLog>;
    let readable = read_all(&as_log, Position::default()).await.records;
    assert_eq!(readable.len(), acknowledged.len());

    free();
    until(&log, |health| *health == Health::Writable).await;
    for _ in 0..10 {
        acknowledged.push(writing.append(0, b"again").await);
    }
    writing.end().await;
    drop((log, as_log));
    let log = open(dir) as Arc<dyn EventLog>;
    let offsets: Vec<_> =
        read_all(&log, Position::default()).await.records.iter().map(|r| r.offset).collect();
    let expected: Vec<_> = acknowledged.iter().map(|appended| appended.offset).collect();
    assert_eq!(offsets, expected);
    assert!(offsets.iter().zip(0..).all(|(&offset, expected)| offset == expected));
}

#[tokio::test]
async fn a_database_that_cannot_grow_recovers() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    // The limit is the connection's own, so opening anew, as recovery does, lifts it.
    let fill = async |log: &LocalLog| {
        log.on_writer(|writer| {
            let conn = writer.store.as_ref().expect("the log is well").connection();
            let _: i64 =
                conn.query_row("PRAGMA max_page_count = 200", [], |row| row.get(0)).expect("it is");
        })
        .await;
    };
    within_patience(fill_and_recover(dir.path(), fill, || ())).await;
}

/// Set for the process that this test starts, to the small file system made for it.
const SMALL_DISK: &str = "HERALD_TEST_SMALL_DISK";

/// The real thing: a file system of 6 MiB in a mount namespace of a child process,
/// which is this test again. Where that is not allowed the test above has to do.
#[test]
fn a_full_disk_recovers() {
    #[allow(clippy::disallowed_methods, reason = "how the child learns that it is the child")]
    if let Some(disk) = std::env::var_os(SMALL_DISK) {
        let disk = Path::new(&disk);
        let (dir, ballast) = (disk.join("data"), disk.join("ballast"));
        fs::write(&ballast, vec![0; 2 << 20]).expect("space");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(within_patience(fill_and_recover(
            &dir,
            async |_| (),
            || {
                fs::remove_file(&ballast).expect("it is there");
            },
        )));
        fs::write(disk.join("done"), b"").expect("space");
        println!("recovered from a full disk");
        return;
    }
    in_a_mount_of_its_own(
        SMALL_DISK,
        concat!(module_path!(), "::a_full_disk_recovers"),
        "recovered from a full disk",
    );
}

/// Runs a test of this program again, in a child process with a file system of 6 MiB in a mount
/// namespace; `variable` says where that is, and the child has to say `says`. Left out where
/// that is not allowed.
pub(super) fn in_a_mount_of_its_own(variable: &str, test: &str, says: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let program = std::env::current_exe().expect("this program has a name");
    let script = r#"mount -t tmpfs -o size=6m none "$1" || exit 77
        exec env "$4=$1" "$2" --exact "$3" --nocapture"#;
    let child = Process::new("unshare")
        .args(["-rm", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(program)
        .args([test.trim_start_matches("herald::"), variable])
        .output();
    match child {
        Ok(child) if child.status.success() => {
            let said = String::from_utf8_lossy(&child.stdout);
            assert!(said.contains(says), "{said}");
        }
        Ok(child) if !String::from_utf8_lossy(&child.stdout).contains("running 1 test") => {
            println!("skipped: no mount namespace: {}", String::from_utf8_lossy(&child.stderr));
        }
        Ok(child) => panic!("{}", String::from_utf8_lossy(&child.stdout)),
        Err(error) => println!("skipped: no unshare: {error}"),
    }
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_is_decided_by_the_database() {
    for (broken, offset_after) in [(BrokenCommit::Written, 3), (BrokenCommit::Lost, 1)] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = open(dir.path());
        let writing = Writing::to(Arc::clone(&log) as _);
        writing.append(0, b"before").await;
        let as_log = Arc::clone(&log) as Arc<dyn EventLog>;
        let mut waiting = reader(&as_log, Position::from(vec![1])).await;

        log.break_next_commit(broken).await;
        // Both are in one group or in two; then the second may be refused instead.
        let stalled = Stalled::on(&log).await;
        let group: Vec<_> = (0..2).map(|_| writing.appender.append(record(0, b"?"))).collect();
        drop(stalled);
        for outcome in join_all(group).await {
            assert!(matches!(outcome, Err(AppendError::OutcomeUnknown(_))), "{outcome:?}");
        }
        let refused = writing.appender.append(record(0, b"no")).await;
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");

        until(&log, |health| *health == Health::Writable).await;
        assert_eq!(writing.append(0, b"after").await.offset, offset_after);
        let mut values = Vec::new();
        while values.last().is_none_or(|value| value != "after") {
            values.extend(next(&mut waiting, ALL).await.records.into_iter().map(|r| r.value));
        }
        assert_eq!(values.len() as u64, offset_after);
        writing.end().await;
    }
}

/// The writer, held until this is dropped.
struct Stalled {
    _end: mpsc::Sender<()>,
}

impl Stalled {
    async fn on(log: &LocalLog) -> Self {
        let (stalled, is_stalled) = oneshot::channel();
        let (end, ended) = mpsc::channel::<()>();
        log.shared.queue.command(Box::new(move |_| {
            let _ = stalled.send(());
            let _ = ended.recv();
        }));
        is_stalled.await.expect("the writer runs");
        Self { _end: end }
    }
}

#[tokio::test]
async fn old_records_are_removed_by_age() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options =
        Options { retention_age: Some(Duration::from_secs(60)), ..options(dir.path(), 2) };
    let clock = options.clock.clone();
    let log = LocalLog::open(options).expect("the folder is well");
    let writing = Writing::to(Arc::clone(&log) as _);
    for second in 0..200 {
        clock.set(Timestamp::from_millis(second * 1000));
        writing.append(u32::from(second % 4 == 0), b"x").await;
    }
    log.retain().await;
    let bounds = log.bounds().await.expect("the log is well");
    let log = log as Arc<dyn EventLog>;
    let kept = read_all(&log, bounds.start.clone()).await.records;
    let oldest = kept.iter().map(|record| record.append_time.as_millis()).min();
    assert_eq!((oldest, kept.len()), (Some(139_000), 61));
    // Not beyond the end, however old.
    clock.set(Timestamp::from_millis(1_000_000));
    let local = log;
    writing.end().await;
    drop(local);
    let options = Options {
        retention_age: Some(Duration::from_secs(60)),
        clock,
        ..self::options(dir.path(), 2)
    };
    let log = LocalLog::open(options).expect("the folder is well");
    log.retain().await;
    let after = log.bounds().await.expect("the log is well");
    assert_eq!((&after.start, &after.end), (&bounds.end, &bounds.end));
}

#[tokio::test]
async fn a_quiet_log_removes_old_records_too() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options =
        Options { retention_age: Some(Duration::from_secs(60)), ..options(dir.path(), 1) };
    let clock = options.clock.clone();
    let log = LocalLog::open(options).expect("the folder is well");
    let writing = Writing::to(Arc::clone(&log) as _);
    writing.append(0, b"x").await;
    clock.set(Timestamp::from_millis(2_000_000));
    within_patience(async {
        while log.bounds().await.expect("the log is well").start.get(0) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    writing.end().await;
}

#[tokio::test]
async fn the_oldest_records_are_removed_by_size() {
    const LIMIT: u64 = 4 << 20;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = Options { retention_bytes: Some(LIMIT), ..options(dir.path(), 2) };
    let clock = options.clock.clone();
    let too_small = Options { retention_bytes: Some(LIMIT - 1), ..options.clone() };
    assert!(matches!(LocalLog::open(too_small).err(), Some(OpenError::RetentionBytes(_))));
    let log = LocalLog::open(options).expect("the folder is well");
    let writing = Writing::to(Arc::clone(&log) as _);
    for round in 0..10 {
        clock.set(Timestamp::from_millis(round));
        let acks: Vec<_> =
            (0..1000).map(|n| writing.appender.append(record(n % 2, &[0; 1000]))).collect();
        for ack in join_all(acks).await {
            ack.expect("the log is well");
        }
        log.retain().await;
        let used = log
            .on_writer(|writer| {
                writer.store.as_ref().map(|store| store.used_bytes().expect("it is"))
            })
            .await;
        assert!(used.is_some_and(|used| used <= LIMIT), "{used:?}");
    }
    let bounds = log.bounds().await.expect("the log is well");
    assert_eq!(bounds.end, Position::from(vec![5000, 5000]));
    let kept = bounds.start.distance_to(&bounds.end);
    assert!((2000..4200).contains(&kept), "{kept}");
    // The freed pages were used again.
    writing.end().await;
    log.close().await;
    let file = fs::metadata(dir.path().join("events.sqlite3")).expect("it is there").len();
    assert!(file < 2 * LIMIT, "{file}");
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Append { partition: Partition, sizes: Vec<usize> },
    Trim { partition: Partition, part: f64 },
    Read { limits: ReadLimits },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u32, prop::collection::vec(0..3000usize, 1..20))
            .prop_map(|(partition, sizes)| Step::Append { partition, sizes }),
        1 => (0..3u32, 0.0..=1.0f64).prop_map(|(partition, part)| Step::Trim { partition, part }),
        4 => (0..30usize, 0..20_000usize)
            .prop_map(|(records, bytes)| Step::Read { limits: ReadLimits { records, bytes } }),
        1 => Just(Step::Reopen),
    ]
}

/// Plays a history on a log and on plain vectors, with one reader that follows.
async fn play(steps: Vec<Step>) {
    let mut harness = Local::create(3).await;
    let mut written: Vec<Vec<Vec<u8>>> = vec![vec![]; 3];
    let mut start = [0u64; 3];
    let mut place = [0u64; 3];
    let mut writing = Writing::to(harness.log());
    let mut follower = reader(&harness.log(), Position::default()).await;
    let end = |written: &Vec<Vec<Vec<u8>>>| -> Position {
        written.iter().map(|records| records.len() as u64).collect()
    };
    for step in steps {
        match step {
            Step::Append { partition, sizes } => {
                let mut acks = Vec::new();
                for size in sizes {
                    let records = &mut written[partition as usize];
                    let value = vec![records.len() as u8; size];
                    acks.push((
                        records.len() as u64,
                        writing.appender.append(record(partition, &value)),
                    ));
                    records.push(value);
                }
                for (offset, ack) in acks {
                    assert_eq!(ack.await.expect("the log is well").offset, offset);
                }
            }
            Step::Trim { partition, part } => {
                let p = partition as usize;
                let left = written[p].len() as u64 - start[p];
                let to = start[p] + (left as f64 * part) as u64;
                harness.trim(partition, to).await;
                start[p] = to;
            }
            Step::Read { limits } => {
                let read: u64 = (0..3).map(|p| place[p].max(start[p])).sum();
                let trimmed = (0..3).any(|p| place[p] < start[p]);
                if read == written.iter().map(|r| r.len() as u64).sum::<u64>() && !trimmed {
                    continue; // It would wait.
                }
                let batch = next(&mut follower, limits).await;
                for gone in batch.trimmed {
                    let p = gone.partition as usize;
                    assert_eq!((gone.from, gone.to), (place[p], start[p]));
                    place[p] = gone.to;
                }
                let bytes: usize = batch.records.iter().map(|r| r.value.len() + 6).sum();
                let count = batch.records.len();
                assert!(count <= 1 || count <= limits.records && bytes <= limits.bytes);
                for record in batch.records {
                    let p = record.partition as usize;
                    assert_eq!(record.offset, place[p]);
                    assert_eq!(record.value, written[p][place[p] as usize]);
                    place[p] += 1;
                }
                assert_eq!(batch.position, Position::from(place.to_vec()));
            }
            Step::Reopen => {
                let position = follower.position().clone();
                drop(follower);
                writing.end().await;
                harness.reopen().await;
                writing = Writing::to(harness.log());
                follower = reader(&harness.log(), position).await;
            }
        }
        let bounds = harness.log().bounds().await.expect("the log is well");
        assert_eq!(bounds.start, Position::from(start.to_vec()));
        assert_eq!(bounds.end, end(&written));
    }
    writing.end().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_history_agrees_with_plain_vectors(steps in prop::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(within_patience(play(steps)));
    }
}
