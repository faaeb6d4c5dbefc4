//! The body of an answer that goes on: asks for the next message of the feed when there is room
//! for it, and writes it down event by event.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body::Frame;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::form::Form;
use crate::feed::{Outline, Step, Steps};
use crate::http::{Answers, Status};
use crate::proto::stream_events_response::Response;
use crate::proto::{DeliveredEvent, Gap, GapReason, StreamEventsResponse};

/// How much is written down before it is handed over, give or take an event. A message of the
/// feed is several times as large in JSON; this is what a subscriber that does not read keeps of
/// it beside the message, which it shares with others.
const PART_BYTES: usize = 8 * 1024;

/// What the messages of the feed are.
#[derive(Clone)]
pub(super) struct Types {
    /// `StreamEventsResponse`.
    pub message: MessageDescriptor,
    /// `DeliveredEvent`.
    pub event: MessageDescriptor,
}

/// See the module.
pub struct FeedBody {
    /// None once they have ended.
    messages: Option<Answers>,
    form: Form,
    types: Types,
    /// Behind the newest message.
    cursor: String,
    /// What is left of the newest message.
    steps: Option<Steps>,
    /// The newest message says that the server ends the stream.
    is_closing: bool,
}

impl FeedBody {
    pub(super) fn new(messages: Answers, form: Form, types: Types) -> Self {
        let (messages, cursor) = (Some(messages), String::new());
        Self { messages, form, types, cursor, steps: None, is_closing: false }
    }

    /// Takes a message; what can be said of it at once is written.
    fn take(&mut self, message: Bytes, to: &mut String) -> Result<(), Status> {
        let outline = Outline::decode(message.clone()).map_err(|_| Status::unreadable())?;
        let before = std::mem::replace(&mut self.cursor, outline.cursor);
        if let Some(batch) = outline.batch {
            let steps = Steps::new(&before, batch.events, self.cursor.clone());
            self.steps = Some(steps.map_err(|_| Status::unreadable())?);
            return Ok(());
        }
        let message = decode(&self.types.message, message)?;
        self.is_closing = message.has_field_by_name("closing");
        let written = self.form.news(&self.cursor, &message, to);
        written.map_err(|_| Status::unreadable())
    }

    /// Writes the next events of the message that was taken.
    fn go_on(&mut self, to: &mut String) -> Result<(), Status> {
        let Some(steps) = &mut self.steps else { return Ok(()) };
        for step in steps {
            let Step { cursor, event } = step.map_err(|_| Status::unreadable())?;
            let dynamic = decode(&self.types.event, event.clone())?;
            if self.form.event(&cursor, &dynamic, to).is_err() {
                let gap = decode(&self.types.message, unwritable(&cursor, &event))?;
                let written = self.form.news(&cursor, &gap, to);
                written.map_err(|_| Status::unreadable())?;
            }
            if to.len() >= PART_BYTES {
                return Ok(());
            }
        }
        self.steps = None;
        Ok(())
    }

    /// Writes the next part.
    fn poll_part(&mut self, cx: &mut Context<'_>, to: &mut String) -> Poll<Result<(), Status>> {
        self.go_on(to)?;
        let Some(messages) = self.messages.as_mut().filter(|_| to.is_empty()) else {
            return Poll::Ready(Ok(()));
        };
        match ready!(messages.poll_next_unpin(cx)) {
            Some(message) => self.take(message?, to)?,
            None => {
                self.messages = None;
                if !self.is_closing {
                    self.form.end(to);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl http_body::Body for FeedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let mut part = String::new();
        while part.is_empty() && !this.is_end_stream() {
            if let Err(status) = ready!(this.poll_part(cx, &mut part)) {
                (this.messages, this.steps) = (None, None);
                this.form.failure(&status, &mut part);
            }
        }
        Poll::Ready((!part.is_empty()).then(|| Ok(Frame::data(part.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_none() && self.steps.is_none()
    }
}

fn decode(of: &MessageDescriptor, message: Bytes) -> Result<DynamicMessage, Status> {
    DynamicMessage::decode(of.clone(), message).map_err(|_| Status::unreadable())
}

/// What is said in place of an event for which JSON has no form: it was written by somebody
/// else. A stream that ended here would end here whenever it is resumed.
fn unwritable(cursor: &str, event: &Bytes) -> Bytes {
    let partition = DeliveredEvent::decode(&**event).unwrap_or_default().partition;
    let reason = GapReason::Undecodable.into();
    let gap = Response::Gap(Gap { reason, partition, missed_records: 1 });
    let cursor = cursor.to_owned();
    StreamEventsResponse { cursor, response: Some(gap) }.encode_to_vec().into()
}
