//! Live readers, over a ring that is filled by hand: what is in one batch, and when it comes,
//! decides how it is handed out.

use super::super::batch::Batch;
use super::super::place::Place;
use super::*;
use crate::event_log::{ReadBatch, Record};

/// A feed whose tail is the test.
struct Ring {
    fixture: Fixture,
    end: Arc<Place>,
}

impl Ring {
    /// Begins with an empty ring behind so many records of the log's one partition.
    fn begin(fixture: Fixture, offset: u64) -> Self {
        let end = Place::new(fixture.log.id(), vec![offset].into(), Timestamp::default());
        let this = Self { fixture, end: Arc::new(end) };
        this.restart();
        this
    }

    fn new() -> Self {
        Self::begin(Fixture::idle(1, 1 << 20), 0)
    }

    fn restart(&self) {
        self.fixture.feed.shared.hub.restart(Arc::clone(&self.end));
    }

    fn write(&self, event: &proto::GameEvent) -> Record {
        let value = event.encode_to_vec();
        let appended = self.fixture.log.push(0, value.clone());
        let (offset, append_time) = (appended.offset, appended.append_time);
        Record { partition: 0, offset, append_time, key: None, value: value.into() }
    }

    /// Publishes records that follow on what was published before.
    fn publish(&mut self, records: Vec<Record>) {
        let position = vec![records.last().unwrap().offset + 1].into();
        let read = ReadBatch { records, trimmed: Vec::new(), position };
        let batch = Batch::new(Arc::clone(&self.end), read.into());
        self.end = Arc::clone(&batch.after);
        self.fixture.feed.shared.hub.publish(batch);
    }

    /// Writes events and publishes them as one batch.
    fn add(&mut self, events: &[proto::GameEvent]) {
        let records = events.iter().map(|event| self.write(event)).collect();
        self.publish(records);
    }

    /// A stream that has caught up and waits.
    async fn live(&self, subscription: Subscription) -> Reader {
        let mut reader = self.fixture.subscribe(subscription).await;
        assert!(matches!(next(&mut reader).await.1, Response::Opened(_)));
        assert!(matches!(next(&mut reader).await.1, Response::CaughtUp(_)));
        assert!(futures_util::poll!(std::pin::pin!(reader.next())).is_pending());
        reader
    }
}

fn event(player: &str) -> proto::GameEvent {
    proto::GameEvent {
        event_id: "an id".into(),
        // No duplicate of any other.
        checked_through_offset: i64::MAX,
        event_type: "session_started".into(),
        player_id: player.into(),
        ..Default::default()
    }
}

fn of_player(player: &str) -> Subscription {
    let filter = proto::EventFilter { player_ids: vec![player.into()], ..Default::default() };
    Subscription { filter: Some(filter), ..Default::default() }
}

fn place(cursor: &str) -> Position {
    Cursor::decode(cursor).unwrap().position
}

/// Lets the relay run.
async fn handed_out() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_ahead_of_the_tail_gets_of_a_batch_what_is_new() {
    for subscription in [Subscription::default(), of_player("alice")] {
        let mut ring = Ring::new();
        let mut records = vec![ring.write(&event("alice")), ring.write(&event("alice"))];
        let mut reader = ring.live(subscription).await;
        records.push(ring.write(&event("alice")));
        ring.publish(records);
        let (cursor, Response::Batch(batch)) = next(&mut reader).await else { panic!("news") };
        assert_eq!((offsets(&batch), place(&cursor)), (vec![2], vec![3].into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_always_has_something_is_closed_for_its_age_too() {
    let mut ring = Ring::new();
    let mut reader = ring.live(Subscription::default()).await;
    let age = ring.fixture.feed.shared.options.max_stream_age.unwrap();
    let (begun, step) = (Instant::now(), Duration::from_secs(10));
    loop {
        ring.add(&[event("alice")]);
        handed_out().await;
        if let Response::Closing(closing) = next(&mut reader).await.1 {
            assert_eq!(closing.reason(), proto::ClosingReason::MaxAge);
            break;
        }
        assert!(begun.elapsed() <= age * 11 / 10, "it goes on and on");
        tokio::time::advance(step).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_live_is_told_at_once_that_the_server_stops() {
    for (subscription, has_more) in [
        (Subscription::default(), false),
        (Subscription::default(), true),
        (of_player("alice"), false),
        (of_player("alice"), true),
    ] {
        let mut ring = Ring::new();
        let is_filtered = subscription.filter.is_some();
        let mut reader = ring.live(subscription).await;
        if is_filtered {
            // Which the lane passes over in its stead.
            ring.add(&[event("bob")]);
            handed_out().await;
        }
        if has_more {
            ring.add(&[event("alice")]);
            handed_out().await;
        }
        let begun = Instant::now();
        let close = async { ring.fixture.feed.close() };
        let (cursor, response) = if has_more {
            close.await;
            handed_out().await;
            next(&mut reader).await
        } else {
            tokio::join!(next(&mut reader), close).0
        };
        let Response::Closing(closing) = response else { panic!("{response:?}") };
        assert_eq!(closing.reason(), proto::ClosingReason::Shutdown);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(place(&cursor), vec![u64::from(is_filtered)].into());
    }
}

#[tokio::test(start_paused = true)]
async fn origins_are_for_those_who_asked_however_an_event_comes_to_them() {
    let fixture = Fixture::idle(1, 1 << 20);
    let origin = Some(proto::Origin { request_id: "secret".into(), ..Default::default() });
    let secret = proto::GameEvent { origin, ..event("alice") };
    fixture.log.push(0, secret.encode_to_vec());
    let mut ring = Ring::begin(fixture, 1);
    let mut readers = Vec::new();
    for subscription in [Subscription::default(), of_player("alice")] {
        for include_origin in [true, false] {
            let subscription =
                Subscription { include_origin, start: earliest().start, ..subscription.clone() };
            readers.push((include_origin, ring.fixture.subscribe(subscription).await));
        }
    }
    // From the log, and twice from the ring: who comes first has the message written.
    for offset in 0..3 {
        for (include_origin, reader) in &mut readers {
            let response = loop {
                match next(reader).await.1 {
                    Response::Opened(_) | Response::CaughtUp(_) => {}
                    response => break response,
                }
            };
            let Response::Batch(batch) = response else { panic!("{response:?}") };
            assert_eq!(offsets(&batch), [offset]);
            let event = batch.events[0].event.as_ref().unwrap();
            assert_eq!(event.origin.is_some(), *include_origin, "event {offset}");
        }
        for (_, reader) in &mut readers {
            while futures_util::poll!(std::pin::pin!(reader.next())).is_ready() {}
        }
        readers.reverse();
        ring.add(std::slice::from_ref(&secret));
        handed_out().await;
    }
}

#[tokio::test(start_paused = true)]
async fn batches_that_wait_become_one_message_within_the_limits() {
    let small = vec![event("alice"); 60];
    let large = vec![proto::GameEvent { event_id: "i".repeat(9000), ..event("alice") }];
    for (events, merged) in [(small, 4), (large, 7)] {
        for subscription in [Subscription::default(), of_player("alice")] {
            let mut ring = Ring::new();
            let mut reader = ring.live(subscription).await;
            for _ in 0..20 {
                ring.add(&events);
            }
            let mut seen = Vec::new();
            while seen.len() < 20 * events.len() {
                let (cursor, response) = next(&mut reader).await;
                let Response::Batch(batch) = response else { panic!("{response:?}") };
                assert!(batch.events.len() <= MAX_BATCH_EVENTS);
                let events_in = batch.events.iter().flat_map(|event| &event.event);
                let bytes = events_in.map(prost::Message::encoded_len);
                assert!(bytes.sum::<usize>() <= MAX_BATCH_BYTES);
                seen.extend(offsets(&batch));
                assert_eq!(place(&cursor), vec![seen.len() as u64].into());
                let is_last = seen.len() == 20 * events.len();
                assert!(is_last || batch.events.len() == merged * events.len(), "not merged");
            }
            assert!(seen.into_iter().eq(0..20 * events.len() as i64));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_left_by_the_lane_goes_on_from_where_the_lane_was() {
    let mut ring = Ring::new();
    let mut reader = ring.live(of_player("alice")).await;
    for _ in 0..3 {
        ring.add(&[event("bob")]);
        handed_out().await;
    }
    ring.restart();
    handed_out().await;
    let (cursor, response) = next(&mut reader).await;
    assert!(matches!(response, Response::FellBehind(_)), "{response:?}");
    assert_eq!(place(&cursor), vec![3].into());
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_is_counted_also_when_nothing_follows() {
    let mut ring = Ring::new();
    let mut reader = ring.live(Subscription::default()).await;
    ring.add(&[event("alice"), event("bob")]);
    assert!(matches!(next(&mut reader).await.1, Response::Batch(_)));
    assert!(matches!(next(&mut reader).await.1, Response::Heartbeat(_)));
    assert_eq!(ring.fixture.feed.shared.metrics.delivered.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_comes_an_interval_after_the_last_message() {
    for subscription in [Subscription::default(), of_player("alice")] {
        let mut ring = Ring::new();
        let mut reader = ring.live(subscription).await;
        for _ in 0..3 {
            tokio::time::advance(DEFAULT_HEARTBEAT * 2 / 3).await;
            ring.add(&[event("alice")]);
            assert!(matches!(next(&mut reader).await.1, Response::Batch(_)));
        }
        let begun = Instant::now();
        let response = next(&mut reader).await.1;
        assert!(matches!(response, Response::Heartbeat(_)), "{response:?}");
        assert_eq!(begun.elapsed(), DEFAULT_HEARTBEAT);
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_much_to_pass_over_comes_to_the_end_of_it() {
    let mut ring = Ring::new();
    for _ in 0..40 {
        ring.add(&vec![event("bob"); MAX_BATCH_EVENTS]);
    }
    let subscription = Subscription { start: earliest().start, ..of_player("alice") };
    let mut reader = ring.fixture.subscribe(subscription).await;
    assert!(matches!(next(&mut reader).await.1, Response::Opened(_)));
    let begun = Instant::now();
    let response = next(&mut reader).await.1;
    assert!(matches!(response, Response::CaughtUp(_)), "{response:?}");
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_the_time_is_not_forgotten_at_a_place_of_others() {
    // The log's clock ticks with each record of a partition.
    let fixture = Fixture::idle(2, 1 << 20);
    (0..7).for_each(|_| fixture.push(0, "bob"));
    let time = |cursor: &str| Cursor::decode(cursor).unwrap().time;
    let hub = &fixture.feed.shared.hub;
    let subscription = Subscription { start: earliest().start, ..of_player("alice") };
    let mut reader = fixture.subscribe(subscription).await;
    assert!(matches!(next(&mut reader).await.1, Response::Opened(_)));
    // It reads the log, and the tail begins at its end.
    assert!(matches!(next(&mut reader).await.1, Response::CaughtUp(_)));
    let begun = Place::new(fixture.log.id(), vec![7, 0].into(), Timestamp::default());
    hub.restart(Arc::new(begun));
    assert!(matches!(next(&mut reader).await.1, Response::Heartbeat(_)));
    for is_passed_over in [true, false] {
        fixture.push(1, if is_passed_over { "bob" } else { "alice" });
        let mut log = fixture.log.open_reader(fixture.log.id(), place_of(hub)).await.unwrap();
        let read = log.next(reader::READ_LIMITS).await.unwrap();
        hub.publish(Batch::new(hub.end().unwrap(), read.into()));
        let (cursor, _) = next(&mut reader).await;
        assert_eq!(time(&cursor), Timestamp::from_millis(7), "at {cursor}");
    }
}

fn place_of(hub: &hub::Hub) -> Position {
    hub.end().unwrap().position.clone()
}
