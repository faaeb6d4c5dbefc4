//! Reads the body of a request, within bounds.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::{Status, content_type};

/// How long a body may keep the server waiting, as in gRPC: what has come of it is kept in
/// memory meanwhile.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How much of the body of a refused request is read and thrown away.
const DRAINED_BYTES: usize = 16 * 1024 * 1024;

/// The whole body.
///
/// # Errors
///
/// It is larger than `max_bytes`, or did not come whole.
pub(super) async fn read<B>(body: &mut B, max_bytes: usize) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let whole = timeout(TIMEOUT, collect(body, max_bytes)).await;
    whole.unwrap_or_else(|_| Err(Status::malformed("the rest of it did not come")))
}

async fn collect<B>(body: &mut B, max_bytes: usize) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(Status::too_large(max_bytes));
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Status::malformed("the body is cut off")) };
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > max_bytes {
            return Err(Status::too_large(max_bytes));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Whether what is left of a body has to be drained before a refusal: who still writes when the
/// connection or the stream is closed may never read why. Not for who waits to be told to go
/// on, nor for Connect's streams over HTTP/2, whose clients may wait for an answer first.
pub(super) fn needs_draining<B>(request: &http::Request<B>) -> bool {
    let streams = request.version() == http::Version::HTTP_2
        && content_type(request.headers()).starts_with("application/connect+");
    !streams && !request.headers().contains_key(EXPECT)
}

/// Reads what is left of a body and throws it away, within bounds.
pub(super) async fn drain<B>(body: &mut B)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut left = DRAINED_BYTES;
    if body.size_hint().lower() > left as u64 {
        return;
    }
    let drained = async {
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // What comes later is not waited for.
    let _ = timeout(TIMEOUT, drained).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn a_body_is_as_large_as_allowed_and_no_larger() {
        let body = |bytes: usize| Full::new(Bytes::from(vec![b'x'; bytes]));
        assert_eq!(read(&mut body(10), 10).await.unwrap().len(), 10);
        let status = read(&mut body(11), 10).await.unwrap_err();
        assert_eq!(status.reason(), "MESSAGE_TOO_LARGE");
    }

    #[tokio::test]
    async fn a_body_without_end_is_not_read_for_ever() {
        let data = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 1000])));
        let mut endless = StreamBody::new(stream::repeat_with(data));
        let status = read(&mut endless, 10).await.unwrap_err();
        assert_eq!(status.reason(), "MESSAGE_TOO_LARGE");
        drain(&mut endless).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_not_waited_for_for_ever() {
        let part = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{")))]);
        let mut stalled = StreamBody::new(part.chain(stream::pending()));
        let status = read(&mut stalled, 10).await.unwrap_err();
        assert_eq!(status.reason(), "MESSAGE_MALFORMED");
        drain(&mut stalled).await;
    }
}
