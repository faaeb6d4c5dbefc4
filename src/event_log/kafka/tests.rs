//! The log on a real Kafka: the contract that every log keeps, and what only this one does.
//!
//! The broker is the one that `TEST_KAFKA_BROKERS` names (`scripts/kafka start` makes one).
//! Without it the tests are left out, unless `REQUIRE_KAFKA=1`.

use std::sync::Arc;

use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use uuid::Uuid;

use super::*;
use crate::clock::Clock;
use crate::event_log::conformance::{
    Harness, Writing, conformance_suite, next, record, within_patience,
};
use crate::event_log::{AppendError, EventLog, Offset, Partition, ReadLimits};

#[allow(clippy::disallowed_methods, reason = "tests are told where the broker is")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether there is a broker to test with.
fn has_broker() -> bool {
    if variable("TEST_KAFKA_BROKERS").is_some() {
        return true;
    }
    assert!(
        variable("REQUIRE_KAFKA").as_deref() != Some("1"),
        "there is no Kafka to test with: start one with `scripts/kafka start`, and set \
         TEST_KAFKA_BROKERS to the brokers that it prints (scripts/test does both)"
    );
    eprintln!("left out: TEST_KAFKA_BROKERS names no Kafka");
    false
}

fn options(partitions: u32) -> Options {
    let brokers = variable("TEST_KAFKA_BROKERS").expect("there is a broker");
    Options { brokers, ..template(partitions) }
}

/// A topic of its own, without a broker.
fn template(partitions: u32) -> Options {
    Options {
        brokers: String::new(),
        topic: format!("test-{}", Uuid::new_v4()),
        properties: Properties::default(),
        key_partitions: Some(partitions),
        replication_factor: None,
        min_insync_replicas: None,
    }
}

async fn open(options: &Options) -> Arc<KafkaLog> {
    KafkaLog::open(options.clone(), &mut Registry::default()).await.expect("it can be opened")
}

fn admin(options: &Options) -> AdminClient<DefaultClientContext> {
    options.admin().create().expect("the options are valid")
}

struct KafkaHarness {
    options: Options,
    /// Always there, except while it is opened again.
    log: Option<Arc<KafkaLog>>,
}

impl Harness for KafkaHarness {
    fn is_available() -> bool {
        has_broker()
    }

    async fn create(partitions: u32) -> Self {
        let options = options(partitions);
        let log = Some(open(&options).await);
        Self { options, log }
    }

    fn log(&self) -> Arc<dyn EventLog> {
        self.log.clone().expect("it is open")
    }

    async fn reopen(&mut self) {
        self.log = None;
        self.log = Some(open(&self.options).await);
    }

    async fn trim(&self, partition: Partition, to: Offset) {
        let mut list = TopicPartitionList::new();
        let to = rdkafka::Offset::Offset(i64::try_from(to).unwrap());
        let partition = i32::try_from(partition).unwrap();
        list.add_partition_offset(&self.options.topic, partition, to).unwrap();
        let done = admin(&self.options).delete_records(&list, &AdminOptions::new()).await;
        done.expect("records can be deleted");
    }

    fn clock(&self) -> Option<Clock> {
        None
    }

    async fn stall(&self) -> Option<Box<dyn Send>> {
        None
    }
}

conformance_suite!(KafkaHarness);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_failed_for_good_is_built_anew() {
    if !has_broker() {
        return;
    }
    within_patience(async {
        let log = open(&options(2)).await;
        let writing = Writing::to(log.clone());
        for round in 0..3 {
            // Some are under way when it happens, and each is answered.
            let under_way: Vec<_> =
                (0..100).map(|_| writing.appender.append(record(0, b"x"))).collect();
            log.writer.break_producer();
            let mut taken = 0;
            for outcome in join_all(under_way).await {
                match outcome {
                    Ok(_) => taken += 1,
                    Err(error) => assert!(
                        matches!(
                            error,
                            AppendError::Unavailable(_) | AppendError::OutcomeUnknown(_)
                        ),
                        "{error:?}"
                    ),
                }
            }
            let appended = loop {
                match writing.appender.append(record(0, b"again")).await {
                    Ok(appended) => break appended,
                    Err(AppendError::Unavailable(_)) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error:?}"),
                }
            };
            assert!(appended.offset >= taken, "round {round}");
            log.health().wait_for(|health| *health == Health::Writable).await.expect("it is open");
        }
        writing.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_brokers_the_log_opens_and_says_why_it_takes_nothing() {
    within_patience(async {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let brokers = nobody.local_addr().unwrap().to_string();
        drop(nobody);
        let log = open(&Options { brokers: brokers.clone(), ..template(1) }).await;
        let writing = Writing::to(log.clone());
        let refused = writing.appender.append(record(0, b"x")).await;
        let Err(AppendError::Unavailable(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains(&brokers) && why.contains("Connection refused"), "{why}");
        assert!(matches!(log.bounds().await, Err(ReadError::Unavailable(_))));
        log.close().await;
        writing.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_become_metrics() {
    if !has_broker() {
        return;
    }
    within_patience(async {
        let mut options = options(1);
        options.properties.add("statistics.interval.ms=100").expect("it is a property");
        let mut registry = Registry::default();
        let log = KafkaLog::open(options, &mut registry).await.expect("it can be opened");
        let writing = Writing::to(log.clone());
        let mut told = String::new();
        while !told.contains("kafka_round_trip_seconds{broker=\"127.0.0.1:") {
            writing.append(0, b"x").await;
            told.clear();
            prometheus_client::encoding::text::encode(&mut told, &registry).unwrap();
        }
        writing.end().await;
    })
    .await;
}

/// librdkafka used to end the process here, as a consumer was assigned anew and let go of at
/// once (see `Source`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_are_overtaken_can_be_let_go_of_at_once() {
    const ROUNDS: u64 = 12;
    const TOGETHER: usize = 12;
    /// Further than a reader is ahead of what it hands out, with these properties.
    const STEP: u64 = 10;
    const PARTITIONS: u32 = 6;
    const OVERTAKEN: Partition = 3;
    if !has_broker() {
        return;
    }
    within_patience(async {
        let mut options = options(PARTITIONS);
        for property in
            ["batch.num.messages=1", "queued.min.messages=1", "max.partition.fetch.bytes=1"]
        {
            options.properties.add(property).expect("it is a property");
        }
        let log = open(&options).await;
        let harness = KafkaHarness { options, log: Some(Arc::clone(&log)) };
        let writing = Writing::to(log.clone());
        let count = u64::from(PARTITIONS) * STEP * (ROUNDS + 1);
        let partitions = (0..count).map(|number| (number % u64::from(PARTITIONS)) as Partition);
        let appends = partitions.map(|partition| writing.appender.append(record(partition, b"x")));
        assert!(join_all(appends).await.iter().all(Result::is_ok));

        let one = ReadLimits { records: 1, bytes: usize::MAX };
        for round in 1..=ROUNDS {
            let bounds = log.bounds().await.expect("the log is well");
            let mut begun = join_all((0..TOGETHER).map(async |_| {
                let opened = log.open_reader(bounds.log, bounds.start.clone()).await;
                let mut reader = opened.expect("the log is well");
                assert_eq!(next(&mut reader, one).await.trimmed, []);
                reader
            }))
            .await;
            let to = round * STEP;
            harness.trim(OVERTAKEN, to).await;
            join_all(begun.drain(..).map(async |mut reader| {
                let trimmed = loop {
                    let batch = next(&mut reader, one).await;
                    if let [trimmed] = batch.trimmed[..] {
                        break trimmed;
                    }
                };
                drop(reader);
                assert_eq!((trimmed.partition, trimmed.to), (OVERTAKEN, to));
            }))
            .await;
        }
        writing.end().await;
    })
    .await;
}
