//! What the feed promises to subscribers.

use std::collections::{BTreeMap, HashMap};

use herald::proto::stream_events_response::Response;
use herald::proto::{
    ClosingReason, DeliveredEvent, EventFilter, ExpiredCursorPolicy, GapReason, GetFeedRequest,
    JoinGuildRequest, PollEventsRequest, StartPosition, StreamEventsRequest, StreamEventsResponse,
    poll_events_request, stream_events_request,
};
use tonic::{Code, Streaming};

use crate::harness::{EARLIEST, TestServer, after, events_of, next_events, purchase, reason, rest};

/// Far more than anything here takes: what takes longer hangs.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

async fn buy(server: &TestServer, players: usize, rounds: usize) {
    let mut game = server.game().await;
    for _ in 0..rounds {
        for player in 0..players {
            game.purchase_item(purchase(&format!("player-{player}"), "sword")).await.unwrap();
        }
    }
}

fn places(events: &[DeliveredEvent]) -> Vec<(i32, i64)> {
    events.iter().map(|event| (event.partition, event.offset)).collect()
}

/// Each partition's offsets must be 0, 1, 2, …: nothing missing, nothing twice, in
/// order.
fn assert_whole(events: &[DeliveredEvent], expected: usize) {
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    for (partition, offset) in places(events) {
        let next = next.entry(partition).or_default();
        assert_eq!(offset, *next, "in partition {partition}");
        *next += 1;
    }
    assert_eq!(events.len(), expected);
}

async fn message(stream: &mut Streaming<StreamEventsResponse>) -> StreamEventsResponse {
    stream.message().await.unwrap().expect("the stream must go on")
}

#[tokio::test]
async fn an_empty_request_is_a_live_tail() {
    let server = TestServer::start(&[]).await;
    buy(&server, 1, 3).await;
    let mut feed = server.feed().await;
    let mut stream = feed.stream_events(StreamEventsRequest::default()).await.unwrap().into_inner();
    let opened = message(&mut stream).await;
    let Some(Response::Opened(start)) = &opened.response else { panic!("{opened:?}") };
    assert_eq!(start.start_offsets[0].offset, 3);
    let caught_up = message(&mut stream).await;
    assert!(matches!(caught_up.response, Some(Response::CaughtUp(_))), "{caught_up:?}");
    server.game().await.purchase_item(purchase("alice", "horse")).await.unwrap();
    let (cursor, events) = next_events(&mut stream).await;
    assert_eq!(places(&events), [(0, 3)]);
    assert!(events[0].append_time.is_some());
    assert!([&opened.cursor, &caught_up.cursor, &cursor].iter().all(|cursor| !cursor.is_empty()));
}

#[tokio::test]
async fn whatever_is_acknowledged_after_opened_is_delivered() {
    let server = TestServer::start(&["--key-partitions=4"]).await;
    for _ in 0..20 {
        let mut feed = server.feed().await;
        let mut stream =
            feed.stream_events(StreamEventsRequest::default()).await.unwrap().into_inner();
        message(&mut stream).await;
        let bought = server.game().await.purchase_item(purchase("alice", "sword")).await.unwrap();
        let receipt = bought.into_inner().receipt.unwrap();
        let (_, events) = next_events(&mut stream).await;
        assert_eq!(events[0].event.as_ref().unwrap().event_id, receipt.event_id);
    }
}

#[tokio::test]
async fn a_replay_gives_everything_once_and_says_when_it_is_done() {
    let server = TestServer::start(&["--key-partitions=5"]).await;
    buy(&server, 20, 10).await;
    let request =
        StreamEventsRequest { start: EARLIEST, stop_when_caught_up: true, ..Default::default() };
    let stream = server.feed().await.stream_events(request).await.unwrap().into_inner();
    let messages = rest(stream).await.expect("it did what was asked, so it ends with OK");
    let Some(Response::CaughtUp(caught_up)) = &messages.last().unwrap().response else {
        panic!("{:?}", messages.last())
    };
    let ends: Vec<_> = caught_up.end_offsets.iter().map(|end| end.offset).collect();
    assert_eq!(ends, server.end_offsets().await);
    assert_whole(&events_of(messages), 200);
}

#[tokio::test]
async fn max_events_ends_with_ok_and_its_cursor_goes_on_exactly() {
    let server = TestServer::start(&["--key-partitions=3"]).await;
    buy(&server, 7, 10).await;
    let mut all = Vec::new();
    let mut start = EARLIEST;
    // Different sizes, so that the cuts fall everywhere in batches.
    for max in (1..).take_while(|max| max * (max - 1) / 2 < 70) {
        let request =
            StreamEventsRequest { start: start.clone(), max_events: max, ..Default::default() };
        let request = StreamEventsRequest { stop_when_caught_up: true, ..request };
        let stream = server.feed().await.stream_events(request).await.unwrap().into_inner();
        let messages = rest(stream).await.unwrap();
        start = after(&messages.last().unwrap().cursor);
        let events = events_of(messages);
        assert!(events.len() as i64 <= max);
        all.extend(events);
    }
    assert_whole(&all, 70);
}

#[tokio::test]
async fn every_message_is_a_place_to_resume_from() {
    let server = TestServer::start(&["--key-partitions=3"]).await;
    buy(&server, 9, 10).await;
    let mut game = server.game().await;
    let join = JoinGuildRequest {
        player_id: "player-1".into(),
        guild_id: "mascots".into(),
        ..Default::default()
    };
    game.join_guild(join).await.unwrap();
    let filter = EventFilter { event_types: vec!["item_purchased".into()], ..Default::default() };
    let request = |start| StreamEventsRequest {
        start,
        filter: Some(filter.clone()),
        stop_when_caught_up: true,
        ..Default::default()
    };
    let stream = server.feed().await.stream_events(request(EARLIEST)).await.unwrap().into_inner();
    let messages = rest(stream).await.unwrap();
    let mut seen = 0;
    for message in messages {
        if let Some(Response::Batch(batch)) = &message.response {
            seen += batch.events.len();
        }
        let later = server.events_with(request(after(&message.cursor))).await;
        assert_eq!(later.len(), 90 - seen);
    }
}

#[tokio::test]
async fn filters_are_or_within_a_field_and_and_across() {
    let server = TestServer::start(&[]).await;
    let mut game = server.game().await;
    for (player, guild) in [("alice", "mascots"), ("bob", "mascots"), ("carol", "others")] {
        game.purchase_item(purchase(player, "sword")).await.unwrap();
        let join = JoinGuildRequest {
            player_id: player.into(),
            guild_id: guild.into(),
            ..Default::default()
        };
        game.join_guild(join).await.unwrap();
    }
    let offsets = async |types: &[&str], players: &[&str], guilds: &[&str]| {
        let strings = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect();
        let filter = EventFilter {
            event_types: strings(types),
            player_ids: strings(players),
            guild_ids: strings(guilds),
        };
        let request = StreamEventsRequest { filter: Some(filter), ..Default::default() };
        let events = server.events_with(request).await;
        events.iter().map(|event| event.offset).collect::<Vec<_>>()
    };
    assert_eq!(offsets(&["item_purchased"], &[], &[]).await, [0, 2, 4]);
    assert_eq!(offsets(&["item_purchased", "guild_joined"], &["bob"], &[]).await, [2, 3]);
    assert_eq!(offsets(&[], &["alice", "carol"], &[]).await, [0, 1, 4, 5]);
    assert_eq!(offsets(&[], &[], &["mascots"]).await, [1, 3]);
    assert_eq!(offsets(&[], &["carol"], &["mascots", "others"]).await, [5]);
    assert_eq!(offsets(&["item_purchased"], &[], &["mascots"]).await, [0; 0]);
}

#[tokio::test]
async fn many_subscribers_see_the_same_while_events_pour_in() {
    let server = TestServer::start(&["--key-partitions=3", "--worker-threads=2"]).await;
    buy(&server, 5, 4).await;
    let subscribers: Vec<_> = futures_util::future::join_all((0..16).map(|i| {
        let server = &server;
        async move {
            let request = StreamEventsRequest {
                start: EARLIEST,
                max_events: 220,
                include_origin: i % 2 == 0,
                ..Default::default()
            };
            server.feed().await.stream_events(request).await.unwrap().into_inner()
        }
    }))
    .await;
    let (_, all) = tokio::join!(
        buy(&server, 20, 10),
        futures_util::future::join_all(subscribers.into_iter().map(rest))
    );
    for messages in all {
        assert_whole(&events_of(messages.unwrap()), 220);
    }
}

#[tokio::test]
async fn a_ring_that_is_too_small_costs_no_event() {
    // A few events long: readers fall out of it all the time.
    let server = TestServer::start(&["--feed-ring-bytes=2KiB", "--key-partitions=2"]).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let request = StreamEventsRequest { max_events: 300, ..Default::default() };
        let mut feed = server.feed().await;
        let mut stream = feed.stream_events(request).await.unwrap().into_inner();
        // The start is fixed before anything is written.
        message(&mut stream).await;
        streams.push(stream);
    }
    buy(&server, 10, 30).await;
    for stream in streams {
        assert_whole(&events_of(rest(stream).await.unwrap()), 300);
    }
}

#[tokio::test]
async fn a_stop_tells_subscribers_and_they_can_resume() {
    let server = TestServer::start(&[]).await;
    buy(&server, 1, 1).await;
    let mut stream = server
        .feed()
        .await
        .stream_events(StreamEventsRequest { start: EARLIEST, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    let (_, events) = next_events(&mut stream).await;
    assert_eq!(events.len(), 1);
    let (stopped, messages) = tokio::join!(server.stop(), rest(stream));
    let (result, ..) = stopped;
    result.unwrap();
    let messages = messages.expect("a stream that is closed in order ends with OK");
    let Some(Response::Closing(closing)) = &messages.last().unwrap().response else {
        panic!("{messages:?}")
    };
    assert_eq!(closing.reason(), ClosingReason::Shutdown);
    assert!(closing.resumable);
    assert!(closing.reconnect_delay.is_some());
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_holds_up_neither_stop_nor_flush() {
    let server = TestServer::start(&["--stop-timeout=2s"]).await;
    buy(&server, 10, 200).await;
    // A window so small that the replay fills it.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address));
    let channel = channel.unwrap().initial_stream_window_size(1_000).connect().await.unwrap();
    let mut feed =
        herald::client::stubs::event_feed_service_client::EventFeedServiceClient::new(channel);
    let request = StreamEventsRequest { start: EARLIEST, ..Default::default() };
    let unread = feed.stream_events(request).await.unwrap();
    let (result, ..) = server.stop().await;
    result.expect("the log is flushed all the same");
    drop(unread);
}

#[tokio::test]
async fn the_deadline_of_a_stream_ends_it_with_a_reason() {
    let server = TestServer::start(&[]).await;
    let mut request = tonic::Request::new(StreamEventsRequest::default());
    // Sent as a header alone, so that the client's own timer does not come first.
    request.metadata_mut().insert("grpc-timeout", "200m".parse().unwrap());
    // It may come while the stream is being opened.
    let status = match server.feed().await.stream_events(request).await {
        Ok(stream) => rest(stream.into_inner()).await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::DeadlineExceeded, "STREAM_DEADLINE")
    );
}

#[tokio::test]
async fn what_retention_has_removed_is_told_with_cursors_that_are_good() {
    let server = TestServer::start(&["--retention-age=1ms"]).await;
    let mut feed = server.feed().await;
    let oldest = feed.get_feed(GetFeedRequest {}).await.unwrap().into_inner().earliest_cursor;
    // Each write gives retention something older to remove.
    let mut game = server.game().await;
    let trimmed = async {
        loop {
            game.purchase_item(purchase("alice", "sword")).await.unwrap();
            let bounds = feed.get_feed(GetFeedRequest {}).await.unwrap().into_inner();
            if bounds.partitions[0].start_offset > 0 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, trimmed).await.expect("retention must remove something");
    let request = StreamEventsRequest { start: after(&oldest), ..Default::default() };
    let status = feed.stream_events(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::OutOfRange, "CURSOR_EXPIRED"));
    let metadata: HashMap<String, String> = {
        use tonic_types::StatusExt as _;
        status.get_error_details().error_info().unwrap().metadata.clone()
    };
    // Nothing was written since, so nothing is behind the latest one for retention to
    // take away.
    let start = after(&metadata["latest_cursor"]);
    feed.stream_events(StreamEventsRequest { start, ..Default::default() }).await.unwrap();
    // The earliest one may itself have expired by now, but it is a cursor of this feed.
    let start = after(&metadata["earliest_cursor"]);
    // Who would rather go on is told what is missing.
    let request = StreamEventsRequest {
        start: after(&oldest),
        expired_cursor_policy: ExpiredCursorPolicy::Latest.into(),
        ..Default::default()
    };
    let mut stream = feed.stream_events(request).await.unwrap().into_inner();
    let opened = message(&mut stream).await;
    assert!(matches!(opened.response, Some(Response::Opened(_))), "{opened:?}");
    let Some(Response::Gap(gap)) = message(&mut stream).await.response else {
        panic!("the gap comes next")
    };
    assert_eq!(gap.reason(), GapReason::Skipped);
    assert!(gap.missed_records > 0, "{gap:?}");
    match feed.stream_events(StreamEventsRequest { start, ..Default::default() }).await {
        Ok(_) => {}
        Err(status) => assert_eq!(reason(&status), "CURSOR_EXPIRED"),
    }
}

#[tokio::test]
async fn polls_page_through_the_feed_and_wait_for_what_comes() {
    let server = TestServer::start(&["--key-partitions=3"]).await;
    buy(&server, 10, 60).await;
    let mut feed = server.feed().await;
    let mut request = PollEventsRequest {
        start: Some(poll_events_request::Start::StartPosition(StartPosition::Earliest.into())),
        max_wait: Some(prost_types::Duration::default()),
        max_events: 100,
        ..Default::default()
    };
    let mut events = Vec::new();
    loop {
        let answer = feed.poll_events(request.clone()).await.unwrap().into_inner();
        assert!(answer.events.len() <= 100);
        let is_all = answer.caught_up && answer.events.is_empty();
        events.extend(answer.events);
        request.start = Some(poll_events_request::Start::AfterCursor(answer.cursor));
        if is_all {
            break;
        }
    }
    assert_whole(&events, 600);

    // One that waits is answered by the event that it waits for.
    request.max_wait = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let mut waiting = feed.clone();
    let (answer, ()) = tokio::join!(waiting.poll_events(request.clone()), buy(&server, 1, 1));
    assert_eq!(answer.unwrap().into_inner().events.len(), 1);

    request.max_events = -1;
    let status = feed.poll_events(request).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::InvalidArgument, "VALIDATION_FAILED"));
}

#[tokio::test]
async fn a_start_time_is_the_append_time_of_the_first_event() {
    let server = TestServer::start(&["--key-partitions=3"]).await;
    buy(&server, 10, 3).await;
    let mut feed = server.feed().await;
    let request =
        StreamEventsRequest { start: EARLIEST, stop_when_caught_up: true, ..Default::default() };
    let all =
        events_of(rest(feed.stream_events(request).await.unwrap().into_inner()).await.unwrap());
    let time = |event: &DeliveredEvent| {
        let time = event.append_time.unwrap();
        (time.seconds, time.nanos)
    };
    let mut times: Vec<_> = all.iter().map(time).collect();
    times.sort_unstable();
    let from = times[times.len() / 2];
    let request = StreamEventsRequest {
        start: Some(stream_events_request::Start::StartTime(prost_types::Timestamp {
            seconds: from.0,
            nanos: from.1,
        })),
        stop_when_caught_up: true,
        ..Default::default()
    };
    let found =
        events_of(rest(feed.stream_events(request).await.unwrap().into_inner()).await.unwrap());
    let mut expected: Vec<_> = all.iter().filter(|event| time(event) >= from).cloned().collect();
    let mut found = found;
    let place = |event: &DeliveredEvent| (event.partition, event.offset);
    expected.sort_unstable_by_key(place);
    found.sort_unstable_by_key(place);
    assert_eq!(places(&found), places(&expected));
}

#[tokio::test]
async fn an_old_stream_is_closed_and_says_that_it_can_be_resumed_at_once() {
    let server = TestServer::start(&["--max-stream-age=1s"]).await;
    let mut feed = server.feed().await;
    let stream = feed.stream_events(StreamEventsRequest::default()).await.unwrap().into_inner();
    let messages = tokio::time::timeout(PATIENCE, rest(stream)).await.unwrap().unwrap();
    let last = messages.last().expect("it was opened");
    let Some(Response::Closing(closing)) = &last.response else { panic!("{last:?}") };
    assert_eq!(closing.reason(), ClosingReason::MaxAge);
    assert!(closing.resumable);
    assert_eq!(closing.reconnect_delay, Some(prost_types::Duration::default()));
    let request = StreamEventsRequest { start: after(&last.cursor), ..Default::default() };
    feed.stream_events(request).await.unwrap();
}
