//! The reader's promises where only a log that does as it is told can show them.

mod duplicates;
mod live;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use proptest::prelude::*;
use prost::Message as _;
use tokio::time::Instant;

use super::*;
use crate::event_log::EventLog;
use crate::event_log::memory::MemoryLog;
use crate::proto::stream_events_request::Start;
use crate::proto::stream_events_response::Response;
use crate::tasks::{Death, Tasks};

struct Fixture {
    log: Arc<MemoryLog>,
    feed: Feed,
    lane: Lane,
    tasks: Tasks,
}

const CALLER: Caller = Caller::Anonymous { may_read_origin: true };

impl Fixture {
    /// A feed whose tail does not run yet.
    fn idle(partitions: usize, ring_bytes: usize) -> Self {
        let log = MemoryLog::new(partitions);
        let as_log = Arc::clone(&log) as Arc<dyn EventLog>;
        let options = Options { ring_bytes, ..Options::default() };
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let feed = Feed::build(as_log, options, clock, &mut Registry::default());
        let (lane, relay) = feed.lane();
        let tasks = Tasks::new();
        tasks.spawn("relay", Death::Fatal, relay.run());
        let reading = feed.clone();
        tasks.spawn("catch-up", Death::Fatal, async move { reading.run_catch_up().await });
        Self { log, feed, lane, tasks }
    }

    fn new(partitions: usize, ring_bytes: usize) -> Self {
        let this = Self::idle(partitions, ring_bytes);
        this.start_tail();
        this
    }

    fn start_tail(&self) {
        let feed = self.feed.clone();
        self.tasks.spawn("tail", Death::Fatal, async move { feed.run_tail().await });
    }

    fn push(&self, partition: u32, player: &str) {
        let event = proto::GameEvent {
            event_id: "an id".into(),
            // No duplicate of any other.
            checked_through_offset: i64::MAX,
            event_type: "guild_joined".into(),
            player_id: player.into(),
            ..Default::default()
        };
        self.log.push(partition, event.encode_to_vec());
    }

    async fn subscribe(&self, subscription: Subscription) -> Reader {
        self.lane.subscribe(&CALLER, subscription).await.unwrap()
    }

    /// Returns once the tail has read everything.
    async fn tail_at_end(&self) {
        let end = self.log.bounds().await.unwrap().end;
        while !self.feed.shared.hub.end().is_some_and(|at| at.position.covers(&end)) {
            tokio::task::yield_now().await;
        }
    }
}

fn earliest() -> Subscription {
    let start = Some(Start::StartPosition(proto::StartPosition::Earliest.into()));
    Subscription { start, ..Default::default() }
}

fn after(cursor: &str) -> Subscription {
    Subscription { start: Some(Start::AfterCursor(cursor.into())), ..Default::default() }
}

async fn next(reader: &mut Reader) -> (String, Response) {
    let message = reader.next().await.expect("the stream goes on").expect("without an error");
    (message.cursor, message.response.expect("every message says something"))
}

/// The next message that is no heartbeat.
async fn next_news(reader: &mut Reader) -> (String, Response) {
    loop {
        let (cursor, response) = next(reader).await;
        if !matches!(response, Response::Heartbeat(_)) {
            return (cursor, response);
        }
    }
}

fn offsets(batch: &proto::EventBatch) -> Vec<i64> {
    batch.events.iter().map(|event| event.offset).collect()
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_has_a_heartbeat_each_interval() {
    let fixture = Fixture::new(2, 1 << 20);
    let interval = prost_types::Duration { seconds: 5, nanos: 0 };
    let subscription = Subscription { heartbeat_interval: Some(interval), ..Default::default() };
    let mut reader = fixture.subscribe(subscription).await;
    assert!(matches!(next(&mut reader).await.1, Response::Opened(_)));
    assert!(matches!(next(&mut reader).await.1, Response::CaughtUp(_)));
    for _ in 0..3 {
        let begun = Instant::now();
        let (cursor, response) = next(&mut reader).await;
        let Response::Heartbeat(heartbeat) = response else { panic!("{response:?}") };
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        assert_eq!(heartbeat.lag, 0);
        assert!(heartbeat.server_time.is_some());
        Cursor::decode(&cursor).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn intervals_are_brought_into_their_range() {
    for (asked, given) in [(0, 1), (1, 1), (60, 60), (100_000, 60)] {
        let fixture = Fixture::new(1, 1 << 20);
        let interval = prost_types::Duration { seconds: asked, nanos: 0 };
        let subscription =
            Subscription { heartbeat_interval: Some(interval), ..Default::default() };
        let mut reader = fixture.subscribe(subscription).await;
        next(&mut reader).await;
        next(&mut reader).await;
        let begun = Instant::now();
        next(&mut reader).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(given), "asked for {asked} s");
    }
}

#[tokio::test(start_paused = true)]
async fn the_cursor_moves_over_what_the_filter_passes_over() {
    let fixture = Fixture::new(2, 1 << 20);
    let filter = proto::EventFilter { player_ids: vec!["nobody".into()], ..Default::default() };
    let subscription = Subscription { filter: Some(filter), ..Default::default() };
    let mut reader = fixture.subscribe(subscription).await;
    next(&mut reader).await;
    next(&mut reader).await;
    for _ in 0..10 {
        fixture.push(0, "alice");
    }
    fixture.push(1, "bob");
    fixture.tail_at_end().await;
    let (cursor, response) = next(&mut reader).await;
    assert!(matches!(response, Response::Heartbeat(_)), "{response:?}");
    assert_eq!(Cursor::decode(&cursor).unwrap().position, vec![10, 1].into());
}

#[tokio::test]
async fn who_falls_out_of_the_ring_is_told_and_misses_nothing() {
    let fixture = Fixture::new(1, 1);
    fixture.feed.live().wait_for(|live| *live).await.unwrap();
    let mut reader = fixture.subscribe(Subscription::default()).await;
    next(&mut reader).await;
    next(&mut reader).await;
    // The first event makes the reader live; it is then not polled while more come.
    fixture.push(0, "alice");
    let (_, response) = next(&mut reader).await;
    assert!(matches!(response, Response::Batch(_)), "{response:?}");
    for _ in 0..5 {
        fixture.push(0, "alice");
        fixture.tail_at_end().await;
    }
    assert!(matches!(next(&mut reader).await.1, Response::FellBehind(_)));
    let mut seen = Vec::new();
    loop {
        match next(&mut reader).await.1 {
            Response::Batch(batch) => seen.extend(offsets(&batch)),
            Response::CaughtUp(caught_up) => {
                assert_eq!(caught_up.end_offsets[0].offset, 6);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_record_that_is_no_event_is_a_gap_and_the_feed_goes_on() {
    // An event, and behind it more groups within each other than a client reads.
    let deep = [&b"\x0a\x01i\x12\x01t"[..], &[0x7b; 99], &[0x7c; 99]].concat();
    // What is no message, a message of nothing, and a message of something else.
    let foreign = [b"\xff\xff".to_vec(), Vec::new(), b"x\x01".to_vec(), deep];
    for (live, foreign) in foreign.iter().flat_map(|f| [(false, f), (true, f)]) {
        let fixture = Fixture::new(1, 1 << 20);
        let write = || {
            fixture.push(0, "alice");
            fixture.log.push(0, foreign.clone());
            fixture.push(0, "bob");
        };
        if !live {
            write();
        }
        let mut reader = fixture.subscribe(earliest()).await;
        assert!(matches!(next(&mut reader).await.1, Response::Opened(_)));
        if live {
            assert!(matches!(next(&mut reader).await.1, Response::CaughtUp(_)));
            write();
        }
        let (_, Response::Batch(before)) = next(&mut reader).await else { panic!("live: {live}") };
        assert_eq!(offsets(&before), [0]);
        let (cursor, Response::Gap(gap)) = next(&mut reader).await else { panic!("live: {live}") };
        assert_eq!(gap.reason(), proto::GapReason::Undecodable);
        assert_eq!((gap.partition, gap.missed_records), (0, 1));
        let (_, Response::Batch(behind)) = next(&mut reader).await else { panic!("live: {live}") };
        assert_eq!(offsets(&behind), [2]);
        // Who resumes from the gap is not told of it again.
        let mut resumed = fixture.subscribe(after(&cursor)).await;
        next(&mut resumed).await;
        let (_, Response::Batch(rest)) = next(&mut resumed).await else { panic!("live: {live}") };
        assert_eq!(offsets(&rest), [2]);
    }
}

#[tokio::test]
async fn what_retention_removes_ahead_of_a_reader_is_a_gap_with_its_size() {
    let fixture = Fixture::idle(1, 1 << 20);
    for _ in 0..10 {
        fixture.push(0, "alice");
    }
    let mut reader = fixture.subscribe(earliest()).await;
    assert!(matches!(next(&mut reader).await.1, Response::Opened(_)));
    fixture.log.trim(0, 7);
    fixture.start_tail();
    let (cursor, Response::Gap(gap)) = next(&mut reader).await else { panic!("not a gap") };
    assert_eq!(gap.reason(), proto::GapReason::Retention);
    assert_eq!(gap.missed_records, 7);
    assert_eq!(Cursor::decode(&cursor).unwrap().position, vec![7].into());
    let (_, Response::Batch(batch)) = next(&mut reader).await else { panic!("not a batch") };
    assert_eq!(offsets(&batch), [7, 8, 9]);
}

#[tokio::test]
async fn who_has_enough_is_not_moved_over_what_follows() {
    let fixture = Fixture::new(1, 1 << 20);
    fixture.feed.live().wait_for(|live| *live).await.unwrap();
    let subscription = Subscription { max_events: 1, ..Default::default() };
    let mut reader = fixture.subscribe(subscription).await;
    fixture.push(0, "alice");
    fixture.push(0, "alice");
    fixture.tail_at_end().await;
    // The tail itself misses a record before its next batch.
    fixture.push(0, "alice");
    fixture.push(0, "alice");
    fixture.log.trim(0, 3);
    fixture.tail_at_end().await;
    let mut newest = String::new();
    while let Some(message) = reader.next().await {
        newest = message.unwrap().cursor;
    }
    assert_eq!(Cursor::decode(&newest).unwrap().position, vec![1].into());
}

#[tokio::test(start_paused = true)]
async fn a_cursor_ahead_of_the_log_is_refused_only_after_a_second_look() {
    let fixture = Fixture::new(1, 1 << 20);
    fixture.push(0, "alice");
    let ahead = Cursor {
        epoch: fixture.log.bounds().await.unwrap().log,
        position: vec![2].into(),
        time: Timestamp::from_millis(0),
    };
    let begun = Instant::now();
    let refused = fixture.lane.subscribe(&CALLER, after(&ahead.encode())).await;
    assert!(matches!(refused, Err(FeedError::CursorAhead(_))));
    assert_eq!(begun.elapsed(), AHEAD_SECOND_LOOK);

    // Somebody writes what was missing between the looks.
    let subscription = after(&ahead.encode());
    let late = fixture.lane.subscribe(&CALLER, subscription);
    let write = async {
        tokio::time::sleep(AHEAD_SECOND_LOOK / 2).await;
        fixture.push(0, "bob");
    };
    let (opened, ()) = tokio::join!(late, write);
    assert!(opened.is_ok());
}

#[tokio::test]
async fn partitions_that_a_cursor_does_not_name_begin_at_their_start() {
    let fixture = Fixture::new(3, 1 << 20);
    for partition in 0..3 {
        fixture.push(partition, "alice");
        fixture.push(partition, "bob");
    }
    fixture.log.trim(2, 1);
    let old = Cursor {
        epoch: fixture.log.bounds().await.unwrap().log,
        position: vec![1].into(),
        time: Timestamp::from_millis(0),
    };
    let subscription = Subscription { stop_when_caught_up: true, ..after(&old.encode()) };
    let mut reader = fixture.subscribe(subscription).await;
    let mut seen = Vec::new();
    while let Some(message) = reader.next().await {
        if let Some(Response::Batch(batch)) = message.unwrap().response {
            seen.extend(batch.events.iter().map(|event| (event.partition, event.offset)));
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [(0, 1), (1, 0), (1, 1), (2, 1)]);
}

/// What a test does next.
#[derive(Clone, Debug)]
enum Step {
    Write(u32),
    Read,
    /// Drop the reader and resume from its newest cursor.
    Resume,
    Yield,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3u32).prop_map(Step::Write),
        3 => Just(Step::Read),
        1 => Just(Step::Resume),
        2 => Just(Step::Yield),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// However writing, reading, resuming and the tail interleave, and whatever the size
    /// of the ring: each event once, in the order of its partition.
    #[test]
    fn each_event_comes_once_and_in_order(
        steps in steps(),
        ring_bytes in prop_oneof![Just(1usize), Just(600), Just(1 << 20)],
        tail_from_the_start in any::<bool>(),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let fixture = Fixture::idle(3, ring_bytes);
            if tail_from_the_start {
                fixture.start_tail();
            }
            let mut written = [0i64; 3];
            let mut seen = [0i64; 3];
            let mut reader = fixture.subscribe(earliest()).await;
            let mut cursor = next(&mut reader).await.0;
            let take = |seen: &mut [i64; 3], response: &Response| {
                if let Response::Batch(batch) = response {
                    for event in &batch.events {
                        let place = &mut seen[usize::try_from(event.partition).unwrap()];
                        assert_eq!(event.offset, *place, "in partition {}", event.partition);
                        *place += 1;
                    }
                }
            };
            for step in steps {
                match step {
                    Step::Write(partition) => {
                        fixture.push(partition, "alice");
                        written[partition as usize] += 1;
                    }
                    // Heartbeats come when there is nothing else, so this always ends.
                    Step::Read => {
                        let (newest, response) = next(&mut reader).await;
                        take(&mut seen, &response);
                        cursor = newest;
                    }
                    Step::Resume => {
                        reader = fixture.subscribe(after(&cursor)).await;
                    }
                    Step::Yield => tokio::task::yield_now().await,
                }
            }
            if !tail_from_the_start {
                fixture.start_tail();
            }
            while seen != written {
                let (_, response) = next_news(&mut reader).await;
                take(&mut seen, &response);
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn readers_of_a_log_that_was_replaced_are_told_and_new_ones_read_the_new_one() {
    let fixture = Fixture::new(1, 1 << 20);
    for _ in 0..5 {
        fixture.push(0, "alice");
    }
    fixture.tail_at_end().await;
    let mut live = fixture.subscribe(Subscription::default()).await;
    assert!(matches!(next(&mut live).await.1, Response::Opened(_)));
    let (old, response) = next(&mut live).await;
    assert!(matches!(response, Response::CaughtUp(_)));
    // Behind: it has not read a thing yet.
    let mut behind = fixture.subscribe(earliest()).await;
    assert!(matches!(next(&mut behind).await.1, Response::Opened(_)));

    fixture.log.replace();
    for reader in [&mut live, &mut behind] {
        let told = loop {
            match reader.next().await.expect("it is told") {
                Ok(message) => assert!(matches!(message.response, Some(Response::Heartbeat(_)))),
                Err(error) => break error,
            }
        };
        assert!(matches!(told, FeedError::Log(ReadError::Replaced)), "{told:?}");
        assert!(reader.next().await.is_none());
    }
    let refused = fixture.lane.subscribe(&CALLER, after(&old)).await;
    assert!(matches!(refused, Err(FeedError::EpochChanged)));

    let mut anew = fixture.subscribe(Subscription::default()).await;
    assert!(matches!(next(&mut anew).await.1, Response::Opened(_)));
    assert!(matches!(next(&mut anew).await.1, Response::CaughtUp(_)));
    fixture.push(0, "bob");
    let (_, response) = next_news(&mut anew).await;
    let Response::Batch(batch) = response else { panic!("{response:?}") };
    assert_eq!(offsets(&batch), [0]);
}

fn asks_for(start: Start) -> Subscription {
    Subscription { start: Some(start), ..Default::default() }
}

fn at_time(millis: i64) -> Start {
    Start::StartTime(Timestamp::from_millis(millis).into())
}

/// The partitions and offsets of the next batch.
async fn places(reader: &mut Reader) -> Vec<(i32, i64)> {
    loop {
        if let (_, Response::Batch(batch)) = next_news(reader).await {
            return batch.events.iter().map(|event| (event.partition, event.offset)).collect();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_time_begins_at_the_first_event_of_that_time_in_each_partition() {
    let fixture = Fixture::new(2, 1 << 20);
    // The log's clock ticks with each record of a partition: times 1 to 4, and 1.
    for partition in [0, 0, 1, 0, 0] {
        fixture.push(partition, "alice");
    }
    for (time, mut expected) in [
        (0, vec![(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]),
        (1, vec![(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]),
        (2, vec![(0, 1), (0, 2), (0, 3)]),
        (4, vec![(0, 3)]),
    ] {
        let mut reader = fixture.subscribe(asks_for(at_time(time))).await;
        let mut found = places(&mut reader).await;
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "from {time} on");
    }
    // Between two milliseconds, the next one.
    let time = prost_types::Timestamp { seconds: 0, nanos: 3_000_001 };
    let mut reader = fixture.subscribe(asks_for(Start::StartTime(time))).await;
    assert_eq!(places(&mut reader).await, [(0, 3)]);
    // Where there is none: what comes from now on.
    let mut reader = fixture.subscribe(asks_for(at_time(9000))).await;
    fixture.push(1, "bob");
    assert_eq!(places(&mut reader).await, [(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_cursor_fails_or_goes_on_as_it_was_asked_to() {
    let fixture = Fixture::new(2, 1 << 20);
    let mut reader = fixture.subscribe(earliest()).await;
    let (cursor, _) = next(&mut reader).await;
    for offset in 0..5 {
        fixture.push(0, if offset < 3 { "old" } else { "new" });
    }
    fixture.push(1, "alice");
    fixture.tail_at_end().await;
    fixture.log.trim(0, 3);

    let refused = fixture.lane.subscribe(&CALLER, after(&cursor)).await;
    let Err(FeedError::CursorExpired(valid)) = refused else { panic!("it is expired") };
    fixture.subscribe(after(&valid.earliest)).await;

    let with = |policy: proto::ExpiredCursorPolicy| Subscription {
        expired_cursor_policy: policy.into(),
        ..after(&cursor)
    };
    let mut reader = fixture.subscribe(with(proto::ExpiredCursorPolicy::Earliest)).await;
    let Response::Opened(opened) = next(&mut reader).await.1 else { panic!("it is opened first") };
    let offset = |partition, offset| proto::PartitionOffset { partition, offset };
    assert_eq!(opened.start_offsets, [offset(0, 3), offset(1, 0)]);
    let (behind, Response::Gap(gap)) = next(&mut reader).await else { panic!("then the gap") };
    assert_eq!(
        (gap.reason(), gap.partition, gap.missed_records),
        (proto::GapReason::Retention, 0, 3)
    );
    let mut found = places(&mut reader).await;
    found.sort_unstable();
    assert_eq!(found, [(0, 3), (0, 4), (1, 0)]);
    fixture.subscribe(after(&behind)).await;

    let mut reader = fixture.subscribe(with(proto::ExpiredCursorPolicy::Latest)).await;
    next(&mut reader).await;
    let mut missed = Vec::new();
    for _ in 0..2 {
        let Response::Gap(gap) = next(&mut reader).await.1 else { panic!("one a partition") };
        assert_eq!(gap.reason(), proto::GapReason::Skipped);
        missed.push((gap.partition, gap.missed_records));
    }
    assert_eq!(missed, [(0, 5), (1, 1)]);
    fixture.push(1, "bob");
    assert_eq!(places(&mut reader).await, [(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_closed_for_its_age_and_can_be_resumed() {
    let fixture = Fixture::new(1, 1 << 20);
    let mut reader = fixture.subscribe(Subscription::default()).await;
    let begun = Instant::now();
    let closing = loop {
        if let (cursor, Response::Closing(closing)) = next(&mut reader).await {
            break (cursor, closing);
        }
    };
    let hour = Duration::from_secs(3600);
    assert!((hour * 9 / 10..=hour * 11 / 10).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(closing.1.reason(), proto::ClosingReason::MaxAge);
    assert!(closing.1.resumable);
    assert!(reader.next().await.is_none(), "nothing follows");
    fixture.subscribe(after(&closing.0)).await;
}

fn poll(cursor: Option<&str>, seconds: i64) -> proto::PollEventsRequest {
    use proto::poll_events_request::Start;
    proto::PollEventsRequest {
        start: Some(match cursor {
            Some(cursor) => Start::AfterCursor(cursor.to_owned()),
            None => Start::StartPosition(proto::StartPosition::Earliest.into()),
        }),
        max_wait: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn polls_give_each_event_once_and_each_gap() {
    let fixture = Fixture::new(2, 1 << 20);
    for i in 0..600 {
        fixture.push(i % 2, "alice");
    }
    fixture.log.push(0, b"\xff garbage".to_vec());
    fixture.push(0, "bob");
    let (mut seen, mut gaps, mut cursor) = (Vec::new(), 0, None::<String>);
    loop {
        let answer =
            fixture.lane.poll(&CALLER, poll(cursor.as_deref(), 0), None).await.unwrap().read();
        seen.extend(answer.events.iter().map(|event| (event.partition, event.offset)));
        gaps += usize::from(answer.gap.is_some());
        cursor = Some(answer.cursor);
        if answer.caught_up && answer.events.is_empty() && answer.gap.is_none() {
            break;
        }
    }
    seen.sort_unstable();
    let mut all: Vec<_> = (0..600).map(|i| (i % 2, i64::from(i / 2))).collect();
    all.push((0, 301));
    all.sort_unstable();
    assert_eq!((seen, gaps), (all, 1));
}

#[tokio::test(start_paused = true)]
async fn a_poll_waits_as_long_as_it_was_told_and_for_no_longer_than_an_event() {
    let fixture = Fixture::new(1, 1 << 20);
    let begun = Instant::now();
    let answer = fixture.lane.poll(&CALLER, poll(None, 7), None).await.unwrap().read();
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
    assert!(answer.events.is_empty() && answer.caught_up);

    let begun = Instant::now();
    let (answer, ()) =
        tokio::join!(fixture.lane.poll(&CALLER, poll(Some(&answer.cursor), 7), None), async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            fixture.push(0, "alice");
        });
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    assert_eq!(answer.unwrap().events.len(), 1);

    // The caller's own deadline comes first.
    let begun = Instant::now();
    let by = begun + Duration::from_secs(1);
    let latest = proto::PollEventsRequest { start: None, ..poll(None, 7) };
    let answer = fixture.lane.poll(&CALLER, latest, Some(by)).await.unwrap().read();
    assert_eq!((begun.elapsed(), answer.events.len()), (Duration::from_secs(1), 0));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_all_at_once() {
    let fixture = Fixture::new(1, 1 << 20);
    let request = proto::PollEventsRequest {
        max_wait: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        max_events: -1,
        ..Default::default()
    };
    let Err(FeedError::Invalid(violations)) = fixture.lane.poll(&CALLER, request, None).await
    else {
        panic!("it is wrong")
    };
    assert_eq!(violations.into_vec().len(), 2);
    let wrong = Subscription {
        expired_cursor_policy: 99,
        start: Some(Start::StartTime(prost_types::Timestamp { seconds: 0, nanos: -1 })),
        ..Default::default()
    };
    let Err(FeedError::Invalid(violations)) = fixture.lane.subscribe(&CALLER, wrong).await else {
        panic!("it is wrong")
    };
    assert_eq!(violations.into_vec().len(), 2);
}
