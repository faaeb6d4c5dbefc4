//! `EventFeedService`: a reader of the feed as a stream of messages.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::stubs::event_feed_service_server::EventFeedService;
use super::{Options, request, status};
use crate::feed::{Lane, Reader};
use crate::proto;

/// The service of one runtime.
pub(super) struct EventFeed {
    feed: Lane,
    options: Arc<Options>,
}

impl EventFeed {
    pub fn new(feed: Lane, options: Arc<Options>) -> Self {
        Self { feed, options }
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<proto::StreamEventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl EventFeedService for EventFeed {
    type StreamEventsStream = Messages;

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Result<Response<Messages>, Status> {
        let deadline = request::answer_by(request.metadata());
        let caller = request::caller(&self.options);
        let subscribing = self.feed.subscribe(&caller, request.into_inner());
        let reader = match deadline {
            None => subscribing.await?,
            Some(deadline) => timeout_at(deadline, subscribing)
                .await
                .map_err(|_elapsed| status::stream_deadline())??,
        };
        Ok(Response::new(messages(reader, deadline)))
    }

    async fn poll_events(
        &self,
        request: Request<proto::PollEventsRequest>,
    ) -> Result<Response<proto::PollEventsResponse>, Status> {
        let answer_by = request::answer_by(request.metadata());
        let caller = request::caller(&self.options);
        let answer = self.feed.poll(&caller, request.into_inner(), answer_by);
        Ok(Response::new(answer.await?))
    }

    async fn get_feed(
        &self,
        _: Request<proto::GetFeedRequest>,
    ) -> Result<Response<proto::GetFeedResponse>, Status> {
        Ok(Response::new(self.feed.feed().describe().await?))
    }
}

/// The messages of a reader until it ends or the deadline comes.
fn messages(reader: Reader, deadline: Option<Instant>) -> Messages {
    Box::pin(stream::unfold(Some(reader), move |reader| async move {
        let mut reader = reader?;
        let next = match deadline {
            None => reader.next().await,
            Some(deadline) => match timeout_at(deadline, reader.next()).await {
                Ok(next) => next,
                Err(_) => return Some((Err(status::stream_deadline()), None)),
            },
        };
        match next? {
            Ok(message) => Some((Ok(message), Some(reader))),
            Err(error) => Some((Err(error.into()), None)),
        }
    }))
}
