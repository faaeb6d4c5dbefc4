//! The body of a response, in as few layers as it needs: a stream of the feed is asked for
//! its next message ten thousand times for one event.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::feed::Messages;

/// See the module.
pub enum ResponseBody {
    /// Of `StreamEvents`.
    Stream(Box<Messages>),
    /// Of anything else.
    Other(Body),
}

impl From<Body> for ResponseBody {
    fn from(body: Body) -> Self {
        Self::Other(body)
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Stream(messages) => Pin::new(&mut **messages).poll_frame(cx),
            Self::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Stream(messages) => messages.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Stream(messages) => messages.size_hint(),
            Self::Other(body) => body.size_hint(),
        }
    }
}
