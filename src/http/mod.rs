//! JSON over plain HTTP, on the port of gRPC: translates, and decides nothing.
//!
//! A request becomes the message of a gRPC call by the descriptors of the schema
//! ([`schema`]), not by code for each call, and its answer becomes JSON again. Three forms come
//! in here: the Connect protocol's calls with one answer ([`connect`]), routes for people with
//! curl ([`rest`]), and the feed, whose answer goes on ([`events`]). [`openapi`]
//! describes them, and [`pages`] says which web pages may call, also over gRPC-web.
//!
//! How a call gets to the rooms is [`Calls`]: in process, through the transport of gRPC, so
//! that what is refused, counted and written down is the same. This room does not know it.
//! [`problem`] is the only place that knows HTTP's codes.

mod accept;
mod body;
mod connect;
mod events;
mod openapi;
mod pages;
mod problem;
mod query;
mod rest;
mod schema;
mod status;
mod words;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http_body_util::{Either, Full};

use crate::proto;

pub use events::FeedBody;
pub use openapi::json_schema;
pub use pages::{CorsPolicy, PagePolicy, host, open_to};
pub use schema::Schema;
pub use status::Status;

/// What is answered, whole or bit by bit.
pub type Answer = http::Response<Either<Full<Bytes>, Box<FeedBody>>>;

/// The encoded answers of one call, read as they are asked for. An error is the last of them.
pub type Answers = BoxStream<'static, Result<Bytes, Status>>;

/// One call with one message, on its way to the rooms.
pub struct Call {
    /// `/package.Service/Method`.
    pub path: String,
    /// Of the request that it came as: headers and extensions are the caller's.
    pub head: http::request::Parts,
    /// The encoded message; at most as large as the transport takes.
    pub message: Bytes,
    /// How long the caller waits; for ever when absent.
    pub timeout: Option<Duration>,
    /// What the event says of how it came.
    pub came_by: proto::Transport,
}

/// How a call gets to the rooms.
pub trait Calls: Send + Sync {
    /// Makes a call with one answer; the encoded answer. Dropped, it is given up.
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Bytes, Status>>;

    /// Makes a call with many answers, once it is known that there will be any. Dropped, they
    /// are given up.
    fn stream(&self, call: Call) -> BoxFuture<'static, Result<Answers, Status>>;

    /// Counts and writes down what is refused here, before there is a call: what was asked for,
    /// `/package.Service/Method` where that is known, and the extensions of the request.
    fn refused(&self, path: &str, extensions: &http::Extensions, status: &Status);
}

/// What is served here, for one runtime. Cheap to clone.
#[derive(Clone)]
pub struct Http(Arc<Inner>);

struct Inner {
    schema: Schema,
    calls: Box<dyn Calls>,
    /// The most bytes of a request's body.
    max_message_bytes: usize,
}

impl Http {
    /// What is served for one runtime; its calls go to `calls`.
    pub fn new(schema: Schema, calls: impl Calls + 'static, max_message_bytes: usize) -> Self {
        Self(Arc::new(Inner { schema, calls: Box::new(calls), max_message_bytes }))
    }

    /// Whether a request is for here. Not to be asked about gRPC.
    pub fn takes<B>(&self, request: &http::Request<B>) -> bool {
        rest::takes(request) || openapi::takes(request) || connect::takes(&self.0.schema, request)
    }

    /// Serves a request that is for here.
    pub fn serve<B>(&self, request: http::Request<B>) -> BoxFuture<'static, Answer>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Send,
    {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            if events::takes(&request) {
                events::serve(&inner, request).await
            } else if rest::takes(&request) {
                rest::serve(&inner, request).await
            } else if openapi::takes(&request) {
                openapi::serve(&inner.schema)
            } else {
                connect::serve(&inner, request).await
            }
        })
    }

    /// Refuses a request, in the form that its caller reads.
    pub fn refuse<B>(
        &self,
        mut request: http::Request<B>,
        status: Status,
    ) -> BoxFuture<'static, Answer>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Send,
    {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let (path, headers) = (request.uri().path(), request.headers());
            let (asked_for, answer) = if rest::takes(&request) {
                let answer = problem::problem(&status, rest::wants_text(headers));
                let streams = events::takes(&request);
                let call =
                    if streams { events::CALL } else { rest::call_of(request.method(), path) };
                (call, answer)
            } else if connect::takes(&inner.schema, &request) {
                let content_type = content_type(headers);
                (path, connect::refusal(&inner.schema, path, &content_type, &status))
            } else {
                (path, problem::problem(&status, true))
            };
            inner.calls.refused(asked_for, request.extensions(), &status);
            if body::needs_draining(&request) {
                body::drain(request.body_mut()).await;
            }
            answer
        })
    }
}

/// An answer that nobody keeps or takes for something else: what it says is true now, and
/// it may repeat what the caller sent.
fn answer(status: http::StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = http::Response::new(Either::Left(Full::new(body.into())));
    *answer.status_mut() = status;
    set(&mut answer, CONTENT_TYPE, content_type);
    set(&mut answer, CACHE_CONTROL, "no-store");
    set(&mut answer, X_CONTENT_TYPE_OPTIONS, "nosniff");
    answer
}

fn set(answer: &mut Answer, name: HeaderName, value: &'static str) {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
}

/// The type of a request's body in lower case, without its parameters; empty when it has none.
/// One whose text is not UTF-8 has another type than JSON.
fn content_type(headers: &http::HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    let text = text.to_ascii_lowercase();
    let (name, parameters) = text.split_once(';').unwrap_or((&text, ""));
    let charset = parameters.split(';').find_map(|one| one.trim().strip_prefix("charset="));
    match charset {
        Some(charset) if !["utf-8", "utf8"].contains(&charset.trim_matches('"')) => text,
        _ => name.trim().to_owned(),
    }
}
