//! The feed for those who cannot hold a stream: one reader, asked once.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::reader::{MAX_BATCH_EVENTS, Reader};
use super::{FeedError, Subscription};
use crate::domain::Violations;
use crate::proto::stream_events_response::Response;
use crate::proto::{self, poll_events_request, stream_events_request};

/// How long a poll waits for an event when it does not say.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(20);

/// How long a poll waits at the most; one that asks for more gets this.
pub const LONGEST_MAX_WAIT: Duration = Duration::from_secs(60);

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
) -> Result<proto::PollEventsResponse, FeedError> {
    let longest = answer_by.unwrap_or_else(|| Instant::now() + LONGEST_MAX_WAIT);
    let mut answer = proto::PollEventsResponse::default();
    while answer.events.is_empty() && answer.gap.is_none() {
        let until = if reader.is_caught_up() { until.min(longest) } else { longest };
        let Ok(next) = timeout_at(until, reader.next()).await else {
            answer.cursor = reader.cursor();
            break;
        };
        let Some(message) = next.transpose()? else { break };
        answer.cursor = message.cursor;
        match message.response {
            Some(Response::Batch(batch)) => answer.events = batch.events,
            Some(Response::Gap(gap)) => answer.gap = Some(gap),
            _ => {}
        }
    }
    answer.caught_up = reader.is_caught_up();
    Ok(answer)
}
