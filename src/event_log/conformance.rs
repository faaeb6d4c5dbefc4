//! The conformance suite: the port's contract as tests, written against the port only.
//!
//! A back end implements [`Harness`] and names it in [`conformance_suite!`].

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::{
    AppendError, Appended, Appender, Attributes, EventLog, Health, LogId, LogReader,
    MAX_RECORD_BYTES, NewRecord, Offset, Partition, Position, ReadBatch, ReadError, ReadLimits,
    Record, Trimmed,
};
use crate::clock::{Clock, Timestamp};
use crate::tasks::{Death, Tasks};

/// What the suite needs of a back end beside the port.
pub(crate) trait Harness: Send + Sync + Sized {
    /// Whether what it needs is there; its tests are left out otherwise.
    fn is_available() -> bool {
        true
    }

    /// A new and empty log.
    fn create(partitions: u32) -> impl Future<Output = Self> + Send;

    /// The log as it is open now.
    fn log(&self) -> Arc<dyn EventLog>;

    /// Opens the same log again, as a restarted process would. Nobody else holds it.
    fn reopen(&mut self) -> impl Future<Output = ()> + Send;

    /// Removes a partition's records below an offset, as retention would.
    fn trim(&self, partition: Partition, to: Offset) -> impl Future<Output = ()> + Send;

    /// The clock that gives append times, where it can be set.
    fn clock(&self) -> Option<Clock>;

    /// Keeps the log from appending until what is returned is dropped, where that can
    /// be done.
    fn stall(&self) -> impl Future<Output = Option<Box<dyn Send>>> + Send;
}

/// Makes a test of every clause for a harness.
macro_rules! conformance_suite {
    ($harness:ty) => {
        $crate::event_log::conformance::conformance_suite!($harness:
            what_is_acknowledged_is_read_back_bit_for_bit,
            order_is_kept_within_each_partition,
            offsets_are_dense_and_go_on_after_reopening,
            every_partition_is_read,
            reading_begins_anywhere,
            a_waiting_reader_is_woken,
            a_dropped_read_loses_nothing,
            a_reader_can_go_anywhere,
            limits_are_kept_and_let_one_record_through,
            a_small_limit_starves_no_partition,
            bounds_include_what_was_acknowledged,
            a_time_leads_to_its_first_record,
            trimmed_records_are_reported,
            a_partition_trimmed_empty_keeps_its_offsets,
            the_identity_stays_and_is_the_logs_own,
            append_time_never_decreases,
            too_large_is_refused,
            overload_is_refused_and_bounded,
            nothing_is_taken_after_close,
            a_closed_log_can_be_read_to_its_end,
            each_of_many_is_acknowledged_and_present_once,
        );
    };
    ($harness:ty: $($clause:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $clause() {
                if !<$harness as $crate::event_log::conformance::Harness>::is_available() {
                    return;
                }
                let clause = $crate::event_log::conformance::$clause::<$harness>();
                $crate::event_log::conformance::within_patience(clause).await;
            }
        )*
    };
}
pub(crate) use conformance_suite;

/// Only so that a clause that never ends becomes one that fails.
pub(crate) async fn within_patience(clause: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(300), clause).await.expect("it never ended");
}

const ALL: ReadLimits = ReadLimits { records: 10_000, bytes: 64 << 20 };

/// Appends to a log, with what has to run for that.
pub(crate) struct Writing {
    pub(crate) appender: Appender,
    tasks: Tasks,
}

impl Writing {
    pub(crate) fn to(log: Arc<dyn EventLog>) -> Self {
        let (appender, driver) = Appender::new(log);
        let tasks = Tasks::new();
        tasks.spawn("acks", Death::Fatal, driver.run());
        Self { appender, tasks }
    }

    pub(crate) async fn append(&self, partition: Partition, value: &[u8]) -> Appended {
        self.appender.append(record(partition, value)).await.expect("the log is well")
    }

    /// Lets go of the log.
    pub(crate) async fn end(self) {
        self.tasks.stop();
        self.tasks.ended().await;
    }
}

pub(crate) fn record(partition: Partition, value: &[u8]) -> NewRecord {
    NewRecord {
        partition,
        key: Some(Bytes::from_static(b"player")),
        value: Bytes::copy_from_slice(value),
        attributes: Attributes {
            id: uuid::Uuid::nil(),
            event_type: "test.v1.Happened",
            time: Timestamp::from_millis(0),
            traceparent: None,
        },
    }
}

/// The identity of a log.
pub(crate) async fn id<L: EventLog + ?Sized>(log: &Arc<L>) -> LogId {
    log.bounds().await.expect("the log is well").log
}

pub(crate) async fn reader(log: &Arc<dyn EventLog>, from: Position) -> Box<dyn LogReader> {
    let id = id(log).await;
    log.open_reader(id, from).await.expect("the log is well")
}

pub(crate) async fn next(reader: &mut Box<dyn LogReader>, limits: ReadLimits) -> ReadBatch {
    reader.next(limits).await.expect("the log is well")
}

/// Reads from `from` to the end that the log has now.
pub(crate) async fn read_all(log: &Arc<dyn EventLog>, from: Position) -> ReadBatch {
    let end = log.bounds().await.expect("the log is well").end;
    let mut reader = reader(log, from).await;
    let mut all = ReadBatch { records: vec![], trimmed: vec![], position: Position::default() };
    while !reader.position().covers(&end) {
        let batch = next(&mut reader, ALL).await;
        all.records.extend(batch.records);
        all.trimmed.extend(batch.trimmed);
        assert_eq!(reader.position(), &batch.position);
    }
    all.position = reader.position().clone();
    all
}

fn of(records: &[Record], partition: Partition) -> Vec<&Record> {
    records.iter().filter(|record| record.partition == partition).collect()
}

pub(crate) async fn what_is_acknowledged_is_read_back_bit_for_bit<H: Harness>() {
    let mut harness = H::create(1).await;
    let writing = Writing::to(harness.log());
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = vec![7; MAX_RECORD_BYTES];
    let cases = [
        (None, every_byte.clone()),
        (Some(every_byte), vec![1]),
        (Some(vec![]), vec![]),
        (None, large),
    ];
    let mut expected = Vec::new();
    for (offset, (key, value)) in (0..).zip(cases) {
        let (key, value) = (key.map(Bytes::from), Bytes::from(value));
        let new = NewRecord { key: key.clone(), value: value.clone(), ..record(0, b"") };
        let Appended { partition, offset: at, append_time, .. } =
            writing.appender.append(new).await.expect("the log is well");
        assert_eq!((partition, at), (0, offset));
        expected.push(Record { partition, offset, append_time, key, value });
    }
    assert_eq!(read_all(&harness.log(), Position::default()).await.records, expected);
    writing.end().await;
    harness.reopen().await;
    assert_eq!(read_all(&harness.log(), Position::default()).await.records, expected);
}

pub(crate) async fn order_is_kept_within_each_partition<H: Harness>() {
    let harness = H::create(3).await;
    let writing = Writing::to(harness.log());
    // Each writer submits to one partition, without waiting, together with the others.
    let tasks = Tasks::new();
    for partition in 0..3 {
        let appender = writing.appender.clone();
        tasks.spawn("writer", Death::Expected, async move {
            let acks: Vec<_> = (0..500u32)
                .map(|number| appender.append(record(partition, &number.to_be_bytes())))
                .collect();
            for ack in join_all(acks).await {
                ack.expect("the log is well");
            }
        });
    }
    tasks.stop();
    tasks.ended().await;
    let records = read_all(&harness.log(), Position::default()).await.records;
    for partition in 0..3 {
        let numbers: Vec<_> = of(&records, partition).iter().map(|r| r.value.clone()).collect();
        let expected: Vec<_> =
            (0..500u32).map(|n| Bytes::copy_from_slice(&n.to_be_bytes())).collect();
        assert_eq!(numbers, expected);
    }
    writing.end().await;
}

pub(crate) async fn offsets_are_dense_and_go_on_after_reopening<H: Harness>() {
    let mut harness = H::create(2).await;
    for round in 0..3 {
        let writing = Writing::to(harness.log());
        for number in 0..10 {
            for partition in 0..2 {
                let appended = writing.append(partition, b"x").await;
                assert_eq!(appended.offset, round * 10 + number);
            }
        }
        writing.end().await;
        harness.reopen().await;
    }
}

pub(crate) async fn every_partition_is_read<H: Harness>() {
    let harness = H::create(5).await;
    let writing = Writing::to(harness.log());
    for partition in [4, 0, 2, 4] {
        writing.append(partition, b"x").await;
    }
    // A position that names only some begins the others at their start.
    let batch = read_all(&harness.log(), Position::zero(1)).await;
    let mut places: Vec<_> = batch.records.iter().map(|r| (r.partition, r.offset)).collect();
    places.sort_unstable();
    assert_eq!(places, [(0, 0), (2, 0), (4, 0), (4, 1)]);
    assert_eq!(batch.position, Position::from(vec![1, 0, 1, 0, 2]));
    writing.end().await;
}

pub(crate) async fn reading_begins_anywhere<H: Harness>() {
    let mut harness = H::create(2).await;
    let writing = Writing::to(harness.log());
    for number in 0..20u8 {
        writing.append(u32::from(number % 2), &[number]).await;
    }
    writing.end().await;
    // From what was just written, and from what was written long ago.
    for _ in 0..2 {
        for from in 0..=10 {
            let position = Position::from(vec![from, 10 - from]);
            let records = read_all(&harness.log(), position).await.records;
            let offsets = |p| of(&records, p).iter().map(|r| r.offset).collect::<Vec<_>>();
            assert_eq!(offsets(0), (from..10).collect::<Vec<_>>());
            assert_eq!(offsets(1), (10 - from..10).collect::<Vec<_>>());
        }
        harness.reopen().await;
    }
}

pub(crate) async fn a_waiting_reader_is_woken<H: Harness>() {
    let harness = H::create(2).await;
    let writing = Writing::to(harness.log());
    let mut reader = reader(&harness.log(), Position::default()).await;
    for number in 0..20u8 {
        let mut waiting = reader.next(ALL);
        assert!((&mut waiting).now_or_never().is_none(), "there is nothing to read yet");
        writing.append(u32::from(number % 2), &[number]).await;
        let batch = waiting.await.expect("the log is well");
        assert_eq!(batch.records.len(), 1);
        assert_eq!(batch.records[0].value[..], [number]);
    }
    writing.end().await;
}

pub(crate) async fn a_dropped_read_loses_nothing<H: Harness>() {
    let mut harness = H::create(2).await;
    let writing = Writing::to(harness.log());
    let mut waiting = reader(&harness.log(), Position::default()).await;
    assert!(waiting.next(ALL).now_or_never().is_none());
    for number in 0..10u8 {
        writing.append(u32::from(number % 2), &[number]).await;
    }
    writing.end().await;
    let mut count = 0;
    while count < 10 {
        count += next(&mut waiting, ALL).await.records.len();
    }
    drop(waiting);

    harness.reopen().await;
    let one = ReadLimits { records: 1, bytes: usize::MAX };
    let mut reader = reader(&harness.log(), Position::default()).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 10 {
        let before = reader.position().clone();
        // Begun and given up: either it was complete, or it was not begun.
        let given_up = reader.next(one).now_or_never();
        let batch = match given_up {
            Some(batch) => batch.expect("the log is well"),
            None => {
                assert_eq!(reader.position(), &before);
                next(&mut reader, one).await
            }
        };
        for record in batch.records {
            assert!(seen.insert((record.partition, record.offset)), "given twice");
        }
    }
}

pub(crate) async fn a_reader_can_go_anywhere<H: Harness>() {
    let mut harness = H::create(2).await;
    let writing = Writing::to(harness.log());
    for number in 0..20u8 {
        writing.append(u32::from(number % 2), &[number]).await;
    }
    let mut log = id(&harness.log()).await;
    let mut reader = reader(&harness.log(), Position::default()).await;
    let one = ReadLimits { records: 1, bytes: usize::MAX };
    for from in [10, 3, 3, 0, 9, 1, 10] {
        // Away from what was fetched and not read, also when that was being waited for.
        let given_up = reader.next(one).now_or_never();
        assert!(given_up.is_none_or(|read| read.is_ok()));
        let place = Position::from(vec![from, 10 - from]);
        reader.seek(log, place.clone());
        assert!(reader.position().covers(&place) && place.covers(reader.position()));
        let mut found = BTreeSet::new();
        while found.len() < 10 {
            let batch = next(&mut reader, ALL).await;
            found.extend(batch.records.iter().map(|record| (record.partition, record.offset)));
        }
        let expected = (from..10).map(|at| (0, at)).chain((10 - from..10).map(|at| (1, at)));
        assert!(found.into_iter().eq(expected), "from {from} on");
    }
    // To the end, where it is woken; a place that does not name all partitions; what is not
    // there any more, twice, as it is missing from each place before it.
    reader.seek(log, vec![10, 10].into());
    assert!(reader.next(ALL).now_or_never().is_none(), "there is nothing to read");
    writing.append(1, b"more").await;
    assert_eq!(next(&mut reader, ALL).await.records[0].offset, 10);
    harness.trim(1, 6).await;
    for _ in 0..2 {
        reader.seek(log, vec![10].into());
        let (mut trimmed, mut offsets) = (Vec::new(), Vec::new());
        while offsets.len() < 5 {
            let batch = next(&mut reader, ALL).await;
            trimmed.extend(batch.trimmed);
            offsets.extend(batch.records.iter().map(|record| record.offset));
        }
        assert_eq!(trimmed, [Trimmed { partition: 1, from: 0, to: 6 }]);
        assert_eq!(offsets, [6, 7, 8, 9, 10]);
    }
    // Another log, and back.
    reader.seek(LogId(uuid::Uuid::max()), Position::default());
    assert!(matches!(reader.next(ALL).await, Err(ReadError::Replaced)));
    reader.seek(log, vec![9, 11].into());
    assert_eq!(next(&mut reader, ALL).await.records[0].offset, 9);
    writing.end().await;
    drop(reader);
    harness.reopen().await;
    log = id(&harness.log()).await;
    let mut reader = self::reader(&harness.log(), vec![10, 11].into()).await;
    reader.seek(log, vec![0, 11].into());
    assert_eq!(next(&mut reader, one).await.records[0].offset, 0);
}

pub(crate) async fn limits_are_kept_and_let_one_record_through<H: Harness>() {
    let mut harness = H::create(2).await;
    let writing = Writing::to(harness.log());
    for number in 0..60 {
        writing.append(number % 2, &[0; 94]).await; // and 6 of the key
    }
    writing.end().await;
    for _ in 0..2 {
        for (records, bytes, most) in
            [(7, 1 << 20, 7), (1000, 1000, 10), (1, 1 << 20, 1), (1000, 1, 1), (0, 0, 1)]
        {
            let limits = ReadLimits { records, bytes };
            let mut reader = reader(&harness.log(), Position::default()).await;
            let mut count = 0;
            while count < 60 {
                let batch = next(&mut reader, limits).await;
                assert!((1..=most).contains(&batch.records.len()), "{limits:?}");
                count += batch.records.len();
            }
            assert_eq!(count, 60);
        }
        harness.reopen().await;
    }
}

pub(crate) async fn a_small_limit_starves_no_partition<H: Harness>() {
    let mut harness = H::create(3).await;
    for reopened in [false, true] {
        let writing = Writing::to(harness.log());
        for _ in 0..50 {
            writing.append(0, &[0; 100]).await;
            writing.append(2, &[0; 100]).await;
        }
        let first = if reopened { 50 } else { 0 };
        let mut reader = reader(&harness.log(), Position::from(vec![first, 0, first])).await;
        // What is written on and on to the busy partition does not hold up the other.
        let one = ReadLimits { records: 1, bytes: 1 };
        let mut of_last = 0;
        for _ in 0..30 {
            writing.append(0, b"more").await;
            let batch = next(&mut reader, one).await;
            of_last += of(&batch.records, 2).len();
        }
        assert!(of_last >= 10, "{of_last} of 30");
        drop(reader);
        writing.end().await;
        harness.reopen().await;
    }
}

pub(crate) async fn bounds_include_what_was_acknowledged<H: Harness>() {
    let harness = H::create(3).await;
    let log = harness.log();
    let writing = Writing::to(Arc::clone(&log));
    let bounds = log.bounds().await.expect("the log is well");
    assert_eq!((&bounds.start, &bounds.end), (&Position::zero(3), &Position::zero(3)));
    let mut before = bounds;
    for number in 0..60 {
        let appended = writing.append(number % 3, b"x").await;
        let bounds = log.bounds().await.expect("the log is well");
        assert!(bounds.end.get(appended.partition) > appended.offset);
        assert!(bounds.end.covers(&before.end) && bounds.start.covers(&before.start));
        before = bounds;
    }
    assert_eq!(before.end, Position::from(vec![20, 20, 20]));
    writing.end().await;
}

pub(crate) async fn a_time_leads_to_its_first_record<H: Harness>() {
    let mut harness = H::create(2).await;
    let writing = Writing::to(harness.log());
    let mut times = Vec::new();
    for step in 0..40i64 {
        // Several records share each time.
        if let Some(clock) = harness.clock() {
            clock.set(Timestamp::from_millis(1_000_000 + step / 4 * 10));
        }
        times.push(writing.append(0, b"x").await.append_time);
    }
    writing.end().await;
    let first = times.iter().min().expect("there are some").as_millis();
    let last = times.iter().max().expect("there are some").as_millis();
    harness.trim(0, 5).await;
    for _ in 0..2 {
        let log = harness.log();
        for time in [first - 1, first, first + 1, first + 10, last, last + 1] {
            let time = Timestamp::from_millis(time);
            let expected = times.iter().position(|&at| at >= time).unwrap_or(times.len()).max(5);
            let position = log.position_at(id(&log).await, time).await.expect("the log is well");
            assert_eq!(position, Position::from(vec![expected as u64, 0]), "{time:?}");
        }
        drop(log);
        harness.reopen().await;
    }
}

pub(crate) async fn trimmed_records_are_reported<H: Harness>() {
    let mut harness = H::create(2).await;
    let writing = Writing::to(harness.log());
    for number in 0..20u8 {
        writing.append(u32::from(number % 2), &[number]).await;
    }
    writing.end().await;
    // A reader that is open when it happens, behind and not behind the trimmed ones.
    let mut behind = reader(&harness.log(), Position::from(vec![2, 10])).await;
    let mut ahead = reader(&harness.log(), Position::from(vec![8, 10])).await;
    harness.trim(0, 6).await;
    let batch = next(&mut ahead, ALL).await;
    assert_eq!((batch.trimmed.len(), batch.records[0].offset), (0, 8));
    let (mut trimmed, mut offsets) = (Vec::new(), Vec::new());
    while offsets.len() < 4 {
        let batch = next(&mut behind, ALL).await;
        trimmed.extend(batch.trimmed);
        offsets.extend(batch.records.iter().map(|record| record.offset));
    }
    assert_eq!(trimmed, [Trimmed { partition: 0, from: 2, to: 6 }]);
    assert_eq!(offsets, [6, 7, 8, 9]);
    drop((ahead, behind));

    for _ in 0..2 {
        let bounds = harness.log().bounds().await.expect("the log is well");
        assert_eq!(bounds.start, Position::from(vec![6, 0]));
        assert_eq!(bounds.end, Position::from(vec![10, 10]));
        let batch = read_all(&harness.log(), Position::default()).await;
        assert_eq!(batch.trimmed, [Trimmed { partition: 0, from: 0, to: 6 }]);
        assert_eq!(batch.records.len(), 14);
        harness.reopen().await;
    }
}

pub(crate) async fn a_partition_trimmed_empty_keeps_its_offsets<H: Harness>() {
    let mut harness = H::create(1).await;
    let writing = Writing::to(harness.log());
    let mut newest = Timestamp::default();
    for _ in 0..10 {
        newest = writing.append(0, b"x").await.append_time;
    }
    writing.end().await;
    harness.trim(0, 10).await;
    harness.reopen().await;
    if let Some(clock) = harness.clock() {
        clock.set(newest.minus(Duration::from_secs(3600)));
    }
    let bounds = harness.log().bounds().await.expect("the log is well");
    assert_eq!((bounds.start.get(0), bounds.end.get(0)), (10, 10));
    let writing = Writing::to(harness.log());
    let appended = writing.append(0, b"y").await;
    assert_eq!(appended.offset, 10);
    assert!(appended.append_time >= newest);
    writing.end().await;
    let batch = read_all(&harness.log(), Position::default()).await;
    assert_eq!(batch.trimmed, [Trimmed { partition: 0, from: 0, to: 10 }]);
    assert_eq!(batch.records.len(), 1);
}

pub(crate) async fn the_identity_stays_and_is_the_logs_own<H: Harness>() {
    let mut harness = H::create(1).await;
    let first = id(&harness.log()).await;
    let writing = Writing::to(harness.log());
    assert_eq!(writing.append(0, b"x").await.log, first);
    writing.end().await;
    harness.reopen().await;
    assert_eq!(id(&harness.log()).await, first);
    let other = H::create(1).await;
    assert_ne!(id(&other.log()).await, first);
    // Positions of one log mean nothing in another.
    let opened = other.log().open_reader(first, Position::default()).await;
    assert!(matches!(opened, Err(ReadError::Replaced)));
    let at = other.log().position_at(first, Timestamp::default()).await;
    assert_eq!(at, Err(ReadError::Replaced));
}

pub(crate) async fn append_time_never_decreases<H: Harness>() {
    let mut harness = H::create(2).await;
    let mut newest = [Timestamp::from_millis(i64::MIN); 2];
    for round in 0..3 {
        let writing = Writing::to(harness.log());
        for step in 0..10i64 {
            if let Some(clock) = harness.clock() {
                // Forth, and back behind where it began.
                clock.set(Timestamp::from_millis(1_000_000 + (step * 7 % 5) * 100 - round * 1000));
            }
            for partition in 0..2 {
                let time = writing.append(partition, b"x").await.append_time;
                assert!(time >= newest[partition as usize]);
                newest[partition as usize] = time;
            }
        }
        writing.end().await;
        harness.reopen().await;
    }
    let records = read_all(&harness.log(), Position::default()).await.records;
    for partition in 0..2 {
        assert!(of(&records, partition).is_sorted_by_key(|record| record.append_time));
    }
}

pub(crate) async fn too_large_is_refused<H: Harness>() {
    let harness = H::create(1).await;
    let writing = Writing::to(harness.log());
    // The key counts.
    let new = record(0, &vec![0; MAX_RECORD_BYTES - 5]);
    let refused = writing.appender.append(new).await;
    assert_eq!(refused, Err(AppendError::TooLarge(MAX_RECORD_BYTES + 1)));
    writing.append(0, &vec![0; MAX_RECORD_BYTES - 6]).await;
    assert_eq!(harness.log().bounds().await.expect("the log is well").end.get(0), 1);
    writing.end().await;
}

pub(crate) async fn overload_is_refused_and_bounded<H: Harness>() {
    let harness = H::create(1).await;
    let writing = Writing::to(harness.log());
    let Some(stall) = harness.stall().await else { return };
    // More records, and more bytes, than any back end may hold.
    let mut submitted = Vec::new();
    for (count, size) in [(300_000, 4), (300, 900_000)] {
        let value = Bytes::from(vec![1; size]);
        submitted.extend((0..count).map(|_| {
            let new = NewRecord { value: value.clone(), ..record(0, b"") };
            writing.appender.append(new)
        }));
    }
    assert_eq!(harness.log().bounds().await.expect("the log is well").end.get(0), 0);
    drop(stall);
    let mut taken = 0;
    for ack in submitted {
        match ack.await {
            Ok(appended) => {
                assert_eq!(appended.offset, taken);
                taken += 1;
            }
            Err(error) => assert_eq!(error, AppendError::Overloaded),
        }
    }
    assert!((1..=200_000).contains(&taken), "{taken} were taken");
    assert_eq!(harness.log().bounds().await.expect("the log is well").end.get(0), taken);
    // There is room again.
    writing.append(0, b"at last").await;
    writing.end().await;
}

pub(crate) async fn nothing_is_taken_after_close<H: Harness>() {
    let harness = H::create(1).await;
    let log = harness.log();
    let writing = Writing::to(Arc::clone(&log));
    let taken: Vec<_> = (0..100).map(|_| writing.appender.append(record(0, b"x"))).collect();
    log.close().await;
    for ack in join_all(taken).await {
        ack.expect("what was taken is completed");
    }
    let refused = writing.appender.append(record(0, b"y")).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    assert!(matches!(*log.health().borrow(), Health::Unwritable(_)));
    // Once more does no harm.
    log.close().await;
    writing.end().await;
}

pub(crate) async fn a_closed_log_can_be_read_to_its_end<H: Harness>() {
    let harness = H::create(1).await;
    let log = harness.log();
    let writing = Writing::to(Arc::clone(&log));
    let mut reader = reader(&log, Position::default()).await;
    writing.append(0, b"x").await;
    log.close().await;
    assert_eq!(next(&mut reader, ALL).await.records.len(), 1);
    writing.end().await;
}

pub(crate) async fn each_of_many_is_acknowledged_and_present_once<H: Harness>() {
    const COUNT: u32 = 10_000;
    let harness = H::create(4).await;
    let writing = Writing::to(harness.log());
    let acks: Vec<_> = (0..COUNT)
        .map(|number| writing.appender.append(record(number % 4, &number.to_be_bytes())))
        .collect();
    let places: BTreeSet<_> = join_all(acks)
        .await
        .into_iter()
        .map(|ack| ack.expect("the log is well"))
        .map(|appended| (appended.partition, appended.offset))
        .collect();
    assert_eq!(places.len(), COUNT as usize);
    let records = read_all(&harness.log(), Position::default()).await.records;
    assert_eq!(records.len(), COUNT as usize);
    let values: BTreeSet<_> = records.iter().map(|record| record.value.clone()).collect();
    assert_eq!(values.len(), COUNT as usize);
    assert!(records.iter().all(|record| places.contains(&(record.partition, record.offset))));
    writing.end().await;
}
