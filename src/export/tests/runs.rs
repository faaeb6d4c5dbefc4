//! Whole exports from a log in memory to a folder, and what is left when one dies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::future::pending;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::super::destination::{self, Destination, Staged, Upload};
use super::super::*;
use super::*;
use crate::domain::Violations;
use crate::event_log::memory::MemoryLog;
use crate::proto::EventFilter;

/// How long a test waits that would wait for ever if something were wrong.
const LONG: Duration = Duration::from_secs(60);

fn options(out: &Path) -> Options {
    Options {
        target: Target::Local(out.to_path_buf()),
        s3: S3Settings::default(),
        from: Place::Earliest,
        to: Some(Place::Now),
        filter: Filter::default(),
        origins: Origins::Kept,
        format: Format::Parquet,
        compression: Compression::Snappy,
        layout: Layout::Flat,
        mode: Mode::Error,
        cursor_file: None,
        if_expired: Expired::Fail,
        file_size: MIN_FILE_SIZE,
        file_age: Duration::from_secs(60),
    }
}

/// With a cursor file beside the folder.
pub fn incremental(out: &Path) -> Options {
    let cursor_file = Some(out.with_extension("cursor"));
    Options { cursor_file, mode: Mode::Append, ..options(out) }
}

async fn export(log: &Arc<MemoryLog>, options: Options) -> Result<Summary, ExportError> {
    run(Arc::clone(log) as Arc<dyn EventLog>, options, Arc::default(), pending()).await
}

/// Three partitions with events of every kind, twenty for each player.
fn log_of(events: u64) -> Arc<MemoryLog> {
    let log = MemoryLog::new(3);
    push(&log, 0..events);
    log
}

fn push(log: &MemoryLog, ids: std::ops::Range<u64>) {
    let payloads = payloads();
    for id in ids {
        let payload = payloads[id as usize % payloads.len()].clone();
        log.push(id as u32 % 3, event(id, payload).encode_to_vec());
    }
}

fn files(folder: &Path) -> BTreeSet<String> {
    fn walk(folder: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.insert(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    let mut found = BTreeSet::new();
    if folder.exists() {
        walk(folder, folder, &mut found);
    }
    found
}

/// The places of the rows in all Parquet files that readers see. Every one of the files is whole.
fn places(folder: &Path) -> Vec<(i32, i64)> {
    let mut places = Vec::new();
    for name in files(folder).iter().filter(|name| name.ends_with(".parquet")) {
        let file = File::open(folder.join(name)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        for batch in reader {
            let batch = batch.unwrap();
            assert_eq!(batch.schema().fields().len(), schema().fields().len());
            let partitions = batch.column_by_name("partition").unwrap();
            let offsets = batch.column_by_name("offset").unwrap();
            let partitions = partitions.as_primitive::<Int32Type>().values();
            let offsets = offsets.as_primitive::<Int64Type>().values();
            places.extend(partitions.iter().copied().zip(offsets.iter().copied()));
        }
    }
    places.sort_unstable();
    places
}

/// The lines of the one file of them in a folder.
fn lines(folder: &Path) -> Vec<Value> {
    let name = files(folder).into_iter().find(|name| name.ends_with(".jsonl")).unwrap();
    let text = fs::read_to_string(folder.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The bytes of an event that a line has.
fn raw(line: &Value) -> Vec<u8> {
    STANDARD.decode(line["rawValue"].as_str().unwrap()).unwrap()
}

/// The places of all records of a log.
fn all(log: &MemoryLog) -> Vec<(i32, i64)> {
    let of = |partition: u32| log.records(partition).into_iter();
    let place = |record: crate::event_log::Record| (record.partition as i32, record.offset as i64);
    let mut places: Vec<_> = (0..3).flat_map(of).map(place).collect();
    places.sort_unstable();
    places
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_event_is_in_the_files_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let log = log_of(100);
    // A retry that reached two servers, and what is no event.
    let again = log.records(1)[0].value.clone();
    let mut again = proto::GameEvent::decode(again).unwrap();
    again.checked_through_offset = 0;
    log.push(1, again.encode_to_vec());
    log.push(2, "no event");
    log.leave_out(0);

    let summary = export(&log, options(&out)).await.unwrap();
    assert_eq!((summary.events, summary.duplicates, summary.foreign), (100, 1, 1));
    assert_eq!(summary.first_foreign, Some((2, 33)));
    let mut expected = all(&log);
    expected.retain(|place| ![(1, 33), (2, 33)].contains(place));
    assert_eq!(places(&out), expected);
    let names = files(&out);
    assert!(names.contains("_SUCCESS") && names.len() == 2, "{names:?}");
    assert_eq!(fs::metadata(out.join("_SUCCESS")).unwrap().len(), 0);

    // From where it ended there is nothing more.
    let cursor = Cursor::decode(&summary.cursor).unwrap();
    let next = Options { from: Place::Cursor(cursor), mode: Mode::Append, ..options(&out) };
    let summary = export(&log, next).await.unwrap();
    assert_eq!((summary.events, summary.files), (0, 0));
    assert_eq!(places(&out), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_event_lies_in_the_folder_of_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_of(48);
    let export_to = async |name: &str, layout, filter: EventFilter| {
        let out = folder.path().join(name);
        let filter = Filter::parse(Some(&filter), &mut Violations::default());
        let options = Options { layout, filter, ..options(&out) };
        let summary = export(&log, options).await.unwrap();
        let rows: BTreeMap<String, usize> = fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .map(|path| {
                (path.file_name().unwrap().to_string_lossy().into_owned(), places(&path).len())
            })
            .collect();
        assert_eq!(rows.values().sum::<usize>() as u64, summary.events);
        rows
    };
    let all = EventFilter::default();
    let by_type = export_to("type", Layout::Split(Key::Type), all.clone()).await;
    assert_eq!(by_type.len(), 8);
    assert_eq!(by_type["event_type=guild_joined"], 6);
    let by_day = export_to("hive", Layout::Hive, all.clone()).await;
    assert_eq!(by_day.values().sum::<usize>(), 48);
    assert!(by_day.keys().all(|name| name.starts_with("date=")), "{by_day:?}");
    let two = EventFilter {
        player_ids: vec!["player-0".into(), "player-1".into()],
        ..EventFilter::default()
    };
    let by_player = export_to("player", Layout::Split(Key::Player), two).await;
    let expected = [("player_id=player-0", 16), ("player_id=player-1", 16)];
    assert_eq!(by_player, expected.map(|(name, rows)| (name.to_owned(), rows)).into());
    let guild = EventFilter { guild_ids: vec!["g".into()], ..EventFilter::default() };
    let by_guild = export_to("guild", Layout::Split(Key::Guild), guild).await;
    assert_eq!(by_guild, [("guild_id=g".to_owned(), 12)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_there_stays_unless_it_may_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let log = log_of(9);
    export(&log, options(&out)).await.unwrap();
    let first = files(&out);
    let refused = export(&log, options(&out)).await.unwrap_err();
    assert!(matches!(refused, ExportError::NotEmpty(_)), "{refused}");
    assert_eq!(files(&out), first);

    let again = |mode| Options { mode, layout: Layout::Hive, ..options(&out) };
    export(&log, again(Mode::Append)).await.unwrap();
    assert_eq!(places(&out).len(), 18);
    export(&log, again(Mode::Overwrite)).await.unwrap();
    assert_eq!(places(&out), all(&log));
    assert!(files(&out).is_disjoint(&(&first - &["_SUCCESS".to_owned()].into())));

    fs::write(out.join("notes.txt"), "mine").unwrap();
    let before = files(&out);
    let refused = export(&log, again(Mode::Overwrite)).await.unwrap_err();
    assert!(refused.to_string().contains("notes.txt"), "{refused}");
    assert_eq!(files(&out), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_run_goes_on_where_the_last_one_ended() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let log = MemoryLog::new(3);
    for round in 0..4 {
        push(&log, round * 10..(round + 1) * 10);
        let summary = export(&log, incremental(&out)).await.unwrap();
        assert_eq!(summary.events, 10);
        assert_eq!(places(&out), all(&log));
    }
    assert_eq!(export(&log, incremental(&out)).await.unwrap().events, 0);

    log.trim(1, 5);
    push(&log, 40..50);
    assert_eq!(export(&log, incremental(&out)).await.unwrap().events, 10);
    log.trim(1, log.bounds().await.unwrap().end.get(1));
    push(&log, 50..60);
    log.trim(1, log.bounds().await.unwrap().end.get(1));
    let gone = export(&log, incremental(&out)).await.unwrap_err();
    assert!(matches!(gone, ExportError::Expired(_)), "{gone}");
    let forgiving = Options { if_expired: Expired::Earliest, ..incremental(&out) };
    let summary = export(&log, forgiving).await.unwrap();
    assert_eq!(summary.missing + summary.events, 10);
    assert!(summary.missing > 0);

    log.replace();
    let other = export(&log, incremental(&out)).await.unwrap_err();
    assert!(matches!(other, ExportError::OtherLog { .. }), "{other}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_export_that_follows_publishes_by_age_and_when_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let log = log_of(10);
    let options = Options { to: None, file_age: Duration::from_millis(1), ..incremental(&out) };
    let (stop, stopped) = oneshot::channel::<()>();
    let following = run(Arc::clone(&log) as Arc<dyn EventLog>, options, Arc::default(), async {
        drop(stopped.await)
    });
    let watching = async {
        while places(&out).len() < 10 {
            tokio::task::yield_now().await;
        }
        push(&log, 10..20);
        while places(&out).len() < 20 {
            tokio::task::yield_now().await;
        }
        push(&log, 20..30);
        stop.send(()).unwrap();
    };
    let both = async { tokio::join!(following, watching) };
    let (summary, ()) = timeout(LONG, both).await.expect("the rows are published");
    assert!(summary.unwrap().interrupted);
    // Whether the last ones were read before the end or not: the next run has them.
    export(&log, incremental(&out)).await.unwrap();
    assert_eq!(places(&out), all(&log));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn lines_hold_what_the_feed_says_and_more_where_it_knows_less() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let log = log_of(3);
    log.push(0, newer_event(7));
    let options =
        Options { format: Format::JsonLines, compression: Compression::None, ..options(&out) };
    export(&log, options).await.unwrap();
    let lines = lines(&out);
    assert_eq!(lines.len(), 4);
    let newer = lines.iter().find(|line| line["event"]["eventType"] == "dragon_tamed").unwrap();
    assert_eq!(raw(newer), newer_event(7));
    assert!(lines.iter().filter(|line| line.get("rawValue").is_some()).count() == 1);
}

/// Others have their temporary files in the same folder, and what they staged is theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_temporary_files_of_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let log = log_of(3);
    let theirs = ["_temporary/0/part-0.tmp", "_herald_temporary/another/part-0.parquet.tmp"];
    for name in theirs {
        fs::create_dir_all(out.join(name).parent().unwrap()).unwrap();
        fs::write(out.join(name), "theirs").unwrap();
    }
    let refused = export(&log, options(&out)).await.unwrap_err();
    assert!(matches!(refused, ExportError::NotEmpty(_)), "{refused}");
    export(&log, incremental(&out)).await.unwrap();
    let there = files(&out);
    assert!(theirs.iter().all(|name| there.contains(*name)), "{there:?}");
    assert_eq!(places(&out), all(&log));
}

/// A destination of which nothing more is heard after so many steps, as when the process is
/// killed: what it was doing then is done, or not.
struct Mortal {
    inner: Box<dyn Destination>,
    steps_left: Arc<AtomicUsize>,
}

fn dead() -> DestinationError {
    destination::dead()
}

/// Whether there is life for another step.
fn step(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Mortal {
    /// Does something in two steps: before it, and behind it.
    fn act<T>(
        &self,
        act: impl FnOnce(&dyn Destination) -> Result<T, DestinationError>,
    ) -> Result<T, DestinationError> {
        if !step(&self.steps_left) {
            return Err(dead());
        }
        let done = act(&*self.inner)?;
        if step(&self.steps_left) { Ok(done) } else { Err(dead()) }
    }
}

impl Destination for Mortal {
    fn files(&self) -> Result<Vec<String>, DestinationError> {
        self.act(|inner| inner.files())
    }

    fn create(&self, path: &str) -> Result<Box<dyn Upload>, DestinationError> {
        let upload = self.act(|inner| inner.create(path))?;
        Ok(Box::new(MortalUpload { upload, steps_left: Arc::clone(&self.steps_left) }))
    }

    fn publish(&self, file: &Staged) -> Result<(), DestinationError> {
        self.act(|inner| inner.publish(file))
    }

    fn remove(&self, path: &str) -> Result<(), DestinationError> {
        self.act(|inner| inner.remove(path))
    }

    fn discard(&self, _file: &Staged) {
        // The dead tidy nothing up.
    }

    fn clear(&self) -> Result<(), DestinationError> {
        self.act(|inner| inner.clear())
    }

    fn mark_success(&self) -> Result<(), DestinationError> {
        self.act(|inner| inner.mark_success())
    }

    fn unmark_success(&self) -> Result<(), DestinationError> {
        self.act(|inner| inner.unmark_success())
    }
}

struct MortalUpload {
    upload: Box<dyn Upload>,
    steps_left: Arc<AtomicUsize>,
}

impl Upload for MortalUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if step(&self.steps_left) {
            self.upload.write(bytes)
        } else {
            Err(io::Error::other("dead"))
        }
    }

    fn finish(self: Box<Self>) -> Result<Staged, DestinationError> {
        if step(&self.steps_left) { self.upload.finish() } else { Err(dead()) }
    }
}

/// Whatever the step at which it dies: nothing is seen that is not whole, and the next run ends
/// with each row once. Steps of the journal lie between those of the destination.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_export_that_dies_at_any_step_is_finished_by_the_next() {
    let mut deaths = 0;
    for steps in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let log = log_of(24);
        let options = Options { layout: Layout::Split(Key::Type), ..incremental(&out) };
        export(&log, options.clone()).await.unwrap();
        push(&log, 24..48);

        let left = Arc::new(AtomicUsize::new(steps));
        let mortal = {
            let (options, left) = (options.clone(), Arc::clone(&left));
            move |handle: &Handle| -> Result<Box<dyn Destination>, DestinationError> {
                let inner =
                    destination::open(&options.target, &owner(&options), &options.s3, handle)?;
                Ok(Box::new(Mortal { inner, steps_left: left }))
            }
        };
        let died = run_at(
            Arc::clone(&log) as Arc<dyn EventLog>,
            options.clone(),
            Arc::default(),
            pending(),
            mortal,
        )
        .await;
        let seen = places(&out);
        assert!(seen.iter().collect::<BTreeSet<_>>().len() == seen.len(), "no row came twice");
        deaths += usize::from(died.is_err());

        push(&log, 48..50);
        export(&log, options).await.unwrap();
        assert_eq!(places(&out), all(&log), "after {steps} steps");
        assert!(files(&out).iter().all(|name| !name.contains("_herald_temporary")));
        if died.is_ok() {
            break;
        }
    }
    assert!(deaths > 60, "{deaths} deaths");
}

/// The log has one partition more than the cursor knows, and retention was faster.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_that_was_added_and_trimmed_is_missing_rows() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let log = log_of(9);
    export(&log, incremental(&out)).await.unwrap();
    // Where nothing was removed of it, it is read from its start.
    let added = log.add_partition();
    log.push(added, event(100, payloads().remove(0)).encode_to_vec());
    assert_eq!(export(&log, incremental(&out)).await.unwrap().events, 1);

    let added = log.add_partition();
    for id in 101..104 {
        log.push(added, event(id, payloads().remove(0)).encode_to_vec());
    }
    log.trim(added, 2);
    let gone = export(&log, incremental(&out)).await.unwrap_err();
    let ExportError::Expired(gone) = gone else { panic!("{gone}") };
    assert_eq!((gone.partition, gone.from, gone.to), (added, 0, 2));
    let forgiving = Options { if_expired: Expired::Earliest, ..incremental(&out) };
    let summary = export(&log, forgiving).await.unwrap();
    assert_eq!((summary.events, summary.missing), (1, 2));
    // Who starts at the oldest event misses nothing.
    let anew = folder.path().join("anew");
    assert_eq!(export(&log, options(&anew)).await.unwrap().missing, 0);
    // And the end of an export may be before it.
    let end = Options {
        to: Some(Place::Cursor(Cursor::decode(&summary.cursor).unwrap())),
        ..options(&folder.path().join("end"))
    };
    log.add_partition();
    export(&log, end).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_mode_error_is_for_the_first_run_of_a_cursor_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let log = log_of(9);
    let strict = Options { mode: Mode::Error, ..incremental(&out) };
    fs::create_dir(&out).unwrap();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    let refused = export(&log, strict.clone()).await.unwrap_err();
    assert!(matches!(refused, ExportError::NotEmpty(_)), "{refused}");
    fs::remove_file(out.join("notes.txt")).unwrap();
    for round in 1..4 {
        export(&log, strict.clone()).await.unwrap();
        assert_eq!(places(&out), all(&log));
        push(&log, round * 9..(round + 1) * 9);
    }
}

/// Errors are printed with what is behind them, which is nothing that was said before.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_error_is_said_once_and_names_the_cursor_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let cursor = folder.path().join("out.cursor");
    let log = log_of(1);
    for (text, said) in [("", "is empty"), ("garbage", "damaged"), ("two words", "no cursor")] {
        fs::write(&cursor, text).unwrap();
        let error = export(&log, incremental(&out)).await.unwrap_err();
        let error = format!("{:#}", anyhow::Error::from(error));
        assert_eq!(error.matches(said).count(), 1, "{error}");
        assert_eq!(error.matches("out.cursor").count(), 1, "{error}");
    }
    let file = folder.path().join("file");
    fs::write(&file, "no folder").unwrap();
    let error = export(&log, options(&file)).await.unwrap_err();
    let error = format!("{:#}", anyhow::Error::from(error));
    assert_eq!(error.matches("cannot use the folder").count(), 1, "{error}");
}

/// Years that JSON has no form for.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_time_that_json_cannot_say_is_in_the_bytes_of_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let log = log_of(1);
    let mut late = event(7, payloads().remove(0));
    let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    late.accept_time = time(253_402_300_800, 0);
    log.push(0, late.encode_to_vec());
    let mut early = event(8, payloads().remove(1));
    let origin = early.origin.as_mut().unwrap();
    origin.client_context.as_mut().unwrap().client_time = time(i64::MIN, -1);
    log.push(0, early.encode_to_vec());
    let mut last = event(9, payloads().remove(1));
    last.accept_time = time(253_402_300_799, 999_999_999);
    log.push(0, last.encode_to_vec());

    let options =
        Options { format: Format::JsonLines, compression: Compression::None, ..options(&out) };
    export(&log, options).await.unwrap();
    let lines = lines(&out);
    assert_eq!(lines.len(), 4);
    assert_eq!(raw(&lines[1]), late.encode_to_vec());
    assert!(lines[1]["event"].get("acceptTime").is_none());
    assert_eq!(lines[1]["event"]["eventType"], late.event_type);
    assert_eq!(raw(&lines[2]), early.encode_to_vec());
    let context = &lines[2]["event"]["origin"]["clientContext"];
    assert_eq!((context.get("clientTime"), &context["platform"]), (None, &"ios".into()));
    assert_eq!(lines[3]["event"]["acceptTime"], "9999-12-31T23:59:59.999999999Z");
    assert!(lines[3].get("rawValue").is_none());
}

/// Killed behind the new cursor, and before the journal was removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_journal_that_was_done_is_not_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let log = log_of(12);
    let options = incremental(&out);
    let cursor = folder.path().join("out.cursor");
    let pending_path = folder.path().join("out.cursor.pending");
    // A run that dies before it has published anything leaves its journal.
    let mut entry = None;
    for steps in 0.. {
        let left = Arc::new(AtomicUsize::new(steps));
        let target = options.clone();
        let mortal = move |handle: &Handle| -> Result<Box<dyn Destination>, DestinationError> {
            let inner = destination::open(&target.target, &owner(&target), &target.s3, handle)?;
            Ok(Box::new(Mortal { inner, steps_left: left }))
        };
        let log = Arc::clone(&log) as Arc<dyn EventLog>;
        let _ = run_at(log, options.clone(), Arc::default(), pending(), mortal).await;
        if let Ok(text) = fs::read(&pending_path) {
            entry = Some(text);
            break;
        }
    }
    export(&log, options.clone()).await.unwrap();
    assert_eq!(places(&out), all(&log));
    assert!(!pending_path.exists());

    fs::write(&pending_path, entry.clone().unwrap()).unwrap();
    export(&log, options.clone()).await.unwrap();
    assert_eq!(places(&out), all(&log));
    assert!(!pending_path.exists());

    // The same folder has many names.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&out, &link).unwrap();
    for name in [link, folder.path().join(".").join("out/"), out.join("../out")] {
        fs::write(&pending_path, entry.clone().unwrap()).unwrap();
        let target = Target::Local(name);
        export(&log, Options { target, ..options.clone() }).await.unwrap();
        assert!(!pending_path.exists());
    }

    // With another cursor nobody knows what is meant.
    push(&log, 12..13);
    export(&log, options.clone()).await.unwrap();
    let before = fs::read_to_string(&cursor).unwrap();
    fs::write(&pending_path, entry.unwrap()).unwrap();
    let refused = export(&log, options.clone()).await.unwrap_err();
    assert!(matches!(refused, ExportError::Journal(_)), "{refused}");
    assert_eq!(fs::read_to_string(&cursor).unwrap(), before);
    // Nor where the files would go elsewhere.
    let elsewhere = Options { target: Target::Local(folder.path().join("other")), ..options };
    let refused = export(&log, elsewhere).await.unwrap_err();
    assert!(refused.to_string().contains("out"), "{refused}");
}
