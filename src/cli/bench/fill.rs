//! `herald bench fill`: fills a log with events, as the server would write them but without its
//! calls. What takes a log of some length to show begins with it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use prometheus_client::registry::Registry;
use prost::Message as _;
use uuid::Uuid;

use super::payload::{MOST_PLAYERS, Payload};
use super::until_signalled;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::clock::{Clock, Timestamp};
use crate::domain::{cloud_event_type, event_type};
use crate::event_log::{
    Appender, Appending, Attributes, EventLog, NewRecord, kafka, local, partition_of_key,
};
use crate::proto::game_event::Payload as Happened;
use crate::proto::{GameEvent, ItemPurchased, Origin, Transport};
use crate::tasks::{Death, Tasks};

/// Records that wait to be durable at the most: enough to keep a log busy, and fewer than
/// the queue of any takes, even for one partition.
const MOST_WAITING: usize = 4_096;

/// How often the progress is shown, in events.
const SHOWN_EVERY: u64 = 10_000;

/// Arguments of `herald bench fill`.
#[derive(Debug, Args)]
pub struct Fill {
    /// The Kafka to fill; without it there is an embedded log.
    #[arg(long, value_name = "BROKERS", requires = "topic")]
    kafka_brokers: Option<String>,
    /// Its topic; made when it is missing.
    #[arg(long, value_name = "NAME", requires = "kafka_brokers")]
    topic: Option<String>,
    /// The folder of the embedded log to fill.
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "kafka_brokers",
        conflicts_with = "kafka_brokers"
    )]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    events: Events,
}

/// What a log is filled with.
#[derive(Clone, Debug, Args)]
pub struct Events {
    /// How many events to write.
    #[arg(long = "events", value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub count: u64,
    /// How long each of them is in the log, about; 200 and a little at the least.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub bytes: u32,
    /// How many players buy, in turn.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=MOST_PLAYERS))]
    pub players: u64,
}

impl Fill {
    /// Fills and returns when all is durable.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let filling = async {
            let log = match (self.kafka_brokers, self.topic, self.data_dir) {
                (Some(brokers), Some(topic), _) => topic_of(brokers, topic).await?,
                (_, _, Some(folder)) => embedded(folder)?,
                _ => anyhow::bail!("neither a topic nor a folder to fill"),
            };
            fill_and_close(log, &self.events).await
        };
        Ok(until_signalled(output, filling).await?.err().unwrap_or(Exit::Done))
    }
}

/// The embedded log in a folder.
pub fn embedded(data_dir: PathBuf) -> anyhow::Result<Arc<dyn EventLog>> {
    Ok(local::LocalLog::open(local::Options {
        data_dir,
        partitions: 1,
        retention_age: None,
        retention_bytes: None,
        clock: Clock::System,
    })?)
}

/// The log in a topic, which is made when it is missing.
pub async fn topic_of(brokers: String, topic: String) -> anyhow::Result<Arc<dyn EventLog>> {
    let options = kafka::Options {
        brokers,
        topic,
        properties: kafka::Properties::default(),
        key_partitions: None,
        replication_factor: None,
        min_insync_replicas: None,
    };
    Ok(kafka::KafkaLog::open(options, &mut Registry::default()).await?)
}

/// Appends events, shows how far it is, and returns when all are durable and the log is closed.
pub async fn fill_and_close(log: Arc<dyn EventLog>, events: &Events) -> anyhow::Result<()> {
    let bar = ProgressBar::new(events.count);
    let filled = fill(Arc::clone(&log), events, &bar).await;
    bar.finish_and_clear();
    log.close().await;
    filled
}

async fn fill(log: Arc<dyn EventLog>, events: &Events, bar: &ProgressBar) -> anyhow::Result<()> {
    let mut ends = log.bounds().await?.end;
    let partitions = log.key_partitions();
    let (appender, driver) = Appender::new(log);
    let tasks = Tasks::new();
    tasks.spawn("bench acknowledgements", Death::Fatal, driver.run());
    let payload = Payload::new("sword");
    let mut waiting = VecDeque::with_capacity(MOST_WAITING);
    let mut result = Ok(());
    for number in 0..events.count {
        if waiting.len() == MOST_WAITING {
            result = durable(waiting.pop_front()).await;
            if result.is_err() {
                break;
            }
        }
        let player = payload.player_id(number % events.players);
        let partition = partition_of_key(player.as_bytes(), partitions);
        // A writer has seen all but what is under way.
        let offset = ends.get(partition);
        let checked = offset.saturating_sub((MOST_WAITING / partitions as usize) as u64);
        ends.set(partition, offset + 1);
        let id = payload.request_id(number);
        let now = Clock::System.now();
        let record = record(player, id, partition, checked, events.bytes as usize, now);
        waiting.push_back(appender.append(record));
        if number % SHOWN_EVERY == 0 {
            bar.set_position(number);
        }
    }
    while result.is_ok() && !waiting.is_empty() {
        result = durable(waiting.pop_front()).await;
    }
    tasks.stop();
    tasks.ended().await;
    result.context("cannot fill the log")
}

async fn durable(appending: Option<Appending>) -> anyhow::Result<()> {
    if let Some(appending) = appending {
        appending.await?;
    }
    Ok(())
}

fn record(
    player: String,
    id: Uuid,
    partition: u32,
    checked: u64,
    bytes: usize,
    now: Timestamp,
) -> NewRecord {
    let happened = Happened::ItemPurchased(ItemPurchased {
        item_id: "sword".to_owned(),
        quantity: 1,
        unit_price: 100,
        total_price: 100,
        currency_code: "gold".to_owned(),
        catalog_version: String::new(),
    });
    let attributes =
        Attributes { id, event_type: cloud_event_type(&happened), time: now, traceparent: None };
    NewRecord {
        partition,
        value: value(id, &player, checked, happened, now, bytes),
        key: Some(Bytes::from(player)),
        attributes,
    }
}

/// An event of about `bytes` bytes, or as short as one can be. What it lacks goes into a
/// header of its origin, as there it is with callers' real headers.
fn value(
    id: Uuid,
    player: &str,
    checked: u64,
    happened: Happened,
    now: Timestamp,
    bytes: usize,
) -> Bytes {
    let mut event = GameEvent {
        event_id: id.to_string(),
        event_type: event_type(&happened).to_owned(),
        player_id: player.to_owned(),
        accept_time: Some(now.into()),
        checked_through_offset: i64::try_from(checked).unwrap_or(i64::MAX),
        origin: Some(Origin {
            request_id: id.to_string(),
            headers: [("user-agent".to_owned(), String::new())].into(),
            remote_address: "127.0.0.1".to_owned(),
            transport: Transport::Grpc.into(),
            client_context: None,
        }),
        payload: Some(happened),
    };
    let missing = bytes.saturating_sub(event.encoded_len());
    if let Some(origin) = &mut event.origin {
        origin.headers.insert("user-agent".to_owned(), "x".repeat(missing));
    }
    Bytes::from(event.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_an_event_of_about_the_length_that_was_asked_for() {
        for bytes in [250, 1_000] {
            let now = Timestamp::from_millis(1_767_323_045_006);
            let record = record("alice".to_owned(), Uuid::from_u128(7), 3, 9, bytes, now);
            assert!(record.value.len().abs_diff(bytes) <= 8, "{} bytes", record.value.len());
            let event = GameEvent::decode(record.value.clone()).unwrap();
            assert_eq!((&*event.player_id, event.checked_through_offset), ("alice", 9));
            assert_eq!(event.event_type, "item_purchased");
            assert_eq!(record.attributes.id.to_string(), event.event_id);
        }
    }
}
