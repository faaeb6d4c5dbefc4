//! What rdkafka's safe interface leaves out, in a few calls of librdkafka: the identity of
//! a topic, whether a record that failed may have been written, and whether all clients have
//! ended. The only file with `unsafe`; everything in it is called with pointers that rdkafka
//! holds for longer than the call, or with none.
#![allow(unsafe_code, reason = "librdkafka's C interface; reviewed, and kept to this file")]

use std::ffi::CString;
use std::ptr;
use std::time::{Duration, Instant};

use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use uuid::Uuid;

/// A topic as the cluster knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The topic id (KIP-516); none from brokers older than Kafka 2.8.
    pub id: Option<Uuid>,
    /// How many partitions it has.
    pub partitions: u32,
}

/// Frees what librdkafka has handed out.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from librdkafka together with this function, and is
            // freed here alone.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// Waits until the threads of all clients that were dropped have ended, for `timeout` at the
/// most. Says whether they have; others that are still in use count too.
pub(super) fn all_ended(timeout: Duration) -> bool {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: it takes no pointer, and only looks at counters that librdkafka guards.
    unsafe { c::rd_kafka_wait_destroyed(millis) == 0 }
}

/// How often it is asked whether to wait on.
const SLICE: Duration = Duration::from_millis(50);

/// Asks the cluster for a topic; none where there is no such topic. Blocks for `timeout` at
/// the most, and less when `gives_up`, which is told how long it has been, says so.
pub(super) fn identify<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
    gives_up: impl Fn(Duration) -> bool,
) -> Result<Option<Identity>, RDKafkaErrorCode> {
    let Ok(name) = CString::new(topic) else { return Err(RDKafkaErrorCode::InvalidTopic) };
    let millis = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
    let kafka = client.native_ptr();
    // SAFETY: `kafka` lives as long as `client`. Each object is freed once, by its `Owned`,
    // in the reverse order of declaration, so that the event goes before the queue. What is
    // read from the event is borrowed from it, and checked for null before it is read.
    unsafe {
        let queue = Owned(c::rd_kafka_queue_new(kafka), c::rd_kafka_queue_destroy);
        let options = Owned(
            c::rd_kafka_AdminOptions_new(
                kafka,
                c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            c::rd_kafka_AdminOptions_destroy,
        );
        c::rd_kafka_AdminOptions_set_request_timeout(
            options.0,
            millis(timeout),
            ptr::null_mut(),
            0,
        );
        let mut names = [name.as_ptr()];
        let topics = Owned(
            c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            c::rd_kafka_TopicCollection_destroy,
        );
        c::rd_kafka_DescribeTopics(kafka, topics.0, options.0, queue.0);
        let began = Instant::now();
        let event = loop {
            let event = c::rd_kafka_queue_poll(queue.0, millis(SLICE));
            if !event.is_null() {
                break Owned(event, c::rd_kafka_event_destroy);
            }
            let waited = began.elapsed();
            if waited >= timeout || gives_up(waited) {
                return Err(RDKafkaErrorCode::OperationTimedOut);
            }
        };
        failed(c::rd_kafka_event_error(event.0))?;
        let result = c::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let mut count = 0;
        let found = c::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if found.is_null() || count == 0 {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let description = *found;
        let error = c::rd_kafka_TopicDescription_error(description);
        if !error.is_null() {
            match failed(c::rd_kafka_error_code(error)) {
                Err(RDKafkaErrorCode::UnknownTopicOrPartition) => return Ok(None),
                Err(code) => return Err(code),
                Ok(()) => {}
            }
        }
        let mut partitions = 0;
        c::rd_kafka_TopicDescription_partitions(description, &mut partitions);
        let id = c::rd_kafka_TopicDescription_topic_id(description);
        let id = (!id.is_null()).then(|| {
            Uuid::from_u64_pair(
                c::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned(),
                c::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned(),
            )
        });
        Ok(Some(Identity {
            id: id.filter(|id| !id.is_nil()),
            partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
        }))
    }
}

fn failed(error: c::rd_kafka_resp_err_t) -> Result<(), RDKafkaErrorCode> {
    match error {
        c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(error.into()),
    }
}

/// The end of a partition as a consumer of it has last heard; 0 where it has heard nothing.
pub(super) fn known_end<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> u64 {
    let Ok(name) = CString::new(topic) else { return 0 };
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client lives for longer than the call, which copies the name and writes the
    // two numbers.
    unsafe {
        c::rd_kafka_get_watermark_offsets(
            client.native_ptr(),
            name.as_ptr(),
            partition,
            &mut low,
            &mut high,
        );
    }
    u64::try_from(high).unwrap_or(0)
}

/// Whether a record that was not acknowledged has certainly never reached a broker.
pub(super) fn surely_not_written(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the message outlives the call.
    let status = unsafe { c::rd_kafka_message_status(message.ptr()) };
    status == c::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// Puts a producer into the state in which a broken promise of idempotence leaves it.
#[cfg(test)]
pub(super) fn break_producer<C: ClientContext>(client: &Client<C>) {
    let error = c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    // SAFETY: the client lives for longer than the call, and the text is static.
    unsafe {
        c::rd_kafka_test_fatal_error(client.native_ptr(), error, c"broken by a test".as_ptr());
    }
}
