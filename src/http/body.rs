//! Reads the body of a request, within bounds.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::Status;

/// How long a body may keep the server waiting, as in gRPC: what has come of it is kept in
/// memory meanwhile.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a body that is too large is read and thrown away. Who still writes when the
/// connection is closed may never read why.
const DRAINED_BYTES: usize = 16 * 1024 * 1024;

/// The whole body.
///
/// # Errors
///
/// It is larger than `max_bytes`, or did not come whole.
pub(super) async fn read<B>(body: B, max_bytes: usize) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let whole = timeout(TIMEOUT, collect(body, max_bytes)).await;
    whole.unwrap_or_else(|_| Err(Status::malformed("the rest of it did not come")))
}

async fn collect<B>(mut body: B, max_bytes: usize) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if told > max_bytes.saturating_add(DRAINED_BYTES) {
        return Err(Status::too_large(max_bytes));
    }
    let mut whole = BytesMut::new();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Status::malformed("the body is cut off")) };
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len();
        if seen <= max_bytes {
            whole.extend_from_slice(&data);
        } else if seen - max_bytes > DRAINED_BYTES {
            break;
        }
    }
    if seen > max_bytes { Err(Status::too_large(max_bytes)) } else { Ok(whole.freeze()) }
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
        assert_eq!(read(body(10), 10).await.unwrap().len(), 10);
        for bytes in [11, 10 + DRAINED_BYTES, 11 + DRAINED_BYTES] {
            assert_eq!(read(body(bytes), 10).await.unwrap_err().reason(), "MESSAGE_TOO_LARGE");
        }
    }

    #[tokio::test]
    async fn a_body_without_end_is_not_read_for_ever() {
        let data = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 1000])));
        let endless = StreamBody::new(stream::repeat_with(data));
        assert_eq!(read(endless, 10).await.unwrap_err().reason(), "MESSAGE_TOO_LARGE");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_not_waited_for_for_ever() {
        let part = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{")))]);
        let stalled = StreamBody::new(part.chain(stream::pending()));
        assert_eq!(read(stalled, 10).await.unwrap_err().reason(), "MESSAGE_MALFORMED");
    }
}
