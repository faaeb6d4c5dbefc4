//! The body of a response, in as few layers as it needs: a stream of the feed is asked for
//! its next message ten thousand times for one event.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::feed::Messages;
use super::status;

/// See the module.
pub enum ResponseBody {
    /// Of `StreamEvents`.
    Stream(Box<Messages>),
    /// The answer of a unary call in its frame; that all is well comes behind it.
    Message(Bytes),
    /// Such an answer when only that is left to be said.
    Ok,
    /// And when that is said too.
    Ended,
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
            Self::Message(message) => {
                let frame = Frame::data(std::mem::take(message));
                *self = Self::Ok;
                Poll::Ready(Some(Ok(frame)))
            }
            Self::Ok => {
                *self = Self::Ended;
                Poll::Ready(Some(Ok(Frame::trailers(status::ok_trailers()))))
            }
            Self::Ended => Poll::Ready(None),
            Self::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Stream(messages) => messages.is_end_stream(),
            Self::Message(_) | Self::Ok => false,
            Self::Ended => true,
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Stream(messages) => messages.size_hint(),
            // With a length there would be no room for the status.
            Self::Message(_) | Self::Ok | Self::Ended => SizeHint::default(),
            Self::Other(body) => body.size_hint(),
        }
    }
}
