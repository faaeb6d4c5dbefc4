//! What is written down of a feed that says what a test wants it to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use prost_types::{Any, Timestamp};

use super::*;
use crate::clock;
use crate::event_log::{Cursor, LogId};
use crate::http::status::RetryInfo;
use crate::http::{Answers, Calls, Http, Schema};
use crate::proto::stream_events_response::Response;
use crate::proto::{
    Closing, DeliveredEvent, EventBatch, GameEvent, Gap, Heartbeat, Opened, StreamEventsResponse,
};

/// Says the same to all, and counts what it was asked for.
struct Feed {
    said: Vec<Result<Bytes, Status>>,
    asked_for: Arc<AtomicUsize>,
}

impl Calls for Feed {
    fn call(&self, _: Call) -> BoxFuture<'static, Result<Bytes, Status>> {
        unreachable!("it streams")
    }

    fn stream(&self, _: Call) -> BoxFuture<'static, Result<Answers, Status>> {
        let asked_for = Arc::clone(&self.asked_for);
        let count = move |_: &_| _ = asked_for.fetch_add(1, Ordering::Relaxed);
        let answers = stream::iter(self.said.clone()).inspect(count).boxed();
        ready(Ok(answers)).boxed()
    }

    fn refused(&self, _: &str, _: &http::Extensions, status: &Status) {
        unreachable!("{}", status.message)
    }
}

/// The answer to who reads one form of a feed that says this; and what it was asked for.
async fn answer(said: Vec<Result<Bytes, Status>>, accept: &str) -> (Answer, Arc<AtomicUsize>) {
    let asked_for = Arc::default();
    let feed = Feed { said, asked_for: Arc::clone(&asked_for) };
    let http = Http::new(Schema::build(&[]).unwrap(), feed, 0);
    let request = Request::builder().uri(PATH).header("accept", accept);
    (http.serve(request.body(Full::<Bytes>::default()).unwrap()).await, asked_for)
}

async fn text(said: Vec<Result<Bytes, Status>>, accept: &str) -> String {
    let body = answer(said, accept).await.0.into_body();
    String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap()
}

fn cursor(offsets: [u64; 2]) -> String {
    let time = clock::Timestamp::from_millis(0);
    Cursor::of(LogId(uuid::Uuid::nil()), &offsets.to_vec().into(), time)
}

fn message(offsets: [u64; 2], response: Response) -> Result<Bytes, Status> {
    let cursor = cursor(offsets);
    Ok(StreamEventsResponse { cursor, response: Some(response) }.encode_to_vec().into())
}

fn event(partition: i32, offset: i64, player: &str) -> DeliveredEvent {
    let event = GameEvent { player_id: player.into(), ..Default::default() };
    DeliveredEvent { event: Some(event), partition, offset, append_time: None }
}

fn failure() -> Status {
    let delay = prost_types::Duration { seconds: 2, nanos: 0 };
    let info = RetryInfo { retry_delay: Some(delay) };
    let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
    let details = vec![Any { type_url, value: info.encode_to_vec() }];
    Status { code: 14, message: "the log is away".into(), details }
}

fn everything() -> Vec<Result<Bytes, Status>> {
    let events = vec![event(1, 7, "a"), event(0, 3, "two\nlines"), event(1, 9, "c")];
    let delay = prost_types::Duration { seconds: 1, nanos: 500_000_000 };
    vec![
        message([3, 7], Response::Opened(Opened::default())),
        message([4, 11], Response::Batch(EventBatch { events })),
        message([5, 11], Response::Heartbeat(Heartbeat { server_time: None, lag: 1 })),
        message([6, 11], Response::Batch(EventBatch { events: vec![event(0, 5, "d")] })),
        message([6, 12], Response::Gap(Gap { reason: 1, partition: 1, missed_records: 1 })),
        message(
            [6, 12],
            Response::Closing(Closing { reason: 1, reconnect_delay: Some(delay), resumable: true }),
        ),
    ]
}

#[tokio::test]
async fn server_sent_events_have_the_place_behind_each_as_their_id() {
    let text = text(everything(), "text/event-stream").await;
    let (retry, rest) = text.split_once('\n').unwrap();
    let millis = retry.strip_prefix("retry: ").unwrap().parse::<u64>().unwrap();
    assert!((500..=4500).contains(&millis), "{retry}");
    let at = cursor;
    let expected = [
        format!("event: opened\ndata: {{}}\nid: {}\n\n", at([3, 7])),
        format!(
            "data: {{\"event\":{{\"playerId\":\"a\"}},\"partition\":1,\"offset\":\"7\"}}\nid: {}\n\n",
            at([3, 8])
        ),
        format!(
            "data: {{\"event\":{{\"playerId\":\"two\\nlines\"}},\"offset\":\"3\"}}\nid: {}\n\n",
            at([4, 8])
        ),
        // Behind the whole message, which has passed over something more.
        format!(
            "data: {{\"event\":{{\"playerId\":\"c\"}},\"partition\":1,\"offset\":\"9\"}}\nid: {}\n\n",
            at([4, 11])
        ),
        format!(": heartbeat\nid: {}\n\n", at([5, 11])),
        format!(
            "data: {{\"event\":{{\"playerId\":\"d\"}},\"offset\":\"5\"}}\nid: {}\n\n",
            at([6, 11])
        ),
        format!(
            "event: gap\ndata: {{\"reason\":\"GAP_REASON_RETENTION\",\"partition\":1,\
             \"missedRecords\":\"1\"}}\nid: {}\n\n",
            at([6, 12])
        ),
        format!(
            "retry: 1500\nevent: closing\ndata: {{\"reason\":\"CLOSING_REASON_SHUTDOWN\",\
             \"reconnectDelay\":\"1.500s\",\"resumable\":true}}\nid: {}\n\n",
            at([6, 12])
        ),
    ];
    assert_eq!(rest, expected.concat());
}

#[tokio::test]
async fn lines_have_the_cursor_beside_what_they_say() {
    let text = text(everything(), "application/x-ndjson").await;
    let at = cursor;
    let expected = [
        format!("{{\"cursor\":\"{}\",\"opened\":{{}}}}\n", at([3, 7])),
        format!(
            "{{\"cursor\":\"{}\",\"event\":{{\"playerId\":\"a\"}},\"partition\":1,\"offset\":\"7\"}}\n",
            at([3, 8])
        ),
        format!(
            "{{\"cursor\":\"{}\",\"event\":{{\"playerId\":\"two\\nlines\"}},\"offset\":\"3\"}}\n",
            at([4, 8])
        ),
        format!(
            "{{\"cursor\":\"{}\",\"event\":{{\"playerId\":\"c\"}},\"partition\":1,\"offset\":\"9\"}}\n",
            at([4, 11])
        ),
        format!("{{\"cursor\":\"{}\",\"heartbeat\":{{\"lag\":\"1\"}}}}\n", at([5, 11])),
        format!(
            "{{\"cursor\":\"{}\",\"event\":{{\"playerId\":\"d\"}},\"offset\":\"5\"}}\n",
            at([6, 11])
        ),
        format!(
            "{{\"cursor\":\"{}\",\"gap\":{{\"reason\":\"GAP_REASON_RETENTION\",\"partition\":1,\
             \"missedRecords\":\"1\"}}}}\n",
            at([6, 12])
        ),
        format!(
            "{{\"cursor\":\"{}\",\"closing\":{{\"reason\":\"CLOSING_REASON_SHUTDOWN\",\
             \"reconnectDelay\":\"1.500s\",\"resumable\":true}}}}\n",
            at([6, 12])
        ),
    ];
    assert_eq!(text, expected.concat());
}

#[tokio::test]
async fn the_end_and_what_ends_it_early_are_said() {
    let opened = || message([0, 0], Response::Opened(Opened::default()));
    let said = text(vec![opened()], "text/event-stream").await;
    assert!(said.ends_with("\n\nevent: end\ndata: {}\n\n"), "{said}");
    let said = text(vec![opened()], "application/jsonl").await;
    assert_eq!(said.lines().count(), 1, "{said}");

    let problem = "{\"code\":\"unavailable\",\"detail\":\"the log is away\",\"status\":503,\
                   \"title\":\"Service Unavailable\"}";
    let said = text(vec![opened(), Err(failure())], "text/event-stream").await;
    let expected = format!("\n\nretry: 2000\nevent: problem\ndata: {problem}\n\n");
    assert!(said.ends_with(&expected), "{said}");
    let said = text(vec![opened(), Err(failure())], "application/jsonl").await;
    assert!(said.ends_with(&format!("\n{{\"error\":{problem}}}\n")), "{said}");
}

/// Somebody else wrote it. Who comes back must not come to it for ever.
#[tokio::test]
async fn an_event_for_which_json_has_no_form_is_a_gap_and_the_stream_goes_on() {
    let mut odd = event(1, 7, "a");
    odd.event.as_mut().unwrap().accept_time = Some(Timestamp { seconds: i64::MAX, nanos: 0 });
    let batch = EventBatch { events: vec![odd, event(0, 0, "b")] };
    let said = || {
        let opened = message([0, 7], Response::Opened(Opened::default()));
        vec![opened, message([1, 8], Response::Batch(batch.clone()))]
    };
    let gap = "{\"reason\":\"GAP_REASON_UNDECODABLE\",\"partition\":1,\"missedRecords\":\"1\"}";
    let (gap_at, event_at) = (cursor([0, 8]), cursor([1, 8]));
    let text_said = text(said(), "text/event-stream").await;
    let expected = format!(
        "event: gap\ndata: {gap}\nid: {gap_at}\n\n\
         data: {{\"event\":{{\"playerId\":\"b\"}}}}\nid: {event_at}\n\nevent: end\n"
    );
    assert!(text_said.contains(&expected), "{text_said}");
    let lines = text(said(), "application/jsonl").await;
    assert!(lines.contains(&format!("{{\"cursor\":\"{gap_at}\",\"gap\":{gap}}}\n")), "{lines}");
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_keeps_one_message() {
    let said = (0..50).map(|number| {
        let offsets = number * 200..(number + 1) * 200;
        let events = offsets.map(|offset| event(0, offset, &"p".repeat(100))).collect();
        message([(number as u64 + 1) * 200, 0], Response::Batch(EventBatch { events }))
    });
    let opened = message([0, 0], Response::Opened(Opened::default()));
    let said: Vec<_> = std::iter::once(opened).chain(said).collect();
    let (answer, asked_for) = answer(said, "text/event-stream").await;
    let mut body = answer.into_body();
    let mut parts = 0;
    // The first part is that it is open; the next ones are all of the first batch.
    while asked_for.load(Ordering::Relaxed) <= 2 {
        let part = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(part.len() < 16 * 1024, "{} bytes", part.len());
        parts += 1;
    }
    assert!(parts > 4, "{parts}");
}

fn asked(
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<proto::StreamEventsRequest, String> {
    let schema = Schema::build(&[]).unwrap();
    let of = schema.method(CALL).unwrap().input();
    let mut request = Request::builder().uri(format!("{PATH}?{query}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let message = fields(&of, &head).and_then(|fields| rest::message(of, &fields, &[]));
    let message = message.map_err(|status| status.message)?;
    Ok(proto::StreamEventsRequest::decode(&*message.encode_to_vec()).unwrap())
}

#[test]
fn a_query_is_a_request_and_a_browser_that_comes_back_goes_on_behind_what_it_has() {
    use proto::stream_events_request::Start;
    use proto::{EventFilter, ExpiredCursorPolicy, StartPosition, StreamEventsRequest};
    let position = |position: StartPosition| Start::StartPosition(position.into());
    let time = |seconds, nanos| Start::StartTime(Timestamp { seconds, nanos });
    let after = |cursor: &str| Start::AfterCursor(cursor.into());
    for (query, start) in [
        ("", None),
        ("start=earliest", Some(position(StartPosition::Earliest))),
        ("start=latest", Some(position(StartPosition::Latest))),
        ("start_position=Earliest", Some(position(StartPosition::Earliest))),
        ("startPosition=START_POSITION_LATEST", Some(position(StartPosition::Latest))),
        ("start=1970-01-01T00:00:09.5Z", Some(time(9, 500_000_000))),
        ("start=1970-01-01T02:00:09+02:00", Some(time(9, 0))),
        ("start=1970-01-01T02:00:09%2B02:00", Some(time(9, 0))),
        ("start_time=1970-01-01T00:00:09Z", Some(time(9, 0))),
        ("start=AbC", Some(after("AbC"))),
        ("start=", Some(after(""))),
        ("after_cursor=9", Some(after("9"))),
    ] {
        assert_eq!(asked(query, &[]).unwrap().start, start, "{query}");
        let resumed = asked(query, &[("last-event-id", "AQ")]).unwrap().start;
        assert_eq!(resumed, Some(after("AQ")), "{query}");
        assert_eq!(asked(query, &[("last-event-id", "")]).unwrap().start, start, "{query}");
    }
    let expected = StreamEventsRequest {
        start: None,
        filter: Some(EventFilter {
            event_types: vec!["a".into(), "b".into()],
            player_ids: vec!["c d".into(), "e".into()],
            guild_ids: vec!["f".into()],
        }),
        heartbeat_interval: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        max_events: 3,
        stop_when_caught_up: true,
        expired_cursor_policy: ExpiredCursorPolicy::Latest.into(),
        include_origin: true,
    };
    for query in [
        "type=a&type=b&player=c+d&filter.player_ids=e&guild=f&heartbeat_interval=5s&max_events=3\
         &stop_when_caught_up=true&expired_cursor_policy=latest&include_origin=true",
        "filter.eventTypes=a&type=b&player=c%20d&player=e&filter.guildIds=f&heartbeatInterval=5s\
         &maxEvents=3&stopWhenCaughtUp=true\
         &expiredCursorPolicy=EXPIRED_CURSOR_POLICY_LATEST&includeOrigin=true",
    ] {
        assert_eq!(asked(query, &[]).unwrap(), expected);
    }
}

#[test]
fn what_is_wrong_in_a_query_is_named() {
    for (query, says) in [
        ("since=earliest", "since: there is no such field"),
        ("filter.type=a", "filter.type: there is no such field"),
        ("type=%ff", "type: the value is not UTF-8"),
        ("start=2026-13-01T00:00:00Z", "start: write earliest, latest, a cursor, or a time"),
        ("start=15m", "start: write earliest"),
        ("start_position=first", "start_position: "),
        ("max_events=many", "max_events: invalid digit"),
        ("max_events=1&maxEvents=2", "maxEvents: is given twice"),
        ("start=earliest&after_cursor=A", "multiple fields provided for oneof 'start'"),
        ("expired_cursor_policy=never", "expired_cursor_policy: "),
        ("heartbeat_interval=5", "heartbeat_interval: "),
    ] {
        let message = asked(query, &[]).unwrap_err();
        assert!(message.contains(says), "{query}: {message}");
    }
    let message = asked("", &[("last-event-id", "é")]).unwrap_err();
    assert!(message.contains("last-event-id: is no cursor"), "{message}");
}
