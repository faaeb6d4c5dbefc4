//! Streams one after the other as if they were one.
//!
//! [`Resumed`] keeps the newest cursor, and when a stream breaks, falls silent or
//! is closed by the server, it opens another one behind that cursor. A message is
//! taken whole, with its cursor, or not at all; so each comes once. It gives up
//! only on errors that trying again cannot help.

use std::future::Future;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Streaming};

use super::backoff::{Backoff, LONGEST_ASKED};
use super::{Client, ClientError};
use crate::proto::stream_events_request::Start;
use crate::proto::stream_events_response::Response;
use crate::proto::{StreamEventsRequest, StreamEventsResponse};

/// The heartbeat interval of a request that names none; the server's default.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(15);

/// The server brings heartbeat intervals into this range.
const HEARTBEAT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A stream is taken for dead after so many heartbeat intervals without a
/// message: one may be late, two may be lost to a hiccup of the network.
pub const SILENT_INTERVALS: u32 = 3;

/// Where streams come from: a [`Client`], or a test.
pub trait Source {
    /// One stream.
    type Stream: Stream<Item = Result<StreamEventsResponse, ClientError>> + Send + Unpin;

    /// Opens a stream.
    fn open(
        &mut self,
        request: StreamEventsRequest,
    ) -> impl Future<Output = Result<Self::Stream, ClientError>> + Send;
}

/// The stream of a [`Client`].
pub type ClientStream = futures_util::stream::Map<
    Streaming<StreamEventsResponse>,
    fn(Result<StreamEventsResponse, tonic::Status>) -> Result<StreamEventsResponse, ClientError>,
>;

impl Source for Client {
    type Stream = ClientStream;

    async fn open(&mut self, request: StreamEventsRequest) -> Result<ClientStream, ClientError> {
        Ok(self.stream_events(request).await?.map(|answer| answer.map_err(ClientError::from)))
    }
}

/// What comes from the streams.
#[derive(Clone, Debug)]
pub enum Told {
    /// The server said this; nothing when this build does not know what it said. The
    /// cursor is behind it already.
    Message(Option<Response>),
    /// The stream is over; the next one is opened after a while.
    Reconnecting {
        /// How long that will be.
        delay: Duration,
        /// Why the stream is over.
        cause: Cause,
    },
}

/// Why a stream is over although the tail is not.
#[derive(Clone, Debug)]
pub enum Cause {
    /// It failed, or could not be opened.
    Failed(ClientError),
    /// Nothing came for so long.
    Silent(Duration),
    /// The server ended it.
    Closed,
}

/// The streams that together answer one request.
#[derive(Debug)]
pub struct Resumed<S: Source> {
    source: S,
    request: StreamEventsRequest,
    cursor: Option<String>,
    /// What is left of `max_events`; none when there is no end.
    left: Option<i64>,
    caught_up: bool,
    patience: Duration,
    backoff: Backoff,
    state: State<S::Stream>,
}

#[derive(Debug)]
enum State<T> {
    Waiting(Instant),
    Reading(T),
    /// An error still to be told.
    Failed(ClientError),
    Ended,
}

impl<S: Source> Resumed<S> {
    /// What `request` asks for. Nothing is opened before the first
    /// [`Resumed::next`].
    pub fn new(source: S, request: StreamEventsRequest) -> Self {
        let interval = request
            .heartbeat_interval
            .and_then(|interval| Duration::try_from(interval).ok())
            .unwrap_or(DEFAULT_HEARTBEAT)
            .clamp(HEARTBEAT_RANGE.0, HEARTBEAT_RANGE.1);
        Self {
            source,
            cursor: match &request.start {
                Some(Start::AfterCursor(cursor)) => Some(cursor.clone()),
                _ => None,
            },
            left: (request.max_events > 0).then_some(request.max_events),
            request,
            caught_up: false,
            patience: interval * SILENT_INTERVALS,
            backoff: Backoff::default(),
            state: State::Waiting(Instant::now()),
        }
    }

    /// Behind everything told so far. None before
    /// the first message, unless the request had one.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// What comes next; none once everything asked for has come. After an error
    /// there is nothing more.
    pub async fn next(&mut self) -> Option<Result<Told, ClientError>> {
        loop {
            match &mut self.state {
                State::Ended => return None,
                State::Failed(error) => {
                    let error = error.clone();
                    self.state = State::Ended;
                    return Some(Err(error));
                }
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    let request = self.next_request();
                    match timeout(self.patience, self.source.open(request)).await {
                        Ok(Ok(stream)) => self.state = State::Reading(stream),
                        Ok(Err(error)) => return self.broken(Cause::Failed(error)),
                        Err(_) => return self.broken(Cause::Silent(self.patience)),
                    }
                }
                State::Reading(stream) => match timeout(self.patience, stream.next()).await {
                    Ok(Some(Ok(message))) => {
                        return Some(Ok(Told::Message(self.take(message))));
                    }
                    Ok(Some(Err(error))) => return self.broken(Cause::Failed(error)),
                    Ok(None) => return self.broken(Cause::Closed),
                    Err(_) => return self.broken(Cause::Silent(self.patience)),
                },
            }
        }
    }

    /// The first request, or the one that goes on behind what has come.
    fn next_request(&self) -> StreamEventsRequest {
        let mut request = self.request.clone();
        if let Some(cursor) = &self.cursor {
            request.start = Some(Start::AfterCursor(cursor.clone()));
        }
        request.max_events = self.left.unwrap_or(0);
        request
    }

    /// Whether everything asked for has come, so that a broken stream is none.
    fn is_complete(&self) -> bool {
        // At 0 left, another request would mean "no end".
        self.left.is_some_and(|left| left <= 0)
            || (self.request.stop_when_caught_up && self.caught_up)
    }

    fn take(&mut self, message: StreamEventsResponse) -> Option<Response> {
        if !message.cursor.is_empty() {
            self.cursor = Some(message.cursor);
        }
        let response = message.response?;
        match &response {
            Response::Batch(batch) => {
                // Only now: a server that takes connections and then fails is not well.
                self.backoff.reset();
                let count = i64::try_from(batch.events.len()).unwrap_or(i64::MAX);
                self.left = self.left.map(|left| left.saturating_sub(count));
            }
            Response::CaughtUp(_) => self.caught_up = true,
            Response::FellBehind(_) => self.caught_up = false,
            Response::Closing(closing) => {
                let asked =
                    closing.reconnect_delay.and_then(|delay| Duration::try_from(delay).ok());
                self.state = if self.is_complete() {
                    State::Ended
                } else if closing.resumable {
                    State::Waiting(Instant::now() + self.closed_for(asked))
                } else {
                    State::Failed(ClientError::local(
                        Code::FailedPrecondition,
                        "the server closed the stream and its cursor cannot be used to go on",
                    ))
                };
            }
            Response::Opened(_) | Response::Heartbeat(_) | Response::Gap(_) => {}
        }
        Some(response)
    }

    /// The stream is over too early: goes on later, or gives up.
    fn broken(&mut self, cause: Cause) -> Option<Result<Told, ClientError>> {
        self.state = State::Ended;
        if self.is_complete() {
            return None;
        }
        let asked = match &cause {
            Cause::Failed(error) if !error.is_retryable() => return Some(Err(error.clone())),
            Cause::Failed(error) => error.retry_delay(),
            Cause::Silent(_) | Cause::Closed => None,
        };
        let delay = self.backoff.next_delay_after(asked);
        self.state = State::Waiting(Instant::now() + delay);
        Some(Ok(Told::Reconnecting { delay, cause }))
    }

    /// The wait after a stream that was closed in order: what the server asked for,
    /// as it spreads its readers by that; our own where it asked for nothing.
    fn closed_for(&mut self, asked: Option<Duration>) -> Duration {
        match asked {
            Some(asked) if !asked.is_zero() => asked.min(LONGEST_ASKED),
            _ => self.backoff.next_delay(),
        }
    }
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
