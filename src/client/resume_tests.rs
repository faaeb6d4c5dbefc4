//! Streams that are resumed, against a scripted server, in paused time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::stream::{self, BoxStream};

use super::*;
use crate::client::error::tests::herald;
use crate::client::reason;
use crate::client::tail::{Item, News, Tail};
use crate::proto::{
    CaughtUp, Closing, DeliveredEvent, EventBatch, Heartbeat, Opened, PartitionOffset,
};

/// What a stream does after its messages.
#[derive(Clone)]
enum End {
    Ok,
    Fails(ClientError),
    Silence,
}

/// What a stream sends, and its end.
type Stream = (Vec<StreamEventsResponse>, End);

/// Answers each request with the next script and keeps the requests and when
/// they came.
#[derive(Clone)]
struct Script {
    streams: Arc<Mutex<VecDeque<Stream>>>,
    requests: Arc<Mutex<Vec<(Duration, StreamEventsRequest)>>>,
    started: Instant,
}

impl Script {
    fn new(streams: impl IntoIterator<Item = Stream>) -> Self {
        Self {
            streams: Arc::new(Mutex::new(streams.into_iter().collect())),
            requests: Arc::default(),
            started: Instant::now(),
        }
    }

    fn requests(&self) -> Vec<(Duration, StreamEventsRequest)> {
        self.requests.lock().unwrap().clone()
    }
}

impl Source for Script {
    type Stream = BoxStream<'static, Result<StreamEventsResponse, ClientError>>;

    async fn open(&mut self, request: StreamEventsRequest) -> Result<Self::Stream, ClientError> {
        self.requests.lock().unwrap().push((self.started.elapsed(), request));
        let (messages, end) = self.streams.lock().unwrap().pop_front().expect("no more streams");
        let messages = stream::iter(messages.into_iter().map(Ok));
        Ok(match end {
            End::Ok => messages.boxed(),
            End::Fails(error) => messages.chain(stream::iter([Err(error)])).boxed(),
            End::Silence => messages.chain(stream::pending()).boxed(),
        })
    }
}

fn message(cursor: &str, response: Response) -> StreamEventsResponse {
    StreamEventsResponse { cursor: cursor.to_owned(), response: Some(response) }
}

fn opened(cursor: &str) -> StreamEventsResponse {
    message(cursor, Response::Opened(Opened::default()))
}

fn events(cursor: &str, count: usize) -> StreamEventsResponse {
    let events = vec![DeliveredEvent::default(); count];
    message(cursor, Response::Batch(EventBatch { events }))
}

fn heartbeat(cursor: &str) -> StreamEventsResponse {
    message(cursor, Response::Heartbeat(Heartbeat::default()))
}

fn closing(cursor: &str, delay: Duration, resumable: bool) -> StreamEventsResponse {
    let reconnect_delay = Some(delay.try_into().unwrap());
    message(cursor, Response::Closing(Closing { reconnect_delay, resumable, reason: 0 }))
}

fn broken() -> End {
    End::Fails(herald(Code::Unavailable, reason::LOG_UNAVAILABLE))
}

/// Reads to the end: how many events, how many reconnects, which error.
async fn read(tail: &mut Resumed<Script>) -> (usize, usize, Option<ClientError>) {
    let (mut count, mut reconnects) = (0, 0);
    while let Some(item) = tail.next().await {
        match item {
            Ok(Told::Message(Some(Response::Batch(batch)))) => count += batch.events.len(),
            Ok(Told::Message(_)) => {}
            Ok(Told::Reconnecting { .. }) => reconnects += 1,
            Err(error) => {
                assert!(tail.next().await.is_none());
                return (count, reconnects, Some(error));
            }
        }
    }
    (count, reconnects, None)
}

#[tokio::test(start_paused = true)]
async fn goes_on_behind_the_newest_cursor_with_what_is_left_of_max_events() {
    let script = Script::new([
        (vec![opened("a"), events("b", 3)], broken()),
        // A heartbeat moves the cursor over what the filter has passed.
        (vec![opened("b"), heartbeat("c")], End::Ok),
        (vec![opened("c"), events("d", 2)], End::Ok),
    ]);
    let request = StreamEventsRequest { max_events: 5, ..Default::default() };
    let mut tail = Resumed::new(script.clone(), request);
    let (count, reconnects, error) = read(&mut tail).await;
    assert_eq!((count, reconnects), (5, 2));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(tail.cursor(), Some("d"));
    let seen: Vec<_> = script
        .requests()
        .into_iter()
        .map(|(_, request)| (request.start, request.max_events))
        .collect();
    let after = |cursor: &str| Some(Start::AfterCursor(cursor.to_owned()));
    assert_eq!(seen, [(None, 5), (after("b"), 2), (after("c"), 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_behind_the_last_wanted_event_is_complete() {
    for end in [broken(), End::Silence, End::Ok] {
        let script = Script::new([(vec![opened("a"), events("b", 4)], end)]);
        let request = StreamEventsRequest { max_events: 4, ..Default::default() };
        let (count, reconnects, error) = read(&mut Resumed::new(script, request)).await;
        assert_eq!((count, reconnects), (4, 0));
        assert!(error.is_none(), "{error:?}");
    }
    let end = PartitionOffset { partition: 0, offset: 4 };
    let caught_up = message("c", Response::CaughtUp(CaughtUp { end_offsets: vec![end] }));
    let script = Script::new([(vec![opened("a"), events("b", 4), caught_up], broken())]);
    let request = StreamEventsRequest { stop_when_caught_up: true, ..Default::default() };
    assert_eq!(read(&mut Resumed::new(script, request)).await.1, 0);
}

#[tokio::test(start_paused = true)]
async fn three_silent_intervals_are_a_broken_stream() {
    let interval = Duration::from_secs(4);
    let script = Script::new([
        (vec![opened("a")], End::Silence),
        (vec![opened("a"), events("b", 1)], End::Ok),
    ]);
    let request = StreamEventsRequest {
        heartbeat_interval: Some(interval.try_into().unwrap()),
        max_events: 1,
        ..Default::default()
    };
    assert_eq!(read(&mut Resumed::new(script.clone(), request)).await.1, 1);
    let again = script.requests()[1].0;
    assert!(again >= interval * 3 && again < interval * 3 + Duration::from_secs(1), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_closing_server_says_when_to_come_back() {
    let delay = Duration::from_secs(7);
    let script = Script::new([
        (vec![opened("a"), closing("b", delay, true)], End::Silence),
        (vec![opened("b"), closing("b", Duration::ZERO, false)], End::Ok),
    ]);
    let (_, _, error) = read(&mut Resumed::new(script.clone(), Default::default())).await;
    assert_eq!(script.requests()[1].0.as_secs(), 7);
    assert_eq!(error.expect("no way to go on").code(), Code::FailedPrecondition);
}

#[tokio::test(start_paused = true)]
async fn waits_grow_until_an_event_comes_and_a_lost_position_is_final() {
    // A stream that opens, and shows that the server is there, has brought nothing yet.
    let fails = || (vec![opened("a"), heartbeat("a")], broken());
    let lost = End::Fails(herald(Code::OutOfRange, reason::CURSOR_EXPIRED));
    let script = Script::new(
        [fails(), fails(), fails(), fails(), fails(), fails()]
            .into_iter()
            .chain([(vec![opened("a"), events("b", 1)], broken()), (vec![], lost)]),
    );
    let (_, _, error) = read(&mut Resumed::new(script.clone(), Default::default())).await;
    assert_eq!(error.expect("given up").reason(), Some(reason::CURSOR_EXPIRED));
    let at: Vec<_> = script.requests().iter().map(|(at, _)| *at).collect();
    let waits: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[5] >= Duration::from_secs(4), "{waits:?}");
    assert!(waits[6] <= Duration::from_millis(260), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_just_ends_has_not_caught_up() {
    let caught_up = message("c", Response::CaughtUp(CaughtUp::default()));
    let script = Script::new([
        // As a proxy may cut it.
        (vec![opened("a"), events("b", 1)], End::Ok),
        (vec![opened("b"), events("c", 1), caught_up], End::Ok),
    ]);
    let request = StreamEventsRequest { stop_when_caught_up: true, ..Default::default() };
    let (count, reconnects, error) = read(&mut Resumed::new(script, request)).await;
    assert_eq!((count, reconnects), (2, 1));
    assert!(error.is_none(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn only_the_last_event_of_a_message_has_its_cursor() {
    let unknown = StreamEventsResponse { cursor: "d".to_owned(), response: None };
    let script = Script::new([
        (vec![opened("a"), events("b", 3)], broken()),
        (vec![opened("b"), heartbeat("c"), unknown, events("e", 1)], End::Silence),
    ]);
    let request = StreamEventsRequest { max_events: 4, ..Default::default() };
    let mut tail = Tail::over(script, request);
    let mut items = Vec::new();
    while let Some(item) = tail.next().await {
        let Item { news, cursor } = item.unwrap();
        let news = match news {
            News::Event(_) => "event",
            News::Opened => "opened",
            News::Quiet => "quiet",
            News::Reconnecting { .. } => "reconnecting",
            other => panic!("{other:?}"),
        };
        items.push((news, cursor));
    }
    let item = |news, cursor: &str| (news, (!cursor.is_empty()).then(|| cursor.to_owned()));
    assert_eq!(
        items,
        [
            item("opened", "a"),
            item("event", ""),
            item("event", ""),
            item("event", "b"),
            item("reconnecting", "b"),
            item("opened", "b"),
            item("quiet", "c"),
            item("quiet", "d"),
            item("event", "e"),
        ]
    );
    assert!(tail.next().await.is_none(), "it stays ended");
}

#[tokio::test(start_paused = true)]
async fn what_trying_again_cannot_help_ends_it_at_once() {
    for (code, reason) in [
        (Code::FailedPrecondition, reason::FEED_EPOCH_CHANGED),
        (Code::OutOfRange, reason::CURSOR_EXPIRED),
        (Code::OutOfRange, reason::CURSOR_AHEAD),
        (Code::InvalidArgument, reason::CURSOR_MALFORMED),
        (Code::InvalidArgument, reason::VALIDATION_FAILED),
        (Code::PermissionDenied, "SCOPE_DENIED"),
        (Code::DataLoss, "LOG_DAMAGED"),
    ] {
        let script = Script::new([(vec![opened("a")], End::Fails(herald(code, reason)))]);
        let (_, reconnects, error) = read(&mut Resumed::new(script, Default::default())).await;
        assert_eq!((reconnects, error.unwrap().reason()), (0, Some(reason)));
    }
}
