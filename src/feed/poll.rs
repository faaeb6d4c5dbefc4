//! The feed for those who cannot hold a stream: one reader, asked once.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::reader::{MAX_BATCH_EVENTS, Reader};
use super::{FeedError, Subscription, written};
use crate::domain::Violations;
use crate::proto::{self, poll_events_request, stream_events_request};

/// How long a poll waits for an event when it does not say.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(20);

/// How long a poll waits at the most; one that asks for more gets this.
pub const LONGEST_MAX_WAIT: Duration = Duration::from_secs(60);

/// A `PollEventsResponse` whose events are written already, as a stream would send them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PollAnswer {
    /// Behind all that was returned or passed over.
    #[prost(string, tag = "1")]
    pub cursor: String,
    /// A `DeliveredEvent` each.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub events: Vec<Bytes>,
    /// What is missing behind the events.
    #[prost(message, optional, tag = "3")]
    pub gap: Option<proto::Gap>,
    /// Everything was looked at that the log held when the call came.
    #[prost(bool, tag = "4")]
    pub caught_up: bool,
}

#[cfg(test)]
impl PollAnswer {
    /// As clients read it.
    pub(super) fn read(self) -> proto::PollEventsResponse {
        use prost::Message as _;
        proto::PollEventsResponse::decode(&self.encode_to_vec()[..]).unwrap()
    }
}

/// The subscription that a poll stands for, and how long it waits.
pub(super) fn subscription(
    request: proto::PollEventsRequest,
) -> Result<(Subscription, Duration), FeedError> {
    let mut violations = Violations::default();
    let max_wait = match request.max_wait.map(Duration::try_from) {
        None => DEFAULT_MAX_WAIT,
        Some(Ok(wait)) => wait.min(LONGEST_MAX_WAIT),
        Some(Err(_)) => {
            violations.add("max_wait", "negative or not a valid Duration");
            DEFAULT_MAX_WAIT
        }
    };
    if request.max_events < 0 {
        violations.add("max_events", format!("negative; 0 means {MAX_BATCH_EVENTS}"));
    }
    if !violations.is_empty() {
        return Err(FeedError::Invalid(violations));
    }
    use poll_events_request::Start as Asked;
    use stream_events_request::Start;
    let subscription = Subscription {
        start: request.start.map(|start| match start {
            Asked::StartPosition(position) => Start::StartPosition(position),
            Asked::AfterCursor(cursor) => Start::AfterCursor(cursor),
            Asked::StartTime(time) => Start::StartTime(time),
        }),
        filter: request.filter,
        // As rarely as may be: heartbeats are of no use here.
        heartbeat_interval: prost_types::Duration::try_from(LONGEST_MAX_WAIT).ok(),
        max_events: match i64::from(request.max_events) {
            0 => MAX_BATCH_EVENTS as i64,
            asked => asked.min(MAX_BATCH_EVENTS as i64),
        },
        stop_when_caught_up: false,
        expired_cursor_policy: request.expired_cursor_policy,
        include_origin: request.include_origin,
    };
    Ok((subscription, max_wait))
}

/// Reads until there are events or a gap, or until `until`. What the log held when it was
/// asked is looked at before that in any case, unless the caller has to be answered.
pub(super) async fn collect(
    reader: &mut Reader,
    until: Instant,
    answer_by: Option<Instant>,
) -> Result<PollAnswer, FeedError> {
    let longest = answer_by.unwrap_or_else(|| Instant::now() + LONGEST_MAX_WAIT);
    let mut answer = PollAnswer::default();
    while answer.events.is_empty() && answer.gap.is_none() {
        let until = if reader.is_caught_up() { until.min(longest) } else { longest };
        let next = poll_fn(|cx| reader.poll_message(cx));
        let Ok(next) = timeout_at(until, next).await else {
            answer.cursor = reader.cursor();
            break;
        };
        let Some(message) = next.transpose()? else { break };
        let message = written::look_into(&message).expect("it was written here");
        answer.cursor = message.cursor;
        answer.events = message.batch.map(|batch| batch.events).unwrap_or_default();
        answer.gap = message.gap;
    }
    answer.caught_up = reader.is_caught_up();
    Ok(answer)
}
