//! `EventFeedService`. `StreamEvents` is served by hand: its messages come from the feed
//! ready to be sent, and most of them go to many.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::body::Body;
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};
use tonic::{Request, Response, Status};

use super::stubs::event_feed_service_server::EventFeedService;
use super::{Options, ResponseBody, frames, request, status};
use crate::commands::Commands;
use crate::feed::{Lane, PollAnswer, Reader};
use crate::proto;

/// The path of the stream.
pub(super) const STREAM_EVENTS: &str = "/game.v1.EventFeedService/StreamEvents";

/// The service of one runtime.
pub(super) struct EventFeed {
    feed: Lane,
    /// Knows how far back requests are recognised, which the feed does not.
    commands: Commands,
    options: Arc<Options>,
}

impl EventFeed {
    pub fn new(feed: Lane, commands: Commands, options: Arc<Options>) -> Self {
        Self { feed, commands, options }
    }
}

#[tonic::async_trait]
impl EventFeedService for EventFeed {
    async fn poll_events(
        &self,
        request: Request<proto::PollEventsRequest>,
    ) -> Result<Response<PollAnswer>, Status> {
        let answer_by = request::answer_by(request.metadata());
        let caller = request::caller(&self.options);
        let answer = self.feed.poll(&caller, request.into_inner(), answer_by);
        Ok(Response::new(answer.await?))
    }

    async fn get_feed(
        &self,
        _: Request<proto::GetFeedRequest>,
    ) -> Result<Response<proto::GetFeedResponse>, Status> {
        let mut feed = self.feed.feed().describe().await?;
        feed.request_horizon = Some(self.commands.horizon());
        Ok(Response::new(feed))
    }
}

/// Serves `StreamEvents`. What it waits in is small, as thousands may come at once.
pub(super) fn stream_events<B>(
    feed: Lane,
    options: &Options,
    request: http::Request<B>,
    max_message_bytes: usize,
) -> impl Future<Output = http::Response<ResponseBody>> + Send + use<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let caller = request::caller(options);
    let (head, body) = request.into_parts();
    let deadline = request::answer_by(&MetadataMap::from_headers(head.headers));
    let message = frames::read(body, max_message_bytes);
    let answer = message.map(|message| frames::decode(message?)).then(move |subscription| {
        let subscribing = async move { Ok(feed.subscribe(&caller, subscription?).await?) };
        subscribe(subscribing.boxed(), deadline)
    });
    answer.map(|answer| {
        answer.unwrap_or_else(|status| status.into_http::<Body>().map(ResponseBody::from))
    })
}

async fn subscribe(
    subscribing: BoxFuture<'static, Result<Reader, Status>>,
    deadline: Option<Instant>,
) -> Result<http::Response<ResponseBody>, Status> {
    let reader = match deadline {
        None => subscribing.await?,
        Some(deadline) => timeout_at(deadline, subscribing)
            .await
            .map_err(|_elapsed| status::stream_deadline())??,
    };
    let deadline = deadline.map(|at| Box::pin(sleep_until(at)));
    let messages = Box::new(Messages { reader: Some(reader), deadline });
    let mut response = http::Response::new(ResponseBody::Stream(messages));
    response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    Ok(response)
}

/// The messages of a reader until it ends or the deadline comes.
pub struct Messages {
    /// None once the status has been said.
    reader: Option<Reader>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(reader) = &mut this.reader else { return Poll::Ready(None) };
        let status = match (reader.poll_message(cx), &mut this.deadline) {
            (Poll::Ready(Some(Ok(message))), _) => {
                return Poll::Ready(Some(Ok(Frame::data(message))));
            }
            (Poll::Ready(Some(Err(error))), _) => error.into(),
            (Poll::Ready(None), _) => Status::ok(""),
            (Poll::Pending, None) => return Poll::Pending,
            (Poll::Pending, Some(deadline)) => {
                ready!(deadline.as_mut().poll(cx));
                status::stream_deadline()
            }
        };
        this.reader = None;
        Poll::Ready(Some(status::trailers(&status)))
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_none()
    }
}
