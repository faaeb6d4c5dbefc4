//! gRPC over the h2 crate: a tenth of the CPU time of a full client.

use std::future::poll_fn;
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::payload::FRAME_HEADER_BYTES;
use crate::cli::exit::{Unreached, UsageError};
use crate::tasks::{Death, Tasks};

/// How long a connection may take; the server is near.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What a server may send before it is told that this was read: more than all
/// answers under way, so that it never waits.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// The same of one call.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// The largest answer taken: receipts are far smaller.
const LARGEST_ANSWER_BYTES: usize = 64 * 1024;

/// Why a call was not acknowledged, or a stream has ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server answered with an error.
    #[error("{code}: {message}")]
    Refused {
        /// The gRPC code, or what stands in its place.
        code: String,
        /// The text, as it was sent.
        message: String,
    },
    /// The connection is gone.
    #[error("connection lost: {0}")]
    Broken(String),
}

/// The address of a server, as it is given on the command line.
pub fn address(text: &str) -> anyhow::Result<Uri> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Option<Uri> = url.parse().ok();
    uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some()).ok_or_else(|| {
        UsageError(format!("{text} is no server address, write it like http://host:50051")).into()
    })
}

/// Connects and leaves the connection to `drivers`, which end it. The server may send
/// `stream_window` bytes on each call before it is told that they were read.
pub async fn connect(
    server: &Uri,
    stream_window: u32,
    drivers: &Tasks,
) -> anyhow::Result<SendRequest<Bytes>> {
    let host = server.host().context("the address has no host")?.trim_matches(['[', ']']);
    let port = server.port_u16().unwrap_or(80);
    let connecting = async {
        let socket = TcpStream::connect((host, port)).await?;
        socket.set_nodelay(true)?;
        let handshake = Builder::new()
            .initial_window_size(stream_window)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake::<_, Bytes>(socket)
            .await?;
        anyhow::Ok(handshake)
    };
    let (send, connection) = timeout(CONNECT_LIMIT, connecting)
        .await
        .map_err(anyhow::Error::from)
        .and_then(|connected| connected)
        .with_context(|| Unreached(format!("cannot reach {server}")))?;
    let stopping = drivers.stopping();
    drivers.spawn("bench connection", Death::Expected, async move {
        // How it ended is told by the calls that it carried.
        let _ = stopping.run_until_cancelled_owned(connection).await;
    });
    Ok(send)
}

/// The head that all calls of one method share.
pub fn head(server: &Uri, path: &str) -> anyhow::Result<Request<()>> {
    let authority = server.authority().context("the address has no host")?;
    let request = Request::post(format!("http://{authority}{path}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, concat!("herald-bench/", env!("CARGO_PKG_VERSION")));
    request.body(()).context("the address makes no request")
}

/// Makes one call and returns the message of its answer.
pub async fn call(
    send: &mut SendRequest<Bytes>,
    head: Request<()>,
    frame: Bytes,
) -> Result<Bytes, Failure> {
    let (headers, mut body) = begin(send, head, frame).await?;
    let mut message = Bytes::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        // Cannot fail for what was just received.
        let _ = body.flow_control().release_capacity(chunk.len());
        if message.is_empty() {
            message = chunk;
        } else if message.len() + chunk.len() > LARGEST_ANSWER_BYTES {
            return Err(Failure::refused("answer too large".to_owned()));
        } else {
            let mut joined = BytesMut::from(message);
            joined.extend_from_slice(&chunk);
            message = joined.freeze();
        }
    }
    // A call without a message has its status in the head.
    let trailers = body.trailers().await?;
    check(trailers.as_ref().unwrap_or(&headers))?;
    unframe(message).ok_or_else(|| Failure::refused("answer without a message".to_owned()))
}

/// Makes one call that is answered with a stream, and returns that.
pub async fn open(
    send: &mut SendRequest<Bytes>,
    head: Request<()>,
    frame: Bytes,
) -> Result<RecvStream, Failure> {
    let (headers, body) = begin(send, head, frame).await?;
    if headers.contains_key("grpc-status") {
        check(&headers)?;
    }
    Ok(body)
}

/// What comes next on a stream; none at its end, when that is a success.
pub async fn next_chunk(body: &mut RecvStream) -> Result<Option<Bytes>, Failure> {
    if let Some(chunk) = body.data().await {
        let chunk = chunk?;
        // Cannot fail for what was just received.
        let _ = body.flow_control().release_capacity(chunk.len());
        return Ok(Some(chunk));
    }
    check(&body.trailers().await?.unwrap_or_default())?;
    Ok(None)
}

/// Sends a call and returns what its answer begins with.
async fn begin(
    send: &mut SendRequest<Bytes>,
    head: Request<()>,
    frame: Bytes,
) -> Result<(HeaderMap, RecvStream), Failure> {
    poll_fn(|context| send.poll_ready(context)).await?;
    let (answer, mut body) = send.send_request(head, false)?;
    body.send_data(frame, true)?;
    let (head, body) = answer.await?.into_parts();
    if head.status != StatusCode::OK {
        return Err(Failure::refused(format!("HTTP {}", head.status.as_u16())));
    }
    Ok((head.headers, body))
}

fn check(trailers: &HeaderMap) -> Result<(), Failure> {
    let text = |name: &str| {
        trailers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    match text("grpc-status") {
        Some(code) if code == "0" => Ok(()),
        None => Err(Failure::refused("no grpc-status".to_owned())),
        Some(code) => {
            let code = match code.parse().map(tonic::Code::from_i32) {
                Ok(code) => format!("{code:?}"),
                Err(_) => format!("grpc-status {code}"),
            };
            Err(Failure::Refused {
                code,
                message: text("grpc-message").map(decoded).unwrap_or_default(),
            })
        }
    }
}

/// The text of a status, which comes percent-encoded.
fn decoded(text: String) -> String {
    percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

/// The message in a frame; none unless it is exactly one that is not compressed.
fn unframe(mut frame: Bytes) -> Option<Bytes> {
    let header: [u8; FRAME_HEADER_BYTES] = frame.get(..FRAME_HEADER_BYTES)?.try_into().ok()?;
    let [flags, length @ ..] = header;
    let message = frame.split_off(FRAME_HEADER_BYTES);
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    (flags == 0 && message.len() == length && length > 0).then_some(message)
}

impl Failure {
    fn refused(code: String) -> Self {
        Self::Refused { code, message: String::new() }
    }
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        // A reset of the one call leaves the connection whole.
        if error.is_reset() && error.is_remote() {
            Self::refused(format!("reset: {error}"))
        } else {
            Self::Broken(error.to_string())
        }
    }
}
