//! Fills a log with events, as the server would write them but without its calls.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use indicatif::ProgressBar;
use prost::Message as _;
use uuid::Uuid;

use super::payload::Payload;
use crate::clock::{Clock, Timestamp};
use crate::domain::{cloud_event_type, event_type};
use crate::event_log::{Appender, Appending, Attributes, EventLog, NewRecord, partition_of_key};
use crate::proto::game_event::Payload as Happened;
use crate::proto::{GameEvent, ItemPurchased, Origin, Transport};
use crate::tasks::{Death, Tasks};

/// Records that wait to be durable at the most: enough to keep a log busy, and fewer than
/// the queue of any takes, even for one partition.
const MOST_WAITING: usize = 4_096;

/// By how many players.
const PLAYERS: u64 = 1_000;

/// How often the progress is shown, in events.
const SHOWN_EVERY: u64 = 10_000;

/// Appends so many events of about `bytes` bytes, and returns when all are durable.
pub async fn fill(
    log: Arc<dyn EventLog>,
    events: u64,
    bytes: usize,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let partitions = log.key_partitions();
    let (appender, driver) = Appender::new(log);
    let tasks = Tasks::new();
    tasks.spawn("bench acknowledgements", Death::Fatal, driver.run());
    let payload = Payload::new("sword");
    let mut waiting = VecDeque::with_capacity(MOST_WAITING);
    let mut result = Ok(());
    for number in 0..events {
        if waiting.len() == MOST_WAITING {
            result = durable(waiting.pop_front()).await;
            if result.is_err() {
                break;
            }
        }
        let now = Clock::System.now();
        let record = record(&payload, number, bytes, partitions, now);
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
    payload: &Payload,
    number: u64,
    bytes: usize,
    partitions: u32,
    now: Timestamp,
) -> NewRecord {
    let player = payload.player_id(number % PLAYERS);
    let id = payload.request_id(number);
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
        partition: partition_of_key(player.as_bytes(), partitions),
        value: value(id, &player, happened, now, bytes),
        key: Some(Bytes::from(player)),
        attributes,
    }
}

/// An event of about `bytes` bytes, or as short as one can be. What it lacks goes into a
/// header of its origin, as there it is with callers' real headers.
fn value(id: Uuid, player: &str, happened: Happened, now: Timestamp, bytes: usize) -> Bytes {
    let mut event = GameEvent {
        event_id: id.to_string(),
        event_type: event_type(&happened).to_owned(),
        player_id: player.to_owned(),
        accept_time: Some(now.into()),
        checked_through_offset: 0,
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
        let payload = Payload::new("sword");
        for bytes in [250, 1_000] {
            let record = record(&payload, 7, bytes, 6, Timestamp::from_millis(1_767_323_045_006));
            assert!(record.value.len().abs_diff(bytes) <= 8, "{} bytes", record.value.len());
            let event = GameEvent::decode(record.value.clone()).unwrap();
            assert_eq!(event.player_id, payload.player_id(7));
            assert_eq!(event.event_type, "item_purchased");
            assert_eq!(record.partition, partition_of_key(event.player_id.as_bytes(), 6));
            assert_eq!(record.attributes.id.to_string(), event.event_id);
        }
        assert!(record(&payload, 7, 0, 6, Timestamp::from_millis(0)).value.len() < 230);
    }
}
