//! The Connect protocol: calls with one message and one answer, as JSON or as protobuf.
//! Source: <https://connectrpc.com/docs/protocol>.
//!
//! Streams are not served in this way. Who calls one is told so, in the form that its client
//! reads.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_ENCODING, HeaderName};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use prost::Message as _;
use prost_reflect::{MessageDescriptor, MethodDescriptor};

use super::{Answer, Call, Inner, Schema, Status, body, content_type, problem, query, schema};
use crate::proto;

/// The headers of the protocol.
const VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// The types of messages that are read.
const READ: &str = "application/json, application/proto";

/// The most digits of a timeout: some 115 days.
const TIMEOUT_DIGITS: usize = 10;

/// Of an envelope that ends a stream. Source: the protocol, "Streaming RPCs".
const END_STREAM: u8 = 2;

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Proto,
}

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Proto => "application/proto",
        }
    }

    /// What Connect's client has written.
    fn of(content_type: &str) -> Option<Self> {
        [Self::Json, Self::Proto].into_iter().find(|form| form.content_type() == content_type)
    }
}

/// The type of the answer to a stream, when a request is Connect's call of one.
fn stream_type(content_type: &str) -> Option<&'static str> {
    ["application/connect+json", "application/connect+proto"]
        .into_iter()
        .find(|known| *known == content_type)
}

/// Whether a request is a call of a service that is known, or is Connect's by its type.
pub(super) fn takes<B>(schema: &Schema, request: &Request<B>) -> bool {
    let is_connect = || {
        let content_type = content_type(request.headers());
        Form::of(&content_type).is_some() || stream_type(&content_type).is_some()
    };
    schema.has_service(request.uri().path()) || (request.method() == Method::POST && is_connect())
}

/// Serves a request that was taken.
pub(super) async fn serve<B>(inner: &Inner, request: Request<B>) -> Answer
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let content_type = content_type(request.headers());
    let needs_draining = body::needs_draining(&request);
    let (head, mut body) = request.into_parts();
    let (path, extensions) = (head.uri.path().to_owned(), head.extensions.clone());
    let status = match asked(inner, &content_type, head, &mut body).await {
        Ok(asked) => match call(inner, asked).await {
            Ok(answer) => return answer,
            Err(status) => status,
        },
        Err(status) => {
            inner.calls.refused(&path, &extensions, &status);
            if needs_draining {
                body::drain(&mut body).await;
            }
            status
        }
    };
    refusal(&inner.schema, &path, &content_type, &status)
}

/// A failed call, in the form that the client reads who has sent this type.
pub(super) fn refusal(schema: &Schema, path: &str, content_type: &str, status: &Status) -> Answer {
    let method = schema.method(path);
    if let Some(stream_type) = stream_type(content_type)
        && method.as_ref().is_none_or(streams)
    {
        return end_of_stream(schema, stream_type, status);
    }
    let mut answer = problem::connect(schema, status);
    match answer.status() {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => super::set(&mut answer, ACCEPT_POST, READ),
        StatusCode::METHOD_NOT_ALLOWED => {
            let reads = method.as_ref().is_some_and(schema::only_reads);
            super::set(&mut answer, ALLOW, allowed(reads));
        }
        _ => {}
    }
    answer
}

/// The methods of HTTP for a call.
fn allowed(reads: bool) -> &'static str {
    if reads { "GET, POST" } else { "POST" }
}

pub(super) fn streams(method: &MethodDescriptor) -> bool {
    method.is_server_streaming() || method.is_client_streaming()
}

/// A call as it was asked for.
struct Asked {
    call: Call,
    form: Form,
    output: MessageDescriptor,
}

async fn asked<B>(
    inner: &Inner,
    content_type: &str,
    head: Parts,
    body: &mut B,
) -> Result<Asked, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let path = head.uri.path().to_owned();
    let method = inner.schema.method(&path);
    let method = method.ok_or_else(|| Status::unknown_method("there is no such method"))?;
    if streams(&method) {
        return Err(Status::unknown_method(format!(
            "{} streams: call it over gRPC or gRPC-web; the feed is at /v1/events too",
            method.name()
        )));
    }
    let reads = schema::only_reads(&method);
    let (form, message) = match head.method {
        Method::POST => {
            let form = Form::of(content_type).ok_or_else(|| wrong_type(content_type))?;
            check_headers(&head.headers)?;
            (form, body::read(body, inner.max_message_bytes).await?)
        }
        Method::GET if reads => from_query(head.uri.query())?,
        _ => return Err(Status::wrong_method(allowed(reads))),
    };
    let timeout = timeout(&head.headers)?;
    let message = match form {
        Form::Json => schema::from_json(method.input(), &message)?.encode_to_vec().into(),
        Form::Proto => message,
    };
    let came_by = proto::Transport::Connect;
    let call = Call { path, head, message, timeout, came_by };
    Ok(Asked { call, form, output: method.output() })
}

fn check_headers(headers: &http::HeaderMap) -> Result<(), Status> {
    if headers.get(VERSION).is_some_and(|version| version != "1") {
        return Err(Status::malformed("connect-protocol-version has to be 1"));
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Status::compressed());
    }
    Ok(())
}

/// The message that a query is. How long it is, the bound on headers says.
fn from_query(query: Option<&str>) -> Result<(Form, Bytes), Status> {
    let pairs = query::pairs(query)?;
    let value =
        |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if value("connect").is_some_and(|version| version != "v1") {
        return Err(Status::malformed_field("connect", "has to be v1"));
    }
    if !["", "identity"].contains(&value("compression").unwrap_or_default()) {
        return Err(Status::compressed());
    }
    let form = match value("encoding") {
        Some("json") => Form::Json,
        Some("proto") => Form::Proto,
        Some(other) => return Err(wrong_type(other)),
        None => return Err(Status::malformed_field("encoding", "missing; json or proto")),
    };
    let Some(message) = value("message") else {
        return Err(Status::malformed_field("message", "missing; {} when it is empty"));
    };
    let message = match value("base64") {
        Some("1") => URL_SAFE_NO_PAD
            .decode(message.trim_end_matches('='))
            .map_err(|_| Status::malformed_field("message", "is no URL-safe base64"))?,
        _ => message.as_bytes().to_vec(),
    };
    Ok((form, message.into()))
}

async fn call(inner: &Inner, asked: Asked) -> Result<Answer, Status> {
    let Asked { call, form, output } = asked;
    let answered = inner.calls.call(call).await?;
    let written = match form {
        Form::Json => schema::to_json(output, answered)?.into(),
        Form::Proto => answered,
    };
    Ok(problem::success(form.content_type(), written))
}

/// How long the caller waits.
fn timeout(headers: &http::HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let digits = value.as_bytes();
    let is_number = digits.iter().all(u8::is_ascii_digit) && !digits.is_empty();
    let millis = value.to_str().ok().filter(|_| is_number && digits.len() <= TIMEOUT_DIGITS);
    match millis.and_then(|millis| millis.parse().ok()) {
        Some(millis) => Ok(Some(Duration::from_millis(millis))),
        None => Err(Status::malformed("connect-timeout-ms has to be a number of 1 to 10 digits")),
    }
}

fn wrong_type(named: &str) -> Status {
    Status::wrong_type(named, &format!("one of {READ}, or application/grpc"))
}

/// The answer to a call of a stream: its end, in an envelope, which says why.
fn end_of_stream(schema: &Schema, content_type: &'static str, status: &Status) -> Answer {
    let end = serde_json::json!({ "error": problem::connect_error(schema, status) }).to_string();
    let length = u32::try_from(end.len()).unwrap_or(u32::MAX);
    let mut envelope = vec![END_STREAM];
    envelope.extend(length.to_be_bytes());
    envelope.extend(end.into_bytes());
    problem::success(content_type, envelope)
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;

    #[test]
    fn a_timeout_has_at_most_ten_digits() {
        let read = |text: &'static str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(TIMEOUT, HeaderValue::from_static(text));
            timeout(&headers)
        };
        assert_eq!(read("0").unwrap(), Some(Duration::ZERO));
        assert_eq!(read("9999999999").unwrap(), Some(Duration::from_millis(9_999_999_999)));
        for bad in ["", "-1", "+1", "1.5", "1s", "10000000000"] {
            assert!(read(bad).unwrap_err().message.contains("connect-timeout-ms"), "{bad:?}");
        }
        assert_eq!(timeout(&http::HeaderMap::new()).unwrap(), None);
    }
}
