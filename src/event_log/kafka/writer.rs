//! The producer: takes records at once, and completes them when the brokers have answered.
//!
//! One thread polls librdkafka and completes acknowledgements as delivery reports come. It
//! also notices when none come ([`STALL`]), and builds a new producer when librdkafka says
//! that the old one is of no more use.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

use super::board::{Alarm, Board};
use super::context::Context;
use super::ffi;
use super::settings::Options;
use super::tally::{NoPlace, Silence, Tally};
use super::topic::{code_text, kafka_partition};
use super::{CLOSED, OpenError};
use crate::clock::{Clock, Timestamp};
use crate::event_log::{
    Ack, AppendError, Appended, Attributes, LogId, MAX_RECORD_BYTES, NewRecord,
};

/// After so long without an acknowledgement, although records wait for one, the log takes no
/// more: callers are told at once rather than at their deadlines. The crash of a broker takes
/// less, which holds up its partitions until its session is over: nine seconds, unless
/// `broker.session.timeout.ms` says otherwise.
const STALL: Duration = Duration::from_secs(12);

/// For so long an acknowledgement is a sign of life.
const SIGN_OF_LIFE_MILLIS: u64 = 3_000;

/// How long the thread waits for librdkafka before it looks around.
const POLL: Duration = Duration::from_millis(100);

/// How long it waits before it tries again to build a producer.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// How long a producer that is of no more use may take to hand back what it holds.
const FAREWELL: Duration = Duration::from_secs(2);

/// `ce_source`: what the events are from. Source: CloudEvents 1.0, section "source".
const SOURCE: &str = "herald";

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
        let partition = u32::try_from(message.partition());
        ack.complete(match result {
            Ok(message) => {
                self.tally.acknowledge();
                match (partition, u64::try_from(message.offset())) {
                    (Ok(partition), Ok(offset)) => Ok(Appended {
                        log: self.log,
                        partition,
                        offset,
                        append_time: message
                            .timestamp()
                            .to_millis()
                            .map_or_else(|| Clock::System.now(), Timestamp::from_millis),
                    }),
                    // A repeat so late that the broker no longer knows where the first was.
                    _ => Err(AppendError::OutcomeUnknown(
                        "written, but the broker did not say where".into(),
                    )),
                }
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code();
                let why = code.map_or_else(|| error.to_string(), code_text);
                // What was purged, or failed in any other way, may have been written by an
                // earlier try, whatever its status: a refusal of the whole kind has not.
                let refused = matches!(
                    code,
                    Some(
                        RDKafkaErrorCode::MessageSizeTooLarge
                            | RDKafkaErrorCode::TopicAuthorizationFailed
                            | RDKafkaErrorCode::ClusterAuthorizationFailed
                            | RDKafkaErrorCode::PolicyViolation
                            | RDKafkaErrorCode::InvalidRecord
                    )
                );
                if refused && ffi::surely_not_written(message) {
                    Err(AppendError::Unavailable(why.into()))
                } else {
                    Err(AppendError::OutcomeUnknown(why.into()))
                }
            }
        });
        if let Ok(partition) = partition {
            self.tally.give_back(partition);
        }
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
    /// Held while another session takes over.
    attaching: Mutex<()>,
    began: Instant,
    /// Milliseconds since then at which acknowledgements were last seen; 0 before any.
    last_acknowledged: AtomicU64,
    stopping: AtomicBool,
}

impl Writer {
    /// A writer without a topic yet.
    pub fn start(options: Options, context: Context, board: Arc<Board>) -> Result<Self, OpenError> {
        let tally = Arc::new(Tally::new(options.key_partitions()));
        let shared = Arc::new(Shared {
            options,
            context,
            board,
            tally,
            began: Instant::now(),
            last_acknowledged: AtomicU64::new(0),
            session: ArcSwapOption::empty(),
            attaching: Mutex::new(()),
            stopping: AtomicBool::new(false),
        });
        let polled = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("kafka-writer".to_owned())
            .spawn(move || {
                let _alarm = Alarm(Arc::clone(&polled.board));
                polled.run();
            })
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
        let at = self.shared.last_acknowledged.load(Ordering::Relaxed);
        at > 0 && self.shared.millis().saturating_sub(at) < SIGN_OF_LIFE_MILLIS
    }

    /// The topic can be used: what was wrong before need not be any more, and the next
    /// record will show.
    pub fn look_is_well(&self) {
        if self.shared.tally.pending() == 0 {
            self.shared.board.set_producing(Ok(()));
        }
    }

    /// Takes a record. Never blocks.
    pub fn submit(&self, record: NewRecord, ack: Ack) {
        let Shared { options, board, tally, session, .. } = &*self.shared;
        let (partition, size) = (record.partition, record_bytes(&record));
        if size > MAX_RECORD_BYTES {
            return ack.complete(Err(AppendError::TooLarge(size)));
        }
        if let Some(why) = board.refusal() {
            return ack.complete(Err(AppendError::Unavailable(why)));
        }
        match tally.take(partition) {
            Ok(()) => {}
            Err(NoPlace::Full) => return ack.complete(Err(AppendError::Overloaded)),
            Err(NoPlace::Closed) => {
                return ack.complete(Err(AppendError::Unavailable(CLOSED.into())));
            }
        }
        let sent = match &*session.load() {
            Some(session) => send(session, &options.topic, &record, ack),
            None => Err((ack, AppendError::Unavailable("no topic yet".into()))),
        };
        if let Err((ack, error)) = sent {
            ack.complete(Err(error));
            tally.give_back(partition);
        }
    }

    /// Takes no more, and waits until everything that was taken is completed.
    pub async fn close(&self) {
        self.shared.board.close();
        self.shared.tally.close().await;
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
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                AppendError::TooLarge(record_bytes(record))
            }
            Some(code) => AppendError::Unavailable(code_text(code).into()),
            None => AppendError::Unavailable(error.to_string().into()),
        };
        (*base.delivery_opaque, error)
    })
}

fn record_bytes(record: &NewRecord) -> usize {
    record.key.as_ref().map_or(0, |key| key.len()) + record.value.len()
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
        let mut silence = Silence::new(Instant::now());
        let mut stalled = false;
        while !self.stopping.load(Ordering::Relaxed) {
            let Some(session) = self.session.load_full() else {
                thread::park_timeout(POLL);
                continue;
            };
            session.producer.poll(POLL);
            if let Some((_, why)) = session.producer.client().fatal_error() {
                tracing::error!(why, "the producer failed for good; building a new one");
                self.rebuild(session);
            }
            let (silence, broken) = silence.look(&self.tally, Instant::now());
            if broken {
                self.last_acknowledged.store(self.millis(), Ordering::Relaxed);
            }
            self.look_for_stall(silence, broken, &mut stalled);
        }
        self.retire(None);
    }

    /// With a producer that is of no more use, a new one takes over.
    fn rebuild(&self, failed: Arc<Session>) {
        self.board.set_producing(Err("the producer failed, and is built anew".into()));
        match self.replace(failed) {
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
        let _attaching = self.attaching.lock().unwrap_or_else(PoisonError::into_inner);
        self.begin(log)
    }

    /// As `attach`, for the log of a session, unless another one has taken over already.
    fn replace(&self, failed: Arc<Session>) -> Result<(), OpenError> {
        let _attaching = self.attaching.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current =
            self.session.load().as_ref().is_some_and(|held| Arc::ptr_eq(held, &failed));
        let log = failed.log;
        drop(failed);
        if is_current { self.begin(log) } else { Ok(()) }
    }

    fn begin(&self, log: LogId) -> Result<(), OpenError> {
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
    fn look_for_stall(&self, silence: Duration, broken: bool, stalled: &mut bool) {
        if silence >= STALL {
            *stalled = true;
            let cause = self.context.cause().map_or(String::new(), |cause| format!(": {cause}"));
            let seconds = STALL.as_secs();
            self.board
                .set_producing(Err(format!("no acknowledgement for {seconds} s{cause}").into()));
        } else if *stalled && broken {
            *stalled = false;
            self.board.set_producing(Ok(()));
        }
    }

    /// Since the writer began; at least 1, as 0 stands for never.
    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}
