//! From plain HTTP to the rooms: a call becomes one of gRPC, in process, so that deadline,
//! validation, metrics and access lines are those of any other.

use std::future::ready;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, HeaderValue,
    TE, TRANSFER_ENCODING,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, Full};
use prost::Message as _;
use tonic::Code;

use crate::grpc::{ServedBody, Transport, frame_encoded, unframe};
use crate::http::{Answers, Call, Calls, Status};

/// The most milliseconds that gRPC's eight digits of a timeout can say.
const MOST_MILLIS: u128 = 99_999_999;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What is said of the body that came, and not of the message; and what would be believed.
const NOT_PASSED_ON: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    TE,
    TRANSFER_ENCODING,
    GRPC_TIMEOUT,
    HeaderName::from_static("grpc-encoding"),
];

/// Calls by the transport of gRPC.
pub(super) struct InProcess(pub Transport);

impl Calls for InProcess {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Bytes, Status>> {
        let came_by = call.came_by;
        self.0.serve(request(call), came_by).then(outcome).boxed()
    }

    fn stream(&self, call: Call) -> BoxFuture<'static, Result<Answers, Status>> {
        let came_by = call.came_by;
        self.0.serve(request(call), came_by).map(outcomes).boxed()
    }

    fn refused(&self, path: &str, extensions: &http::Extensions, status: &Status) {
        self.0.note_refused(path, extensions, status.code);
    }
}

/// The request of gRPC that a call is.
fn request(call: Call) -> http::Request<Full<Bytes>> {
    let Call { path, mut head, message, timeout, .. } = call;
    for name in &NOT_PASSED_ON {
        head.headers.remove(name);
    }
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(timeout) = timeout {
        let millis = timeout.as_millis();
        let value = if millis <= MOST_MILLIS {
            format!("{millis}m")
        } else {
            format!("{}S", timeout.as_secs())
        };
        head.headers.extend(HeaderValue::try_from(value).ok().map(|value| (GRPC_TIMEOUT, value)));
    }
    head.method = http::Method::POST;
    head.version = http::Version::HTTP_2;
    // Scheme and host stay: they tell what the caller has called.
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    uri.path_and_query = PathAndQuery::try_from(path).ok();
    head.uri = Uri::from_parts(uri).unwrap_or_default();
    http::Request::from_parts(head, Full::new(frame_encoded(&message)))
}

/// The one message of a response, or why there is none.
async fn outcome(response: http::Response<ServedBody>) -> Result<Bytes, Status> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|status| failure(&status))?;
    let status = said(&head.headers).or_else(|| body.trailers().and_then(said));
    match status {
        Some(status) if status.code() == Code::Ok => Ok(unframe(&body.to_bytes())),
        Some(status) => Err(failure(&status)),
        None => Err(failure(&tonic::Status::unknown("the call ended without a status"))),
    }
}

/// The messages of a response, or why there are none.
fn outcomes(response: http::Response<ServedBody>) -> Result<Answers, Status> {
    let (head, body) = response.into_parts();
    match said(&head.headers).filter(|status| status.code() != Code::Ok) {
        Some(status) => Err(failure(&status)),
        None => Ok(BodyStream::new(body).filter_map(|frame| ready(message(frame))).boxed()),
    }
}

/// The message in a frame of a body, each of which holds one; or what the end says, if that is
/// not that all is well.
fn message(frame: Result<Frame<Bytes>, tonic::Status>) -> Option<Result<Bytes, Status>> {
    match frame.map(Frame::into_data) {
        Ok(Ok(data)) => Some(Ok(unframe(&data))),
        Ok(Err(end)) => {
            let status = said(end.trailers_ref()?).filter(|status| status.code() != Code::Ok)?;
            Some(Err(failure(&status)))
        }
        Err(status) => Some(Err(failure(&status))),
    }
}

fn said(headers: &HeaderMap) -> Option<tonic::Status> {
    tonic::Status::from_header_map(headers)
}

fn failure(status: &tonic::Status) -> Status {
    let detailed = Status::decode(status.details()).unwrap_or_default();
    Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: detailed.details,
    }
}

/// What is refused before there is a call, as gRPC says it.
pub(super) fn status_of_grpc(status: &Status) -> tonic::Status {
    let details = status.encode_to_vec().into();
    tonic::Status::with_details(status.code.into(), &status.message, details)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto;

    fn call(uri: &str, timeout: Option<Duration>) -> http::Request<Full<Bytes>> {
        let came = http::Request::builder().method("PUT").uri(uri);
        let came = came.header("grpc-timeout", "1n").header("content-type", "application/json");
        let came = came.header("user-agent", "curl/8").header("grpc-encoding", "gzip");
        let (head, ()) = came.body(()).unwrap().into_parts();
        let path = "/game.v1.GameService/GetCatalog".to_owned();
        let came_by = proto::Transport::Connect;
        request(Call { path, head, message: Bytes::from_static(b"abc"), timeout, came_by })
    }

    #[tokio::test]
    async fn a_call_becomes_a_request_of_grpc() {
        let made = call("http://herald:1/v1/catalog?a=b", None);
        assert_eq!(made.uri(), "http://herald:1/game.v1.GameService/GetCatalog");
        assert_eq!(made.method(), http::Method::POST);
        let headers = made.headers();
        assert_eq!(headers["content-type"], "application/grpc");
        assert_eq!(headers["user-agent"], "curl/8");
        assert!(!headers.contains_key("grpc-timeout") && !headers.contains_key("grpc-encoding"));
        assert_eq!(made.into_body().collect().await.unwrap().to_bytes(), "\0\0\0\0\x03abc");
        assert_eq!(call("/v1/catalog", None).uri(), "/game.v1.GameService/GetCatalog");
    }

    #[test]
    fn a_timeout_fits_into_eight_digits() {
        for (millis, expected) in
            [(0, "0m"), (99_999_999, "99999999m"), (9_999_999_999, "9999999S")]
        {
            let made = call("/", Some(Duration::from_millis(millis)));
            assert_eq!(made.headers()["grpc-timeout"], expected);
        }
    }
}
