//! Looks at the frame around a request's one message before anything is buffered.
//!
//! tonic's own answers to a message that is too large (OUT_OF_RANGE) and to bytes
//! that are no frame (INTERNAL) collide with what those codes mean here, so both are
//! refused before tonic sees them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Sleep, sleep};
use tonic::{Code, Status};

use super::status;

/// Flag (1 byte) and length (4 bytes, big endian).
const HEADER_BYTES: usize = 5;

/// How long a request's message may keep the server waiting: what has come of it is kept
/// in memory meanwhile, and a caller who is there at all is far quicker.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Lets through a request that holds exactly one uncompressed message of at most
/// `max_bytes`; the body of any other fails with the status to answer.
pub(super) fn check<B>(
    request: http::Request<B>,
    max_bytes: usize,
) -> http::Request<OneMessage<B>> {
    request.map(|inner| OneMessage {
        inner,
        max_bytes,
        header: [0; HEADER_BYTES],
        seen: 0,
        ended: false,
        patience: None,
    })
}

/// The message of a body that has passed.
pub(super) fn message(body: &Bytes) -> Bytes {
    body.slice(HEADER_BYTES.min(body.len())..)
}

/// See [`check`].
pub(super) struct OneMessage<B> {
    inner: B,
    max_bytes: usize,
    header: [u8; HEADER_BYTES],
    /// Bytes of the body so far.
    seen: usize,
    ended: bool,
    /// Begins with the first wait; most messages come with their headers.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<B> OneMessage<B> {
    fn look_at(&mut self, data: &[u8]) -> Result<(), Status> {
        if self.seen < HEADER_BYTES {
            let part = data.len().min(HEADER_BYTES - self.seen);
            self.header[self.seen..self.seen + part].copy_from_slice(&data[..part]);
        }
        self.seen += data.len();
        if self.seen < HEADER_BYTES {
            return Ok(());
        }
        match self.header[0] {
            0 => {}
            1 => return Err(status::malformed("compressed messages are not accepted")),
            _ => return Err(status::malformed("the body does not begin with a gRPC frame")),
        }
        let length = self.message_bytes();
        if length > self.max_bytes {
            return Err(status::too_large(length, self.max_bytes));
        }
        if self.seen > HEADER_BYTES + length {
            return Err(status::malformed("more than one message"));
        }
        Ok(())
    }

    fn message_bytes(&self) -> usize {
        let [_, a, b, c, d] = self.header;
        // A usize has 32 bits at least.
        u32::from_be_bytes([a, b, c, d]) as usize
    }

    fn look_at_end(&self) -> Result<(), Status> {
        if self.seen == 0 {
            Err(status::malformed("there is no message"))
        } else if self.seen < HEADER_BYTES || self.seen < HEADER_BYTES + self.message_bytes() {
            Err(status::malformed("the message is cut off"))
        } else {
            Ok(())
        }
    }
}

impl<B> http_body::Body for OneMessage<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(polled) = Pin::new(&mut self.inner).poll_frame(cx) else {
            let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(MESSAGE_TIMEOUT)));
            std::task::ready!(patience.as_mut().poll(cx));
            self.ended = true;
            return Poll::Ready(Some(Err(status::malformed("the rest of it did not come"))));
        };
        let checked = match &polled {
            Some(Ok(frame)) => frame.data_ref().map_or(Ok(()), |data| self.look_at(data)),
            Some(Err(_)) => Ok(()),
            None => self.look_at_end(),
        };
        self.ended = polled.is_none() || checked.is_err();
        Poll::Ready(match checked {
            Ok(()) => {
                polled.map(|frame| frame.map_err(|error| broken(Status::from_error(error.into()))))
            }
            Err(status) => Some(Err(status)),
        })
    }
}

/// What could not be read at all, such as gRPC-web in text that is no base64, is the
/// caller's fault too.
fn broken(status: Status) -> Status {
    if status.code() == Code::Internal { status::malformed(status.message()) } else { status }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::body::Body;

    use super::*;

    async fn collect(chunks: &[&[u8]], max_bytes: usize) -> Result<Bytes, Status> {
        let frames: Vec<_> = chunks
            .iter()
            .map(|chunk| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
        let request = check(http::Request::new(body), max_bytes);
        Ok(request.into_body().collect().await?.to_bytes())
    }

    #[tokio::test]
    async fn one_message_passes_however_it_is_cut() {
        let whole: &[u8] = b"\0\0\0\0\x03abc";
        for at in 0..=whole.len() {
            let (a, b) = whole.split_at(at);
            assert_eq!(collect(&[a, b], 3).await.unwrap(), whole, "cut at {at}");
        }
        assert!(collect(&[b"\0\0\0\0\0"], 3).await.is_ok(), "an empty message is a message");
    }

    #[tokio::test]
    async fn anything_else_is_refused_with_a_reason() {
        for (chunks, code, words) in [
            (&[&b"\0\0\0\0\x04abcd"[..]][..], Code::ResourceExhausted, "4 bytes"),
            // Before the bytes that it announces have come.
            (&[b"\0\xff\xff\xff\xff"], Code::ResourceExhausted, "limit of 3"),
            (&[], Code::InvalidArgument, "no message"),
            (&[b"\0\0\0"], Code::InvalidArgument, "cut off"),
            (&[b"\0\0\0\0\x03ab"], Code::InvalidArgument, "cut off"),
            (&[b"\0\0\0\0\x01a", b"\0"], Code::InvalidArgument, "more than one"),
            (&[b"\x01\0\0\0\x01a"], Code::InvalidArgument, "compressed"),
            (&[b"GET / HTTP/1.1"], Code::InvalidArgument, "does not begin"),
        ] {
            let status = collect(chunks, 3).await.unwrap_err();
            assert_eq!(status.code(), code, "{chunks:?}");
            assert!(status.message().contains(words), "{chunks:?}: {}", status.message());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_never_comes_whole_is_not_waited_for_for_ever() {
        let begin = futures_util::stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(
            b"\0\0\0\0\x03a",
        )))]);
        let stalled = futures_util::StreamExt::chain(begin, futures_util::stream::pending());
        let request = check(http::Request::new(StreamBody::new(stalled)), 3);
        let begun = tokio::time::Instant::now();
        let Err(status) = request.into_body().collect().await else { panic!("it never came") };
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(begun.elapsed(), MESSAGE_TIMEOUT);
    }
}
