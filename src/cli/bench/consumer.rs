//! The yardstick of a replay: a bare librdkafka consumer that only counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataPartition;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

/// How long the brokers may take for an answer, and for the next record.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Counts the records of a topic from the first one to where it ends now, and returns with
/// it how long that took from nothing. Blocks.
///
/// It is configured as librdkafka is by default, but for the pause that it makes when it
/// has read far ahead: a second, in which it would only wait.
pub fn count(brokers: &str, topic: &str) -> anyhow::Result<(u64, Duration)> {
    let began = Instant::now();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "herald-bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.queue.backoff.ms", "10")
        .create()?;
    // The last record of each partition that has any and is not read to its end.
    let mut left = BTreeMap::new();
    let mut from = TopicPartitionList::new();
    for partition in partitions(&consumer, topic)? {
        let (start, end) = consumer.fetch_watermarks(topic, partition, ANSWER_LIMIT)?;
        if start < end {
            left.insert(partition, end - 1);
            from.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&from)?;
    let mut records = 0;
    while !left.is_empty() {
        match consumer.poll(ANSWER_LIMIT) {
            Some(Ok(record)) => {
                records += 1;
                if left.get(&record.partition()).is_some_and(|last| record.offset() >= *last) {
                    left.remove(&record.partition());
                }
            }
            // Where the last offset is no record's, as with transactions.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.remove(&partition);
            }
            Some(Err(error)) => return Err(error).context("cannot read the topic"),
            None => bail!("no record came for {ANSWER_LIMIT:?}"),
        }
    }
    Ok((records, began.elapsed()))
}

/// Fails when there is no such topic. Blocks.
pub fn find(brokers: &str, topic: &str) -> anyhow::Result<()> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    partitions(&consumer, topic).map(drop)
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_LIMIT)?;
    let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
    ensure!(!partitions.is_empty(), "there is no topic {topic}");
    Ok(partitions.iter().map(MetadataPartition::id).collect())
}

/// Removes a topic.
pub async fn delete_topic(brokers: &str, topic: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    for deleted in admin.delete_topics(&[topic], &AdminOptions::new()).await? {
        if let Err((topic, code)) = deleted {
            bail!("cannot remove topic {topic}: {code}");
        }
    }
    Ok(())
}
