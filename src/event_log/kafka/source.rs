//! One consumer with the partitions that it was assigned, and the little that was taken from
//! it and not yet handed out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::Notify;

use super::context::Context;
use super::ffi;
use super::settings::{Options, Reading};
use super::topic::kafka_partition;
use crate::clock::Timestamp;
use crate::event_log::{
    Bounds, Offset, Partition, Position, ReadBatch, ReadLimits, Record, Trimmed,
};

/// Records that are taken from librdkafka ahead of being handed out, and their bytes, so
/// that partitions take turns.
const MAX_BUFFERED_RECORDS: usize = 1_000;
/// See [`MAX_BUFFERED_RECORDS`]; a single larger record is let through.
const MAX_BUFFERED_BYTES: usize = 256 * 1024;

/// Why nothing comes any more, and another source is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The place that was to be read is not there, or what is there is not what was assigned.
    Lost,
    /// The brokers do not allow it.
    Denied,
}

/// One partition's share.
#[derive(Default)]
struct Share {
    records: VecDeque<Record>,
    /// Everything that the log had was taken, up to this offset, as far as the broker knew
    /// that was asked.
    at_end: Option<Offset>,
    /// The end of the partition when it was assigned.
    known_end: Offset,
}

/// See the module.
///
/// It is assigned once, as it is made: who wants to read elsewhere makes another one. When a
/// consumer is assigned anew, and again or closed before the partitions have stopped, librdkafka
/// stops them twice, and then ends the process (`rd_kafka_assignment_partition_stopped`:
/// assertion `rktp->rktp_started`). Source:
/// <https://github.com/confluentinc/librdkafka/issues/5573>.
pub(super) struct Source {
    /// Always there, except while it is dropped.
    consumer: Option<BaseConsumer<Context>>,
    /// Notified when librdkafka's queue is no longer empty.
    ready: Arc<Notify>,
    topic: String,
    shares: Vec<Share>,
    /// Everything before it was handed out.
    position: Position,
    /// What was missing where it begins; handed out before anything else.
    trimmed: Vec<Trimmed>,
    /// The position was moved over offsets that hold no record.
    moved: bool,
    /// librdkafka says so once, and is silent from then on.
    trouble: Option<Trouble>,
    /// It was looked, after the first records were taken, whether it is still the same log.
    proven: bool,
    /// It was asked for the end since it was last reached.
    rechecked: bool,
    buffered_records: usize,
    buffered_bytes: usize,
    turn: usize,
}

impl Source {
    /// Reads from `from` on, in every partition that `bounds` names. What was removed by
    /// retention before it could be read is handed out first. Starts threads and reads
    /// certificates, and so may block.
    pub fn open(
        options: &Options,
        context: Context,
        reading: Reading,
        from: &Position,
        bounds: &Bounds,
    ) -> KafkaResult<Self> {
        let mut assignment = TopicPartitionList::with_capacity(bounds.end.len());
        let mut position = Position::zero(bounds.end.len());
        let mut trimmed = Vec::new();
        for (partition, start) in bounds.start.iter() {
            let wanted = from.get(partition);
            if wanted < start {
                trimmed.push(Trimmed { partition, from: wanted, to: start });
            }
            let next = wanted.max(start);
            position.set(partition, next);
            let offset = KafkaOffset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
            assignment.add_partition_offset(&options.topic, kafka_partition(partition), offset)?;
        }
        let mut consumer: BaseConsumer<Context> =
            options.consumer(reading).create_with_context(context)?;
        let ready = Arc::new(Notify::new());
        let signal = Arc::clone(&ready);
        consumer.set_nonempty_callback(move || signal.notify_one());
        consumer.assign(&assignment)?;
        let ends = bounds.end.iter();
        Ok(Self {
            consumer: Some(consumer),
            ready,
            topic: options.topic.clone(),
            shares: ends.map(|(_, known_end)| Share { known_end, ..Share::default() }).collect(),
            position,
            trimmed,
            moved: false,
            trouble: None,
            proven: false,
            rechecked: false,
            buffered_records: 0,
            buffered_bytes: 0,
            turn: 0,
        })
    }

    /// Why another source is needed, if it is.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// How many partitions are assigned.
    pub fn partitions(&self) -> usize {
        self.shares.len()
    }

    /// Whether there was nothing more to take when it was last looked, in any partition.
    pub fn is_at_end(&self) -> bool {
        self.shares.iter().all(|share| share.at_end.is_some() && share.records.is_empty())
    }

    /// Whether some partition is at its end although it is known to go on to `end`.
    pub fn is_stuck_before(&self, end: &Position) -> bool {
        self.is_at_end() && !self.position.covers(end)
    }

    /// Whether the end was asked for since it was last reached.
    pub fn is_rechecked(&self) -> bool {
        self.rechecked
    }

    /// Notes that the end is being asked for.
    pub fn set_rechecked(&mut self) {
        self.rechecked = true;
    }

    /// Whether what was taken may be of another log: a new consumer takes whatever topic has
    /// the name when it comes to look, and waits for one where there is none.
    pub fn is_unproven(&self) -> bool {
        !self.proven && self.buffered_records > 0
    }

    /// Notes that it is the same log.
    pub fn set_proven(&mut self) {
        self.proven = true;
    }

    /// Waits until there is something to take.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Takes what librdkafka has, as far as there is room. Never blocks.
    pub fn take(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            self.take_from(&consumer);
            self.consumer = Some(consumer);
        }
    }

    fn take_from(&mut self, consumer: &BaseConsumer<Context>) {
        while self.buffered_records < MAX_BUFFERED_RECORDS
            && self.buffered_bytes < MAX_BUFFERED_BYTES
        {
            let mut polled = None;
            let hears = consumer.context().hears(|| {
                polled = consumer.poll(Duration::ZERO);
                polled.is_some()
            });
            match polled {
                None if hears => {}
                None => break,
                Some(Ok(message)) => {
                    let Some(record) = record(&message) else { continue };
                    let Some(share) = self.shares.get_mut(record.partition as usize) else {
                        continue;
                    };
                    share.at_end = None;
                    self.rechecked = false;
                    self.buffered_records += 1;
                    self.buffered_bytes += bytes(&record);
                    share.records.push_back(record);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.rechecked = false;
                    let share = usize::try_from(partition).ok();
                    if let Some(share) = share.and_then(|index| self.shares.get_mut(index)) {
                        // A replica that has just taken over may know of less than is known.
                        let end = ffi::known_end(consumer.client(), &self.topic, partition);
                        share.at_end = Some(end);
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "while reading the topic");
                    // Trouble with brokers passes: librdkafka goes on by itself.
                    self.trouble = trouble(&error).or(self.trouble);
                }
            }
        }
    }

    /// Hands out what was taken, partitions in turn; none when there is nothing.
    pub fn hand_out(&mut self, limits: ReadLimits) -> Option<ReadBatch> {
        let mut records = Vec::new();
        let mut size = 0;
        let mut empty = 0;
        while empty < self.shares.len() {
            let partition = self.turn % self.shares.len();
            let share = &mut self.shares[partition];
            let Some(next) = share.records.front() else {
                self.turn += 1;
                empty += 1;
                continue;
            };
            let full = records.len() >= limits.records || size + bytes(next) > limits.bytes;
            if full && !records.is_empty() {
                break;
            }
            let Some(record) = share.records.pop_front() else { break };
            size += bytes(&record);
            self.buffered_records -= 1;
            self.buffered_bytes -= bytes(&record);
            self.position.set(record.partition, record.offset + 1);
            records.push(record);
            self.turn += 1;
            empty = 0;
        }
        self.pass_what_holds_no_record();
        let moved = std::mem::take(&mut self.moved);
        let trimmed = std::mem::take(&mut self.trimmed);
        (moved || !records.is_empty() || !trimmed.is_empty()).then(|| ReadBatch {
            records,
            trimmed,
            position: self.position.clone(),
        })
    }

    /// A partition that is read to its end and is short of the end that it had when it was
    /// assigned holds no record between the two (markers of transactions, or what compaction
    /// has removed).
    fn pass_what_holds_no_record(&mut self) {
        for (partition, share) in (0..).zip(&self.shares) {
            if share.at_end.is_some_and(|end| end >= share.known_end)
                && share.records.is_empty()
                && self.position.get(partition) < share.known_end
            {
                self.position.set(partition, share.known_end);
                self.moved = true;
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // To let go of a consumer can take as long as a broker takes to answer.
        let consumer = self.consumer.take();
        let _ = thread::Builder::new().name("kafka-drop".to_owned()).spawn(move || drop(consumer));
    }
}

/// What an error means for a reader, if anything.
fn trouble(error: &KafkaError) -> Option<Trouble> {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code()? {
        Code::TopicAuthorizationFailed => Some(Trouble::Denied),
        Code::AutoOffsetReset
        | Code::OffsetOutOfRange
        | Code::UnknownPartition
        | Code::UnknownTopic
        | Code::UnknownTopicId
        | Code::UnknownTopicOrPartition => Some(Trouble::Lost),
        _ => None,
    }
}

fn bytes(record: &Record) -> usize {
    record.key.as_ref().map_or(0, Bytes::len) + record.value.len()
}

fn record(message: &BorrowedMessage<'_>) -> Option<Record> {
    Some(Record {
        partition: Partition::try_from(message.partition()).ok()?,
        offset: Offset::try_from(message.offset()).ok()?,
        append_time: Timestamp::from_millis(message.timestamp().to_millis().unwrap_or_default()),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice).unwrap_or_default(),
    })
}
