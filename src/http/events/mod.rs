//! The live feed for browsers and scripts: `StreamEvents` as server-sent events or as lines of
//! JSON, whichever the caller accepts.
//!
//! A browser's `EventSource` comes back by itself, with the id of the last block that it got. That
//! id is the cursor behind it, so that nothing is lost and nothing comes twice.

mod form;
mod passing;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{ALLOW, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Either;
use prost::Message as _;
use prost_reflect::{Kind, MessageDescriptor};

use super::rest::{self, Fields};
use super::{Answer, Call, Inner, Status, accept, body, problem, query, schema};
use crate::proto;

use form::Form;
pub use passing::FeedBody;
use passing::Types;

pub(super) const PATH: &str = "/v1/events";
pub(super) const CALL: &str = "/game.v1.EventFeedService/StreamEvents";
const EVENT: &str = "game.v1.DeliveredEvent";
const ALLOWED: &str = "GET, HEAD";

/// What a stream can be; who does not mind gets the first.
pub(super) const TYPES: [&str; 3] =
    ["text/event-stream", "application/x-ndjson", "application/jsonl"];

/// Names of the query for what is asked for most.
pub(super) const SHORT_NAMES: [(&str, &str); 3] = [
    ("type", "filter.event_types"),
    ("player", "filter.player_ids"),
    ("guild", "filter.guild_ids"),
];

/// For those who wrote none of them.
pub(super) const START_FORMS: &str =
    "write earliest, latest, a cursor, or a time such as 2026-11-21T10:00:00Z";

/// What a browser sends that comes back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Proxies that gather what they pass on let it through at once, where they know this.
/// Source: <https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering>.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Whether a request is for the feed.
pub(super) fn takes<B>(request: &Request<B>) -> bool {
    request.uri().path() == PATH
}

/// Serves a request that was taken.
pub(super) async fn serve<B>(inner: &Inner, request: Request<B>) -> Answer
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let as_text = rest::wants_text(request.headers());
    let needs_draining = body::needs_draining(&request);
    let (head, mut body) = request.into_parts();
    let extensions = head.extensions.clone();
    let status = match asked(inner, head) {
        Ok(asked) => match stream(inner, asked).await {
            Ok(answer) => return answer,
            Err(status) => status,
        },
        Err(status) => {
            inner.calls.refused(CALL, &extensions, &status);
            if needs_draining {
                body::drain(&mut body).await;
            }
            status
        }
    };
    let mut answer = problem::problem(&status, as_text);
    if answer.status() == StatusCode::METHOD_NOT_ALLOWED {
        super::set(&mut answer, ALLOW, ALLOWED);
    }
    answer
}

/// A stream as it was asked for.
struct Asked {
    call: Call,
    /// Of [`TYPES`].
    content_type: &'static str,
    types: Types,
    head_only: bool,
}

fn asked(inner: &Inner, head: Parts) -> Result<Asked, Status> {
    let head_only = head.method == Method::HEAD;
    if !head_only && head.method != Method::GET {
        return Err(Status::wrong_method(ALLOWED));
    }
    let content_type = accept::best(&TYPES, &head.headers);
    let content_type = content_type.ok_or_else(|| Status::not_acceptable(&TYPES))?;
    let known = inner.schema.method(CALL).zip(inner.schema.message(EVENT));
    let (method, event) = known.ok_or_else(|| Status::unknown_method("there is no such call"))?;
    let fields = fields(&method.input(), &head)?;
    let message = rest::message(method.input(), &fields, &[])?.encode_to_vec().into();
    let (path, came_by) = (CALL.to_owned(), proto::Transport::Http);
    let call = Call { path, head, message, timeout: None, came_by };
    let types = Types { message: method.output(), event };
    Ok(Asked { call, content_type, types, head_only })
}

async fn stream(inner: &Inner, asked: Asked) -> Result<Answer, Status> {
    let Asked { call, content_type, types, head_only } = asked;
    let messages =
        if head_only { stream::empty().boxed() } else { inner.calls.stream(call).await? };
    let form = if content_type == TYPES[0] { Form::ServerSent } else { Form::Lines };
    let body = FeedBody::new(messages, form, types);
    let mut answer = problem::success(content_type, Bytes::new());
    *answer.body_mut() = Either::Right(Box::new(body));
    super::set(&mut answer, X_ACCEL_BUFFERING, "no");
    Ok(answer)
}

/// The fields of the call: what the query says, but for where to start when a browser comes back,
/// as it then asks for the same address as before.
fn fields(of: &MessageDescriptor, head: &Parts) -> Result<Fields, Status> {
    let asked = query::pairs(head.uri.query())?.into_iter();
    let in_full = asked.map(|(name, text)| in_full(of, name, text));
    let mut fields = in_full.collect::<Result<Fields, Status>>()?;
    if let Some(cursor) = last_event_id(&head.headers)? {
        fields.retain(|(name, _)| !is_start(of, name));
        fields.push(("after_cursor".to_owned(), cursor));
    }
    Ok(fields)
}

/// A field and its value by their own names, where they are given by shorter ones.
fn in_full(of: &MessageDescriptor, name: String, text: String) -> Result<(String, String), Status> {
    let (name, text) = match SHORT_NAMES.iter().find(|(short, _)| *short == name) {
        Some((_, full)) => ((*full).to_owned(), text),
        None if name == "start" => start(text)?,
        None => (name, text),
    };
    let kind = schema::field(of, &name).map(|field| field.kind());
    let value = kind.as_ref().and_then(Kind::as_enum).and_then(|values| {
        let end = format!("_{}", text.to_ascii_uppercase());
        values.values().find(|value| value.name().ends_with(&end))
    });
    Ok((name, value.map_or(text, |value| value.name().to_owned())))
}

/// What `start` stands for.
fn start(text: String) -> Result<(String, String), Status> {
    let (name, text) = match text.as_str() {
        "earliest" | "latest" => ("start_position", text),
        // A cursor begins with its version, whose first digit in base64 is a letter. The plus
        // before the hours of a time zone is a space in a query, unless somebody thinks of it.
        _ if text.starts_with(|c: char| c.is_ascii_digit()) => {
            ("start_time", text.replace(' ', "+"))
        }
        _ => ("after_cursor", text),
    };
    if name == "start_time" && text.parse::<prost_types::Timestamp>().is_err() {
        return Err(Status::malformed_field("start", START_FORMS));
    }
    Ok((name.to_owned(), text))
}

fn is_start(of: &MessageDescriptor, name: &str) -> bool {
    let of = schema::field(of, name).and_then(|field| field.containing_oneof());
    of.is_some_and(|of| of.name() == "start")
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<String>, Status> {
    let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) else { return Ok(None) };
    let id = id.to_str().map_err(|_| Status::malformed_field("last-event-id", "is no cursor"))?;
    Ok(Some(id.to_owned()))
}
