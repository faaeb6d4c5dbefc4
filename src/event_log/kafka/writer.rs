//! The producer: takes records at once, and completes them when the brokers have answered.
//!
//! One thread polls librdkafka and completes acknowledgements as delivery reports come. It
//! also notices when none come ([`STALL`]), and builds a new producer when librdkafka says
//! that the old one is of no more use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use rdkafka::statistics::Statistics;
use tokio::sync::Notify;

use super::board::Board;
use super::context::Context;
use super::ffi;
use super::settings::{MAX_QUEUED_RECORDS, MIN_QUEUED_PER_PARTITION, Options};
use super::topic::{code_text, kafka_partition};
use super::{CLOSED, OpenError};
use crate::clock::{Clock, Timestamp};
use crate::event_log::{
    Ack, AppendError, Appended, Attributes, LogId, MAX_RECORD_BYTES, NewRecord, Partition,
};

/// After so long without an acknowledgement, although records wait for one, the log takes no
/// more: callers are told at once rather than at their deadlines. The crash of a broker takes
/// less, which holds up its partitions until its session is over: nine seconds, unless
/// `broker.session.timeout.ms` says otherwise.
const STALL: Duration = Duration::from_secs(12);

/// For so long an acknowledgement is a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// How long the thread waits for librdkafka before it looks around.
const POLL: Duration = Duration::from_millis(100);

/// How long it waits before it tries again to build a producer.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// How long a producer that is of no more use may take to hand back what it holds.
const FAREWELL: Duration = Duration::from_secs(2);

/// `ce_source`: what the events are from. Source: CloudEvents 1.0, section "source".
const SOURCE: &str = "herald";

/// Counts what is under way.
struct Tally {
    began: Instant,
    /// Records handed to a producer and not completed.
    pending: AtomicUsize,
    /// Milliseconds since `began` at which something was last acknowledged.
    acknowledged: AtomicU64,
    /// The same for when the first of those pending was handed over.
    waiting_since: AtomicU64,
    drained: Notify,
    /// Of those pending, how many are for each partition, and how many may be.
    queued: Box<[AtomicUsize]>,
    most_queued: usize,
}

impl Tally {
    fn begin(&self) {
        // Before it counts, or it would seem to have waited since the last one did.
        if self.pending.load(Ordering::SeqCst) == 0 {
            self.waiting_since.store(self.now(), Ordering::SeqCst);
        }
        self.pending.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes one of a partition's places; false when there is none.
    fn take_place(&self, partition: Partition) -> bool {
        let queued = &self.queued[partition as usize];
        let has_place = queued.fetch_add(1, Ordering::Relaxed) < self.most_queued;
        if !has_place {
            queued.fetch_sub(1, Ordering::Relaxed);
        }
        has_place
    }

    fn give_back_place(&self, partition: Partition) {
        self.queued[partition as usize].fetch_sub(1, Ordering::Relaxed);
    }

    fn end(&self) {
        if self.pending.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.drained.notify_waiters();
        }
    }

    fn acknowledge(&self) {
        self.acknowledged.store(self.now(), Ordering::Relaxed);
    }

    /// For how long records have been waiting, and nothing was acknowledged.
    fn silence(&self) -> Duration {
        if self.pending.load(Ordering::SeqCst) == 0 {
            return Duration::ZERO;
        }
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        let since = acknowledged.max(self.waiting_since.load(Ordering::Relaxed));
        Duration::from_millis(self.now().saturating_sub(since))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A producer for one log.
struct Session {
    producer: BaseProducer<Reports>,
    log: LogId,
}

/// Gets the delivery reports of one producer.
struct Reports {
    context: Context,
    tally: Arc<Tally>,
    log: LogId,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.context.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ack>;

    fn delivery(&self, result: &DeliveryResult<'_>, ack: Box<Ack>) {
        let (Ok(message) | Err((_, message))) = result;
        if let Ok(partition) = u32::try_from(message.partition()) {
            self.tally.give_back_place(partition);
        }
        ack.complete(match result {
            Ok(message) => {
                self.tally.acknowledge();
                let place = u32::try_from(message.partition()).ok();
                match place.zip(u64::try_from(message.offset()).ok()) {
                    Some((partition, offset)) => Ok(Appended {
                        log: self.log,
                        partition,
                        offset,
                        append_time: message
                            .timestamp()
                            .to_millis()
                            .map_or_else(|| Clock::System.now(), Timestamp::from_millis),
                    }),
                    // A repeat so late that the broker no longer knows where the first was.
                    None => Err(AppendError::OutcomeUnknown(
                        "written, but the broker did not say where".into(),
                    )),
                }
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code();
                let why = code.map_or_else(|| error.to_string(), code_text);
                match code {
                    Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                        Err(AppendError::TooLarge(message.key_len() + message.payload_len()))
                    }
                    _ if ffi::surely_not_written(message) => {
                        Err(AppendError::Unavailable(why.into()))
                    }
                    _ => Err(AppendError::OutcomeUnknown(why.into())),
                }
            }
        });
        self.tally.end();
    }
}

/// Writes to the topic. Dropping it ends its thread; what is still under way is answered as
/// unknown.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    options: Options,
    context: Context,
    board: Arc<Board>,
    tally: Arc<Tally>,
    /// None until the topic was found.
    session: ArcSwapOption<Session>,
    closed: AtomicBool,
    stopping: AtomicBool,
}

impl Writer {
    /// A writer without a topic yet.
    pub fn start(options: Options, context: Context, board: Arc<Board>) -> Result<Self, OpenError> {
        let partitions = options.key_partitions();
        let tally = Tally {
            began: Instant::now(),
            pending: AtomicUsize::new(0),
            acknowledged: AtomicU64::new(0),
            waiting_since: AtomicU64::new(0),
            drained: Notify::new(),
            queued: (0..partitions).map(|_| AtomicUsize::new(0)).collect(),
            most_queued: MIN_QUEUED_PER_PARTITION
                .max(MAX_QUEUED_RECORDS / partitions.max(1) as usize),
        };
        let shared = Arc::new(Shared {
            options,
            context,
            board,
            tally: Arc::new(tally),
            session: ArcSwapOption::empty(),
            closed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let polled = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("kafka-writer".to_owned())
            .spawn(move || polled.run())
            .map_err(OpenError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Writes to this log from now on, with a new producer.
    pub fn attach(&self, log: LogId) -> Result<(), OpenError> {
        self.shared.attach(log)
    }

    /// Has librdkafka give up the producer, as a fatal error would.
    #[cfg(test)]
    pub fn break_producer(&self) {
        let session = self.shared.session.load_full().expect("there is a topic");
        ffi::break_producer(session.producer.client());
    }

    /// Whether something was acknowledged a moment ago.
    pub fn is_getting_through(&self) -> bool {
        let tally = &self.shared.tally;
        let at = tally.acknowledged.load(Ordering::Relaxed);
        at > 0 && Duration::from_millis(tally.now().saturating_sub(at)) < SIGN_OF_LIFE
    }

    /// The topic can be used: what was wrong before need not be any more, and the next
    /// record will show.
    pub fn look_is_well(&self) {
        if self.shared.tally.pending.load(Ordering::SeqCst) == 0 {
            self.shared.board.set_producing(Ok(()));
        }
    }

    /// Takes a record. Never blocks.
    pub fn submit(&self, record: NewRecord, ack: Ack) {
        let Shared { options, board, tally, session, closed, .. } = &*self.shared;
        let size = record.key.as_ref().map_or(0, |key| key.len()) + record.value.len();
        if size > MAX_RECORD_BYTES {
            return ack.complete(Err(AppendError::TooLarge(size)));
        }
        // Counted before the look at `closed`: whoever closes waits for it, or it sees that
        // it comes too late.
        tally.begin();
        let refused = if closed.load(Ordering::SeqCst) {
            Some(AppendError::Unavailable(CLOSED.into()))
        } else {
            board.refusal().map(AppendError::Unavailable)
        };
        let session = session.load();
        let outcome = match (refused, &*session) {
            (Some(error), _) => Err((ack, error)),
            (None, None) => Err((ack, AppendError::Unavailable("no topic yet".into()))),
            (None, Some(_)) if !tally.take_place(record.partition) => {
                Err((ack, AppendError::Overloaded))
            }
            (None, Some(session)) => {
                let sent = send(session, &options.topic, &record, ack);
                if sent.is_err() {
                    tally.give_back_place(record.partition);
                }
                sent
            }
        };
        if let Err((ack, error)) = outcome {
            ack.complete(Err(error));
            tally.end();
        }
    }

    /// Takes no more, and waits until everything that was taken is completed.
    pub async fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.board.close();
        loop {
            let drained = self.shared.tally.drained.notified();
            if self.shared.tally.pending.load(Ordering::SeqCst) == 0 {
                return;
            }
            drained.await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the producer had panicked");
        }
    }
}

/// Hands a record to a producer.
fn send(
    session: &Session,
    topic: &str,
    record: &NewRecord,
    ack: Ack,
) -> Result<(), (Ack, AppendError)> {
    let mut base: BaseRecord<'_, [u8], [u8], Box<Ack>> =
        BaseRecord::with_opaque_to(topic, Box::new(ack))
            .partition(kafka_partition(record.partition))
            .payload(record.value.as_ref())
            .headers(headers(&record.attributes));
    if let Some(key) = &record.key {
        base = base.key(key);
    }
    session.producer.send(base).map_err(|(error, base)| {
        let error = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => AppendError::Overloaded,
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => AppendError::TooLarge(
                record.key.as_ref().map_or(0, |key| key.len()) + record.value.len(),
            ),
            Some(code) => AppendError::Unavailable(code_text(code).into()),
            None => AppendError::Unavailable(error.to_string().into()),
        };
        (*base.delivery_opaque, error)
    })
}

/// The attributes of a CloudEvents 1.0 record in binary mode. Source: Kafka Protocol Binding
/// for CloudEvents 1.0.2, section 3.2.
fn headers(attributes: &Attributes) -> OwnedHeaders {
    let Attributes { id, event_type, time, traceparent } = attributes;
    let mut buffer = uuid::Uuid::encode_buffer();
    let id: &str = id.hyphenated().encode_lower(&mut buffer);
    let time = time.to_string();
    let headers = OwnedHeaders::new_with_capacity(7)
        .insert(Header { key: "ce_specversion", value: Some("1.0") })
        .insert(Header { key: "ce_id", value: Some(id) })
        .insert(Header { key: "ce_source", value: Some(SOURCE) })
        .insert(Header { key: "ce_type", value: Some(*event_type) })
        .insert(Header { key: "ce_time", value: Some(&time) })
        .insert(Header { key: "content-type", value: Some("application/protobuf") });
    match traceparent {
        Some(trace) => headers.insert(Header { key: "traceparent", value: Some(trace) }),
        None => headers,
    }
}

impl Shared {
    fn run(&self) {
        // When it was seen that nothing gets through.
        let mut stalled = None;
        while !self.stopping.load(Ordering::Relaxed) {
            let Some(session) = self.session.load_full() else {
                thread::park_timeout(POLL);
                continue;
            };
            session.producer.poll(POLL);
            if let Some((_, why)) = session.producer.client().fatal_error() {
                tracing::error!(why, "the producer failed for good; building a new one");
                let log = session.log;
                drop(session);
                self.rebuild(log);
            }
            self.look_for_stall(&mut stalled);
        }
        self.retire(None);
    }

    /// With a producer that is of no more use, a new one takes over.
    fn rebuild(&self, log: LogId) {
        self.board.set_producing(Err("the producer failed, and is built anew".into()));
        match self.attach(log) {
            Ok(()) => {
                tracing::info!("built a new producer");
                self.board.set_producing(Ok(()));
            }
            Err(error) => {
                tracing::error!(%error, "no new producer can be built; trying again");
                thread::park_timeout(REBUILD_PAUSE);
            }
        }
    }

    fn attach(&self, log: LogId) -> Result<(), OpenError> {
        let reports =
            Reports { context: self.context.clone(), tally: Arc::clone(&self.tally), log };
        let producer = self.options.producer().create_with_context(reports)?;
        self.retire(Some(Arc::new(Session { producer, log })));
        Ok(())
    }

    /// Puts another session in the place of the present one, and ends that.
    fn retire(&self, next: Option<Arc<Session>>) {
        let Some(old) = self.session.swap(next) else { return };
        // Who was just handing over a record lets go of it in microseconds; the last one to
        // do so must not be the one that waits for what follows.
        while Arc::strong_count(&old) > 1 {
            thread::park_timeout(Duration::from_millis(1));
        }
        old.producer.purge(PurgeConfig::default().queue().inflight());
        if let Err(error) = old.producer.flush(FAREWELL) {
            tracing::warn!(%error, "the producer did not hand back everything");
        }
    }

    /// Takes no more when nothing gets through, until something does or, with nothing left
    /// that could, until the monitor finds the topic well.
    fn look_for_stall(&self, stalled: &mut Option<u64>) {
        if self.tally.silence() >= STALL {
            stalled.get_or_insert(self.tally.now());
            let cause = self.context.cause().map_or(String::new(), |cause| format!(": {cause}"));
            let seconds = STALL.as_secs();
            self.board
                .set_producing(Err(format!("no acknowledgement for {seconds} s{cause}").into()));
        } else if stalled.is_some_and(|at| self.tally.acknowledged.load(Ordering::Relaxed) >= at) {
            *stalled = None;
            self.board.set_producing(Ok(()));
        }
    }
}
