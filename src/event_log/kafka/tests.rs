//! The log on a real Kafka: the contract that every log keeps, and what only this one does.
//!
//! The broker is the one that `TEST_KAFKA_BROKERS` names (`scripts/kafka start` makes one).
//! Without it the tests are left out, unless `REQUIRE_KAFKA=1`.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use uuid::Uuid;

use super::*;
use crate::clock::Clock;
use crate::event_log::conformance::{Harness, conformance_suite};
use crate::event_log::{EventLog, Offset, Partition};

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
    Options {
        brokers: variable("TEST_KAFKA_BROKERS").expect("there is a broker"),
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
