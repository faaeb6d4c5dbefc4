//! The one message of a request, and that of an answer, in their frames.
//!
//! tonic's own answers to a message that is too large (OUT_OF_RANGE) and to bytes
//! that are no frame (INTERNAL) collide with what those codes mean here; and a call that has
//! one message each way needs none of what tonic keeps for streams.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;
use tokio::time::{Sleep, sleep};
use tonic::{Code, Status};

use super::status;

/// Flag (1 byte) and length (4 bytes, big endian).
const HEADER_BYTES: usize = 5;

/// How long a request's message may keep the server waiting: what has come of it is kept
/// in memory meanwhile, and a caller who is there at all is far quicker.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a body that holds exactly one uncompressed message of at most `max_bytes`; the
/// status to answer for any other.
pub(super) fn read<B>(body: B, max_bytes: usize) -> Reading<B> {
    Reading {
        body,
        max_bytes,
        first: Bytes::new(),
        all: BytesMut::new(),
        header: [0; HEADER_BYTES],
        seen: 0,
        patience: None,
    }
}

/// The message in its bytes.
pub(super) fn decode<T: Message + Default>(message: Bytes) -> Result<T, Status> {
    T::decode(message).map_err(|error| status::malformed(&error.to_string()))
}

/// A message in its frame.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let mut frame = begin(message.encoded_len());
    message.encode_raw(&mut frame);
    frame.freeze()
}

/// The same of one that is encoded already.
pub fn frame_encoded(message: &[u8]) -> Bytes {
    let mut frame = begin(message.len());
    frame.extend_from_slice(message);
    frame.freeze()
}

/// The message of a frame; empty when there is none.
pub fn unframe(frame: &Bytes) -> Bytes {
    frame.slice(HEADER_BYTES.min(frame.len())..)
}

/// A frame before its message of so many bytes.
fn begin(length: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + length);
    frame.put_u8(0);
    // No message is near 4 GiB.
    frame.put_u32(length as u32);
    frame
}

/// See [`read`].
pub(super) struct Reading<B> {
    body: B,
    max_bytes: usize,
    /// What came first, which is all of most bodies.
    first: Bytes,
    /// All of it, once there is more.
    all: BytesMut,
    header: [u8; HEADER_BYTES],
    /// Bytes of the body so far.
    seen: usize,
    /// Begins with the first wait; most messages come with their headers.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<B> Reading<B> {
    fn take(&mut self, data: Bytes) -> Result<(), Status> {
        self.look_at(&data)?;
        if self.first.is_empty() {
            self.first = data;
        } else {
            if self.all.is_empty() {
                self.all.extend_from_slice(&self.first);
            }
            self.all.extend_from_slice(&data);
        }
        Ok(())
    }

    fn message(&mut self) -> Result<Bytes, Status> {
        self.look_at_end()?;
        let mut bytes = match self.all.is_empty() {
            true => std::mem::take(&mut self.first),
            false => std::mem::take(&mut self.all).freeze(),
        };
        Ok(bytes.split_off(HEADER_BYTES))
    }

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

impl<B> Future for Reading<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = Result<Bytes, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        while !self.body.is_end_stream() {
            let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(cx) else {
                let patience = || Box::pin(sleep(MESSAGE_TIMEOUT));
                let patience = self.patience.get_or_insert_with(patience);
                ready!(patience.as_mut().poll(cx));
                return Poll::Ready(Err(status::malformed("the rest of it did not come")));
            };
            match polled {
                Some(Ok(frame)) => {
                    // Trailers of a request say nothing.
                    let Ok(data) = frame.into_data() else { continue };
                    self.take(data)?;
                }
                Some(Err(error)) => {
                    return Poll::Ready(Err(broken(Status::from_error(error.into()))));
                }
                None => break,
            }
        }
        Poll::Ready(self.message())
    }
}

/// What could not be read at all, such as gRPC-web in text that is no base64, is the
/// caller's fault too.
fn broken(status: Status) -> Status {
    if status.code() == Code::Internal { status::malformed(status.message()) } else { status }
}

#[cfg(test)]
mod tests {
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tonic::body::Body;

    use super::*;

    async fn collect(chunks: &[&[u8]], max_bytes: usize) -> Result<Bytes, Status> {
        let frames: Vec<_> = chunks
            .iter()
            .map(|chunk| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
        read(body, max_bytes).await
    }

    #[tokio::test]
    async fn one_message_passes_however_it_is_cut() {
        let whole: &[u8] = b"\0\0\0\0\x03abc";
        for at in 0..=whole.len() {
            let (a, b) = whole.split_at(at);
            assert_eq!(collect(&[a, b], 3).await.unwrap(), b"abc"[..], "cut at {at}");
        }
        let bytes: Vec<_> = whole.chunks(1).collect();
        assert_eq!(collect(&bytes, 3).await.unwrap(), b"abc"[..]);
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
        let begun = tokio::time::Instant::now();
        let Err(status) = read(StreamBody::new(stalled), 3).await else { panic!("it never came") };
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(begun.elapsed(), MESSAGE_TIMEOUT);
    }
}
