//! A log in memory, for the tests of the rooms above: it does what it is told to,
//! also what a real one does only on a bad day.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    Ack, AppendError, Appended, Bounds, EventLog, Health, LogId, LogReader, NewRecord, Offset,
    Position, ReadBatch, ReadError, ReadLimits, Record, Trimmed,
};
use crate::clock::Timestamp;

/// What becomes of submitted records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// They are appended and acknowledged.
    #[default]
    Well,
    /// They are appended, and the acknowledgement is kept back.
    Silent,
    /// They are refused.
    Failing(AppendError),
    /// They are neither appended nor answered, until they are let go.
    Holding,
    /// They are appended, and nobody knows.
    Vague,
}

/// See the module.
pub(crate) struct MemoryLog {
    shared: Arc<Mutex<Shared>>,
    end: watch::Sender<Position>,
    health: watch::Sender<Health>,
}

struct Shared {
    log: LogId,
    /// The start of each, and what is at each offset from there on, if anything is.
    partitions: Vec<(Offset, Vec<Option<Record>>)>,
    mood: Mood,
    kept_back: Vec<(Ack, Appended)>,
    held: Vec<(NewRecord, Ack)>,
}

impl MemoryLog {
    pub fn new(partitions: usize) -> Arc<Self> {
        let shared = Shared {
            log: LogId(Uuid::new_v4()),
            partitions: vec![(0, Vec::new()); partitions],
            mood: Mood::Well,
            kept_back: Vec::new(),
            held: Vec::new(),
        };
        Arc::new(Self {
            shared: Arc::new(Mutex::new(shared)),
            end: watch::Sender::new(Position::zero(partitions)),
            health: watch::Sender::new(Health::Writable),
        })
    }

    /// Which log it is now.
    pub fn id(&self) -> LogId {
        self.shared.lock().unwrap().log
    }

    pub fn set_mood(&self, mood: Mood) {
        self.shared.lock().unwrap().mood = mood;
    }

    /// Gives the acknowledgements that were kept back.
    pub fn acknowledge(&self) {
        let kept_back = std::mem::take(&mut self.shared.lock().unwrap().kept_back);
        kept_back.into_iter().for_each(|(ack, appended)| ack.complete(Ok(appended)));
    }

    /// Does with the records that were held as this mood has it.
    pub fn let_go(&self, mood: Mood) {
        self.set_mood(mood);
        let held = std::mem::take(&mut self.shared.lock().unwrap().held);
        held.into_iter().for_each(|(record, ack)| self.submit(record, ack));
    }

    /// All records of a partition.
    pub fn records(&self, partition: u32) -> Vec<Record> {
        let shared = self.shared.lock().unwrap();
        shared.partitions[partition as usize].1.iter().flatten().cloned().collect()
    }

    /// Adds a record as somebody else would.
    pub fn push(&self, partition: u32, value: impl Into<bytes::Bytes>) -> Appended {
        let mut shared = self.shared.lock().unwrap();
        let appended = shared.append(partition, None, value.into());
        self.publish(&shared);
        appended
    }

    /// Takes an offset for no record, as Kafka does for the end of a transaction.
    pub fn leave_out(&self, partition: u32) {
        let mut shared = self.shared.lock().unwrap();
        shared.partitions[partition as usize].1.push(None);
        self.publish(&shared);
    }

    /// Removes the records before an offset.
    pub fn trim(&self, partition: u32, to: Offset) {
        let mut shared = self.shared.lock().unwrap();
        let (start, records) = &mut shared.partitions[partition as usize];
        records.drain(..usize::try_from(to - *start).unwrap());
        *start = to;
    }

    /// Puts another log, empty and with as many partitions, in the place of this one.
    pub fn replace(&self) {
        let mut shared = self.shared.lock().unwrap();
        shared.log = LogId(Uuid::new_v4());
        shared.partitions.iter_mut().for_each(|partition| *partition = (0, Vec::new()));
        self.publish(&shared);
    }

    /// Adds a partition, and returns its number.
    pub fn add_partition(&self) -> u32 {
        let mut shared = self.shared.lock().unwrap();
        shared.partitions.push((0, Vec::new()));
        self.publish(&shared);
        u32::try_from(shared.partitions.len() - 1).unwrap()
    }

    /// All values of a partition.
    pub fn values(&self, partition: u32) -> Vec<bytes::Bytes> {
        let shared = self.shared.lock().unwrap();
        let records = shared.partitions[partition as usize].1.iter().flatten();
        records.map(|record| record.value.clone()).collect()
    }

    fn publish(&self, shared: &Shared) {
        self.end.send_replace(shared.end());
    }
}

impl Shared {
    fn append(
        &mut self,
        partition: u32,
        key: Option<bytes::Bytes>,
        value: bytes::Bytes,
    ) -> Appended {
        let (start, records) = &mut self.partitions[partition as usize];
        let offset = *start + records.len() as u64;
        let append_time = time_of(offset);
        records.push(Some(Record { partition, offset, append_time, key, value }));
        Appended { log: self.log, partition, offset, append_time }
    }

    fn is(&self, log: LogId) -> Result<(), ReadError> {
        if self.log == log { Ok(()) } else { Err(ReadError::Replaced) }
    }

    fn start(&self) -> Position {
        self.partitions.iter().map(|(start, _)| *start).collect()
    }

    fn end(&self) -> Position {
        self.partitions.iter().map(|(start, records)| *start + records.len() as u64).collect()
    }
}

/// The log's clock ticks with every offset.
fn time_of(offset: Offset) -> Timestamp {
    Timestamp::from_millis(i64::try_from(offset).unwrap() + 1)
}

impl EventLog for MemoryLog {
    fn key_partitions(&self) -> u32 {
        u32::try_from(self.shared.lock().unwrap().partitions.len()).unwrap()
    }

    fn submit(&self, record: NewRecord, ack: Ack) {
        let mut shared = self.shared.lock().unwrap();
        if let Mood::Failing(error) = &shared.mood {
            return ack.complete(Err(error.clone()));
        }
        if shared.mood == Mood::Holding {
            return shared.held.push((record, ack));
        }
        let appended = shared.append(record.partition, record.key, record.value);
        self.publish(&shared);
        match shared.mood {
            Mood::Silent => shared.kept_back.push((ack, appended)),
            Mood::Vague => ack.complete(Err(AppendError::OutcomeUnknown("a bad day".into()))),
            _ => ack.complete(Ok(appended)),
        }
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, ReadError>> {
        let shared = self.shared.lock().unwrap();
        let bounds = Bounds { log: shared.log, start: shared.start(), end: shared.end() };
        async move { Ok(bounds) }.boxed()
    }

    fn open_reader(
        &self,
        log: LogId,
        from: Position,
    ) -> BoxFuture<'_, Result<Box<dyn LogReader>, ReadError>> {
        let is_this = self.shared.lock().unwrap().is(log);
        let shared = Arc::clone(&self.shared);
        let reader = Reader { log, shared, end: self.end.subscribe(), position: from };
        async move { is_this.map(|()| Box::new(reader) as Box<dyn LogReader>) }.boxed()
    }

    fn position_at(
        &self,
        log: LogId,
        time: Timestamp,
    ) -> BoxFuture<'_, Result<Position, ReadError>> {
        let shared = self.shared.lock().unwrap();
        let position = shared.partitions.iter().map(|(start, records)| {
            let offsets = (*start..).zip(records);
            *start + offsets.take_while(|(offset, _)| time_of(*offset) < time).count() as u64
        });
        let position = shared.is(log).map(|()| position.collect());
        async move { position }.boxed()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

struct Reader {
    log: LogId,
    shared: Arc<Mutex<Shared>>,
    end: watch::Receiver<Position>,
    position: Position,
}

impl Reader {
    fn read(&mut self, limits: ReadLimits) -> ReadBatch {
        let shared = self.shared.lock().unwrap();
        let (mut records, mut trimmed) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for (partition, (start, kept)) in (0..).zip(&shared.partitions) {
            let from = self.position.get(partition);
            if from < *start {
                trimmed.push(Trimmed { partition, from, to: *start });
                self.position.set(partition, *start);
            }
            let skip = self.position.get(partition) - start;
            for (record, offset) in kept.iter().zip(*start..).skip(usize::try_from(skip).unwrap()) {
                let Some(record) = record else {
                    self.position.set(partition, offset + 1);
                    continue;
                };
                bytes += record.value.len();
                let full = records.len() >= limits.records || bytes > limits.bytes;
                if full && !records.is_empty() {
                    break;
                }
                self.position.set(partition, offset + 1);
                records.push(record.clone());
            }
        }
        ReadBatch { records, trimmed, position: self.position.clone() }
    }
}

impl LogReader for Reader {
    fn next(&mut self, limits: ReadLimits) -> BoxFuture<'_, Result<ReadBatch, ReadError>> {
        async move {
            loop {
                self.end.mark_unchanged();
                if self.shared.lock().unwrap().log != self.log {
                    return Err(ReadError::Replaced);
                }
                let before = self.position.clone();
                let batch = self.read(limits);
                if batch.position != before {
                    return Ok(batch);
                }
                if self.end.changed().await.is_err() {
                    return Err(ReadError::Unavailable("the log is gone".into()));
                }
            }
        }
        .boxed()
    }

    fn seek(&mut self, log: LogId, from: Position) {
        self.log = log;
        self.position = from;
    }

    fn position(&self) -> &Position {
        &self.position
    }
}
