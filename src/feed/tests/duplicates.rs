//! Events that came twice into a log, as subscribers see them, and who follows the tail.

use super::*;
use crate::event_log::local::{self, LocalLog};
use crate::event_log::{Appender, Attributes, NewRecord};

fn event(id: u128, checked_through_offset: i64) -> proto::GameEvent {
    proto::GameEvent {
        event_id: uuid::Uuid::from_u128(id).to_string(),
        event_type: "guild_joined".into(),
        player_id: "alice".into(),
        checked_through_offset,
        ..Default::default()
    }
}

fn record(event: &proto::GameEvent) -> NewRecord {
    NewRecord {
        partition: 0,
        key: None,
        value: event.encode_to_vec().into(),
        attributes: Attributes {
            id: uuid::Uuid::nil(),
            event_type: "game.v1.GuildJoined",
            time: Timestamp::default(),
            traceparent: None,
        },
    }
}

/// The offsets of all events up to the end of a stream.
async fn all(mut reader: Reader) -> Vec<i64> {
    let mut found = Vec::new();
    while let Some(message) = reader.next().await {
        if let Some(Response::Batch(batch)) = message.unwrap().response {
            found.extend(offsets(&batch));
        }
    }
    found
}

#[tokio::test]
async fn two_writers_of_one_event_are_one_event_live_catching_up_and_in_a_poll() {
    let dir = tempfile::tempdir().unwrap();
    let options = local::Options {
        data_dir: dir.path().to_path_buf(),
        partitions: 1,
        retention_age: None,
        retention_bytes: None,
        clock: Clock::System,
    };
    let log = LocalLog::open(options).unwrap() as Arc<dyn EventLog>;
    let feed =
        Feed::build(Arc::clone(&log), Options::default(), Clock::System, &mut Registry::default());
    let (lane, relay) = feed.lane();
    let tasks = Tasks::new();
    tasks.spawn("relay", Death::Fatal, relay.run());
    let running = feed.clone();
    tasks.spawn("tail", Death::Fatal, async move { running.run_tail().await });
    let running = feed.clone();
    tasks.spawn("catch-up", Death::Fatal, async move { running.run_catch_up().await });
    let writers = [(); 2].map(|()| {
        let (appender, driver) = Appender::new(Arc::clone(&log));
        tasks.spawn("acks", Death::Fatal, driver.run());
        appender
    });
    feed.live().wait_for(|live| *live).await.unwrap();

    let request = Subscription { max_events: 2, ..Subscription::default() };
    let mut live = lane.subscribe(&CALLER, request).await.unwrap();
    assert!(matches!(next(&mut live).await.1, Response::Opened(_)));
    // Neither writer has seen what the other has written.
    let once = event(1, 0);
    writers[0].append(record(&once)).await.unwrap();
    writers[1].append(record(&once)).await.unwrap();
    writers[1].append(record(&event(2, 0))).await.unwrap();
    assert_eq!(all(live).await, [0, 2]);
    assert_eq!(feed.shared.metrics.duplicates.get(), 1);

    let request = Subscription { stop_when_caught_up: true, ..earliest() };
    assert_eq!(all(lane.subscribe(&CALLER, request).await.unwrap()).await, [0, 2]);

    // One that starts behind the first of the two.
    let behind = Cursor::of(log.bounds().await.unwrap().log, &vec![1].into(), Timestamp::default());
    let start = proto::poll_events_request::Start::AfterCursor(behind);
    let request = proto::PollEventsRequest { start: Some(start), ..Default::default() };
    let answer = lane.poll(&CALLER, request, None).await.unwrap().read();
    assert_eq!(answer.events.iter().map(|event| event.offset).collect::<Vec<_>>(), [2]);
    assert!(answer.gap.is_none() && answer.caught_up);
    tasks.stop();
}

#[tokio::test]
async fn who_follows_the_tail_gets_each_event_once_or_is_sent_to_the_log() {
    // The ring holds the newest batch only.
    let fixture = Fixture::idle(1, 1);
    let log = fixture.log.id();
    let at = |offset: u64| Position::from(vec![offset]);
    assert!(matches!(fixture.feed.follow(log, &at(0)), Follow::Behind), "it has not begun");
    fixture.start_tail();
    fixture.tail_at_end().await;
    let Follow::At(mut follower) = fixture.feed.follow(log, &at(0)) else { panic!("at the end") };
    for id in [1, 1, 2] {
        fixture.log.push(0, event(id, 0).encode_to_vec());
    }
    let batch = follower.next().await.unwrap();
    assert_eq!(batch.events().map(|record| record.offset).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(batch.position(), &at(3));

    for id in 3..5 {
        fixture.log.push(0, event(id, 0).encode_to_vec());
        fixture.tail_at_end().await;
    }
    assert!(follower.next().await.is_none(), "it was too slow");
    assert!(matches!(fixture.feed.follow(log, &at(3)), Follow::Behind));
    let Follow::At(mut follower) = fixture.feed.follow(log, &at(5)) else { panic!("at the end") };
    fixture.log.replace();
    assert!(follower.next().await.is_none(), "it is another log");
    assert!(matches!(fixture.feed.follow(log, &at(5)), Follow::Replaced));
}
