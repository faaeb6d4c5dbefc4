//! Ends streams that nobody else ends when the server stops.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use super::status;

/// A response's body that ends with UNAVAILABLE once the server stops and there is
/// nothing left to say.
pub(super) struct UntilStopped {
    inner: Body,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

impl UntilStopped {
    pub fn new(inner: Body, stopping: &CancellationToken) -> Self {
        Self { inner, stopped: Box::pin(stopping.clone().cancelled_owned()), ended: false }
    }
}

impl http_body::Body for UntilStopped {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if polled.is_pending() && self.stopped.as_mut().poll(cx).is_ready() {
            self.ended = true;
            let status = Status::unavailable("the server is stopping");
            return Poll::Ready(Some(status::trailers(&status)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}
