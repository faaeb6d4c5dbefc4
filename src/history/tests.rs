//! The rule against a plain oracle, and what decides at its edges.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use prost::Message as _;
use tokio::sync::watch;

use super::*;
use crate::clock::Timestamp;
use crate::event_log::memory::MemoryLog;
use crate::event_log::{
    Ack, Bounds, EventLog, Health, LogId, LogReader, NewRecord, Offset, ReadError, ReadLimits,
};
use crate::proto;

const ONE: ReadLimits = ReadLimits { records: 1, bytes: 1 << 20 };
const MANY: ReadLimits = ReadLimits { records: 10_000, bytes: 1 << 30 };

/// An event, and how far its writer had looked.
fn event(id: u64, checked_through: u64) -> Vec<u8> {
    proto::GameEvent {
        event_id: uuid::Uuid::from_u128(id.into()).to_string(),
        event_type: "session_started".into(),
        checked_through_offset: checked_through as i64,
        ..Default::default()
    }
    .encode_to_vec()
}

/// One whose writer had looked as far as can be.
fn new_event(log: &MemoryLog, id: u64) {
    log.push(0, event(id, i64::MAX as u64));
}

async fn open(log: &Arc<MemoryLog>, from: &[Offset]) -> Reader {
    let as_log = Arc::clone(log) as Arc<dyn EventLog>;
    Reader::open(as_log, log.id(), from.to_vec().into()).await.unwrap()
}

/// Which offsets of partition 0 are duplicates, up to the end that the log has now.
async fn duplicates(log: &MemoryLog, reader: &mut Reader, limits: ReadLimits) -> Vec<Offset> {
    let end = log.bounds().await.unwrap().end;
    let mut found = Vec::new();
    while !reader.position().covers(&end) {
        let read = reader.next(limits).await.unwrap();
        assert_eq!(read.records.len(), read.verdicts.len());
        assert_eq!(&read.position, reader.position());
        let judged = read.records.iter().zip(&read.verdicts);
        let duplicates = judged.filter(|(_, verdict)| **verdict == Verdict::Duplicate);
        found.extend(duplicates.map(|(record, _)| record.offset));
    }
    found
}

#[tokio::test]
async fn an_event_is_a_duplicate_where_its_writer_had_not_looked() {
    let log = MemoryLog::new(1);
    for (id, checked) in [(1, 0), (1, 0), (1, 1), (1, 2), (1, 4), (2, 0), (1, 99), (2, 5)] {
        log.push(0, event(id, checked));
    }
    let expected = [1, 2, 3, 7];
    for limits in [ONE, MANY] {
        assert_eq!(duplicates(&log, &mut open(&log, &[0]).await, limits).await, expected);
    }
    // Wherever it starts.
    for from in 0..8 {
        let found = duplicates(&log, &mut open(&log, &[from]).await, MANY).await;
        let expected: Vec<_> = expected.into_iter().filter(|offset| *offset >= from).collect();
        assert_eq!(found, expected, "from {from}");
    }
}

#[tokio::test]
async fn what_is_no_event_and_what_is_elsewhere_decides_nothing() {
    let log = MemoryLog::new(2);
    log.push(1, event(1, 0));
    log.push(0, "foreign");
    log.push(0, event(1, 0));
    log.push(0, "foreign");
    let mut reader = open(&log, &[0, 0]).await;
    let read = reader.next(MANY).await.unwrap();
    let is = |verdict: &Verdict| (verdict.is_event(), *verdict == Verdict::Foreign);
    let verdicts: Vec<_> = read.verdicts.iter().map(is).collect();
    assert_eq!(verdicts, [(false, true), (true, false), (false, true), (true, false)]);
    assert_eq!(read.events().count(), 2);
}

#[tokio::test]
async fn a_reach_back_is_as_far_as_a_duplicate_can_be() {
    let log = MemoryLog::new(1);
    new_event(&log, 1_000_000);
    new_event(&log, 1_000_001);
    for id in 2..REACH {
        new_event(&log, id);
    }
    log.push(0, event(1_000_000, 0));
    log.push(0, event(999_999, 0));
    // One too far.
    log.push(0, event(1_000_001, 0));
    for from in [1, REACH, REACH + 1] {
        let mut reader = open(&log, &[from]).await;
        let expected = if from <= REACH { vec![REACH] } else { Vec::new() };
        assert_eq!(duplicates(&log, &mut reader, MANY).await, expected, "from {from}");
    }
    let mut reader = open(&log, &[0]).await;
    let limits = ReadLimits { records: 100, ..MANY };
    assert_eq!(duplicates(&log, &mut reader, limits).await, [REACH], "in small reads");
}

#[tokio::test]
async fn ids_that_were_forgotten_are_fetched_when_they_are_needed() {
    let log = MemoryLog::new(1);
    for id in 0..200 {
        new_event(&log, id);
    }
    let mut reader = open(&log, &[0]).await;
    assert!(duplicates(&log, &mut reader, ONE).await.is_empty());
    log.push(0, event(3, 0));
    log.push(0, event(4, 5));
    log.push(0, event(3, 201));
    assert_eq!(duplicates(&log, &mut reader, ONE).await, [200]);
    reader.seek(log.id(), vec![200].into());
    assert_eq!(duplicates(&log, &mut reader, ONE).await, [200], "after it went elsewhere");
}

#[tokio::test]
async fn what_retention_has_removed_decides_nothing() {
    let log = MemoryLog::new(1);
    for id in [1, 2, 3, 1, 2] {
        log.push(0, event(id, 0));
    }
    log.trim(0, 1);
    assert_eq!(duplicates(&log, &mut open(&log, &[0]).await, MANY).await, [4]);
    assert_eq!(duplicates(&log, &mut open(&log, &[3]).await, MANY).await, [4]);
    log.trim(0, 4);
    assert_eq!(duplicates(&log, &mut open(&log, &[4]).await, MANY).await, [0; 0]);
}

/// A log of which some readers cannot be opened.
struct Flaky {
    log: Arc<MemoryLog>,
    fails: Mutex<Option<ReadError>>,
}

impl EventLog for Flaky {
    fn key_partitions(&self) -> u32 {
        self.log.key_partitions()
    }

    fn submit(&self, record: NewRecord, ack: Ack) {
        self.log.submit(record, ack);
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, ReadError>> {
        self.log.bounds()
    }

    fn open_reader(
        &self,
        log: LogId,
        from: Position,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, ReadError>> {
        async move {
            // So that a future can be dropped here.
            tokio::task::yield_now().await;
            let fails = self.fails.lock().unwrap().clone();
            match fails {
                Some(error) => Err(error),
                None => self.log.open_reader(log, from).await,
            }
        }
        .boxed()
    }

    fn position_at(&self, log: LogId, at: Timestamp) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.log.position_at(log, at)
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.log.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.log.close()
    }
}

#[tokio::test]
async fn an_error_or_a_dropped_future_loses_nothing() {
    let log = MemoryLog::new(1);
    for id in [1, 2, 1] {
        log.push(0, event(id, 0));
    }
    let flaky = Arc::new(Flaky { log: Arc::clone(&log), fails: Mutex::new(None) });
    let opened = Reader::open(Arc::clone(&flaky) as _, log.id(), vec![2].into());
    let mut reader = opened.await.unwrap();
    let unavailable = ReadError::Unavailable("for a while".into());
    *flaky.fails.lock().unwrap() = Some(unavailable.clone());
    assert_eq!(reader.next(MANY).await.unwrap_err(), unavailable);
    assert!(reader.next(MANY).now_or_never().is_none());
    assert_eq!(reader.position().get(0), 2);
    *flaky.fails.lock().unwrap() = None;
    assert_eq!(duplicates(&log, &mut reader, MANY).await, [2]);

    // What cannot be read for good does not hold up what can.
    reader.seek(log.id(), vec![2].into());
    *flaky.fails.lock().unwrap() = Some(ReadError::Damaged("for good".into()));
    assert_eq!(duplicates(&log, &mut reader, MANY).await, [0; 0]);
}

/// A record of a random log: an event with this id, checked so many offsets back; or foreign.
type Random = Option<(u64, u64)>;

fn random_log() -> impl Strategy<Value = Vec<(u32, Random)>> {
    let back = prop_oneof![3 => Just(0u64), 3 => 1..4u64, 2 => 0..200u64];
    let event = prop::option::weighted(0.95, (0..12u64, back));
    prop::collection::vec((0..2u32, event), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Wherever a reader starts and goes, and however much it reads at once.
    #[test]
    fn every_reader_tells_what_the_rule_says(
        first in random_log(),
        second in random_log(),
        from in (0..80u64, 0..80u64),
        again in prop::option::of((0..80u64, 0..80u64)),
        records in 1..9usize,
        trim in prop::option::of((0..2u32, 0..60u64)),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let log = MemoryLog::new(2);
            // By partition: the id, and from where on it is looked for.
            let mut all: [Vec<Option<(u64, Offset)>>; 2] = Default::default();
            let mut write = |records: &[(u32, Random)]| {
                for (partition, random) in records {
                    let of = &mut all[*partition as usize];
                    let at = of.len() as u64;
                    let kept = random.map(|(id, back)| (id, at.saturating_sub(back)));
                    log.push(*partition, kept.map_or(vec![0xff], |(id, c)| event(id, c)));
                    of.push(kept);
                }
                all.clone()
            };
            let mut trimmed = [0; 2];
            let limits = ReadLimits { records, ..MANY };
            let end = {
                write(&first);
                log.bounds().await.unwrap().end
            };
            let clip = |(a, b): (u64, u64), end: &Position| -> Position {
                vec![a.min(end.get(0)), b.min(end.get(1))].into()
            };
            let as_log = Arc::clone(&log) as Arc<dyn EventLog>;
            let mut reader = Reader::open(as_log, log.id(), clip(from, &end)).await.unwrap();
            for round in 0..3 {
                let all = if round == 1 { write(&second) } else { write(&[]) };
                let end = log.bounds().await.unwrap().end;
                if let (2, Some(again)) = (round, again) {
                    reader.seek(log.id(), clip(again, &end));
                }
                while !reader.position().covers(&end) {
                    let read = reader.next(limits).await.unwrap();
                    for (record, verdict) in read.records.iter().zip(&read.verdicts) {
                        let part = &all[record.partition as usize];
                        let start = trimmed[record.partition as usize];
                        let (may, must) = match part[record.offset as usize] {
                            None => {
                                assert_eq!(*verdict, Verdict::Foreign);
                                continue;
                            }
                            Some((id, from)) => {
                                let is_there = |from: Offset| {
                                    (from..record.offset)
                                        .any(|at| part[at as usize].is_some_and(|(of, _)| of == id))
                                };
                                (is_there(from), is_there(from.max(start)))
                            }
                        };
                        match verdict {
                            Verdict::Duplicate => assert!(may, "{record:?} is none"),
                            Verdict::Event(_) => assert!(!must, "{record:?} is a duplicate"),
                            Verdict::Foreign => panic!("{record:?} is an event"),
                        }
                    }
                }
                if let (0, Some((partition, to))) = (round, trim) {
                    let to = to.min(end.get(partition));
                    log.trim(partition, to);
                    trimmed[partition as usize] = to;
                }
            }
        });
    }
}
