//! A tail of the feed that outlives its connections.
//!
//! A [`Tail`] is a [`Stream`] of [`Item`]s: events, each once and in the order of its
//! partition, and news of the feed. When its connection breaks, falls silent or is
//! closed by the server it says so and goes on behind what has come.
//!
//! # What to store
//!
//! A cursor is a place between two messages of the server, and a message may hold
//! many events. So only some items carry one: [`Item::cursor`] is there with the last
//! event of a message, and with most news. **Once an item and all items before it are
//! dealt with, its cursor may be stored**; a later tail that starts behind it brings
//! everything after the item and nothing before. Whoever stores the cursor after
//! dealing with the events may see some events again after a crash, and loses none.
//! [`CursorFile`](super::CursorFile) is a place to store it in.
//!
//! Store the cursors of news too: they move on over events that the filter passes
//! over, and a place that is left behind for long is removed by retention.
//!
//! # Bounds
//!
//! * At most one message of the server is held, of 16 MiB at most, beside the 2 MiB of a
//!   stream that HTTP/2 reads ahead; the next one waits until its items are taken.
//! * A stream without a message for three heartbeat intervals (15 s each unless the
//!   request says otherwise) is broken; so is an attempt that takes as long.
//! * The wait before an attempt doubles from 250 ms to 15 s, each shortened by chance
//!   to between half and all of it. Only an event starts it from 250 ms again: a server
//!   that takes connections and then fails is not well. An error that says when to try
//!   again is waited for that long at least; a server that closes the stream in order
//!   says when to come back, and is obeyed. Neither can ask for more than 5 minutes.
//! * There is no bound on the attempts: drop the tail to end it.
//!
//! # Examples
//!
//! ```no_run
//! use futures_util::StreamExt as _;
//! use herald::client::tail::{News, Tail};
//! use herald::client::{Client, ConnectOptions, CursorFile};
//! use herald::proto::stream_events_request::Start;
//! use herald::proto::{StartPosition, StreamEventsRequest};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("http://127.0.0.1:50051", ConnectOptions::default()).await?;
//! let file = CursorFile::open("events.cursor")?;
//! let start = match file.read()? {
//!     Some(cursor) => Start::AfterCursor(cursor),
//!     None => Start::StartPosition(StartPosition::Earliest.into()),
//! };
//! let request = StreamEventsRequest { start: Some(start), ..Default::default() };
//! let mut tail = Tail::new(client, request);
//! while let Some(item) = tail.next().await {
//!     let item = item?;
//!     match item.news {
//!         News::Event(event) => println!("{}@{}", event.partition, event.offset),
//!         News::Gap(gap) => eprintln!("events of partition {} are missing", gap.partition),
//!         News::Reconnecting { delay, .. } => eprintln!("back in {delay:?}"),
//!         _ => {}
//!     }
//!     // Everything before this cursor is printed by now.
//!     if let Some(cursor) = item.cursor {
//!         file.write(&cursor)?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};

pub use super::resume::Cause;
use super::resume::{Resumed, Source, Told};
use super::{Client, ClientError};
use crate::proto::stream_events_response::Response;
use crate::proto::{CaughtUp, Closing, DeliveredEvent, Gap, StreamEventsRequest};

/// What a tail brings.
#[derive(Clone, Debug)]
pub struct Item {
    /// What happened.
    pub news: News,
    /// A place behind this item and all before it, to start a later tail from. None for
    /// an event that is not the last of its message, and before the first message where the
    /// request has none.
    pub cursor: Option<String>,
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "nearly all items are events")]
pub enum News {
    /// An event, with its partition, its offset and when the log took it.
    Event(DeliveredEvent),
    /// A stream is open, the first or another one: what is acknowledged from now on
    /// will come.
    Opened,
    /// Nothing; but the cursor may have moved.
    Quiet,
    /// All that the log held when the stream was opened has come.
    CaughtUp(CaughtUp),
    /// This reader is slower than the log grows; nothing is lost.
    FellBehind,
    /// Events are missing here for good.
    Gap(Gap),
    /// The server closes the stream in order; another one is opened when it says.
    Closing(Closing),
    /// The stream is over; another one is opened after a while.
    Reconnecting {
        /// How long that will be.
        delay: Duration,
        /// Why the stream is over.
        cause: Cause,
    },
}

/// A stream of events that resumes by itself; see the [module](self).
///
/// It ends after `max_events` or `stop_when_caught_up` of its request came true, or
/// with an error that trying again cannot help: a request or a cursor that the server
/// refuses, a place that retention has removed (unless the request's
/// `expired_cursor_policy` says how to go on), another log. Nothing comes after an error.
pub struct Tail {
    told: BoxStream<'static, Result<(Told, Option<String>), ClientError>>,
    /// What is left of the newest message's events.
    events: std::vec::IntoIter<DeliveredEvent>,
    /// Behind the newest message.
    cursor: Option<String>,
}

impl Tail {
    /// A tail of what `request` asks for. Its start is for the first stream only and its
    /// `max_events` counts over all of them; what `stop_when_caught_up` waits for is the
    /// end that the log had when the newest stream was opened. Nothing is opened before
    /// the first item is asked for.
    pub fn new(client: Client, request: StreamEventsRequest) -> Self {
        Self::over(client, request)
    }

    pub(super) fn over<S>(source: S, request: StreamEventsRequest) -> Self
    where
        S: Source + Send + 'static,
    {
        let told = stream::unfold(Resumed::new(source, request), |mut streams| async move {
            let told = streams.next().await?;
            let told = told.map(|told| (told, streams.cursor().map(str::to_owned)));
            Some((told, streams))
        });
        Self { told: told.fuse().boxed(), events: Vec::new().into_iter(), cursor: None }
    }
}

impl Stream for Tail {
    type Item = Result<Item, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(event) = self.events.next() {
            return Poll::Ready(Some(Ok(self.event(event))));
        }
        let (told, cursor) = match ready!(self.told.poll_next_unpin(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ok(told)) => told,
        };
        let news = match told {
            Told::Reconnecting { delay, cause } => News::Reconnecting { delay, cause },
            Told::Message(Some(Response::Batch(batch))) => {
                self.events = batch.events.into_iter();
                self.cursor = cursor;
                let item = match self.events.next() {
                    Some(event) => self.event(event),
                    None => Item { news: News::Quiet, cursor: self.cursor.take() },
                };
                return Poll::Ready(Some(Ok(item)));
            }
            Told::Message(Some(Response::Opened(_))) => News::Opened,
            Told::Message(Some(Response::CaughtUp(caught_up))) => News::CaughtUp(caught_up),
            Told::Message(Some(Response::FellBehind(_))) => News::FellBehind,
            Told::Message(Some(Response::Gap(gap))) => News::Gap(gap),
            Told::Message(Some(Response::Closing(closing))) => News::Closing(closing),
            // One that this build does not know: only its cursor counts.
            Told::Message(Some(Response::Heartbeat(_)) | None) => News::Quiet,
        };
        Poll::Ready(Some(Ok(Item { news, cursor })))
    }
}

impl Tail {
    /// The item of an event that was just taken off the message.
    fn event(&mut self, event: DeliveredEvent) -> Item {
        let last = self.events.len() == 0;
        let cursor = if last { self.cursor.take() } else { None };
        Item { news: News::Event(event), cursor }
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").finish_non_exhaustive()
    }
}
