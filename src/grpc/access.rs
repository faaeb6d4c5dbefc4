//! Counts each call and writes its access line.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::Peer;
use crate::telemetry::{AccessLine, AccessLog};

/// The names of gRPC's codes, by number.
/// Source: <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const CANCELLED: usize = 1;
const UNKNOWN: usize = 2;

/// The name under which calls of methods without metrics of their own are counted.
const OTHER: &str = "other";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

/// What the transport counts.
pub struct Metrics {
    /// A handful, so that looking through them is quicker than hashing.
    methods: Vec<MethodMetrics>,
    other: MethodMetrics,
}

/// Found once a call, so that no label is hashed on the way.
struct MethodMetrics {
    method: &'static str,
    family: Family<CallLabels, Counter>,
    /// Made when first needed, so that only what has happened is listed.
    calls: [OnceLock<Counter>; CODES.len()],
    /// None for streams, which last as long as somebody listens.
    duration: Option<Histogram>,
}

impl MethodMetrics {
    fn count(&self, code: usize, duration: Duration) {
        let (method, code_name) = (self.method, CODES[code]);
        let new = || self.family.get_or_create(&CallLabels { method, code: code_name }).clone();
        self.calls[code].get_or_init(new).inc();
        if let Some(histogram) = &self.duration {
            histogram.observe(duration.as_secs_f64());
        }
    }
}

impl Metrics {
    pub(super) fn register(
        registry: &mut Registry,
        unary: &[&'static str],
        streaming: &[&'static str],
    ) -> Self {
        let family = Family::<CallLabels, Counter>::default();
        let durations = Family::<MethodLabels, Histogram>::new_with_constructor(|| {
            // From 100 µs to about 26 s.
            Histogram::new(exponential_buckets(0.0001, 4.0, 10))
        });
        let registry = registry.sub_registry_with_prefix("grpc");
        registry.register("calls", "Calls by method and code", family.clone());
        registry.register_with_unit(
            "call_duration",
            "From the headers of a unary call's request to the end of its response",
            Unit::Seconds,
            durations.clone(),
        );
        let of = |method, duration| MethodMetrics {
            method,
            family: family.clone(),
            calls: [const { OnceLock::new() }; CODES.len()],
            duration,
        };
        let timed = |method| durations.get_or_create(&MethodLabels { method }).clone();
        let unary = unary.iter().map(|method| of(method, Some(timed(method))));
        let streaming = streaming.iter().map(|method| of(method, None));
        Self { methods: unary.chain(streaming).collect(), other: of(OTHER, None) }
    }
}

/// Watches the calls of one runtime, so that each is counted and written down. Cheap to clone:
/// what is counted is the runtime's own, unlike the metrics, whose count of users all share.
#[derive(Clone)]
pub(super) struct Access(Arc<Books>);

struct Books {
    metrics: Arc<Metrics>,
    log: AccessLog,
}

impl Access {
    pub fn new(metrics: Arc<Metrics>, log: AccessLog) -> Self {
        Self(Arc::new(Books { metrics, log }))
    }

    /// Begins a call.
    pub fn begin<B>(&self, request: &http::Request<B>) -> Call {
        self.begin_at(request.uri().path(), request.extensions())
    }

    /// Notes a call that has ended with a code before it began.
    pub fn note(&self, path: &str, extensions: &http::Extensions, code: i32) {
        let known = usize::try_from(code).ok().filter(|code| *code < CODES.len());
        self.begin_at(path, extensions).code = known.unwrap_or(UNKNOWN);
    }

    fn begin_at(&self, path: &str, extensions: &http::Extensions) -> Call {
        let metrics = &self.0.metrics;
        let method = match metrics.methods.iter().position(|known| known.method == path) {
            Some(index) => Method::Known(index),
            None => Method::Other(path.into()),
        };
        Call {
            access: self.clone(),
            method,
            peer: extensions.get().cloned(),
            begun: Instant::now(),
            code: CANCELLED,
        }
    }
}

/// What is called.
enum Method {
    /// The one at this place of [`Metrics::methods`].
    Known(usize),
    /// Another one, by its path.
    Other(Box<str>),
}

/// One call; counted and written down when dropped.
pub(super) struct Call {
    access: Access,
    method: Method,
    peer: Option<Peer>,
    begun: Instant,
    /// CANCELLED until a status was seen: so ends a call that nobody waits for.
    code: usize,
}

impl Call {
    /// Ends with the response, now or when its body has ended.
    pub fn watch<B>(mut self, response: http::Response<B>) -> http::Response<Watched<B>> {
        let call = if self.note_code(response.headers()) { None } else { Some(self) };
        response.map(|inner| Watched { inner, call })
    }

    /// Takes the code from headers or trailers; whether there was one.
    fn note_code(&mut self, headers: &HeaderMap) -> bool {
        let Some(code) = headers.get("grpc-status") else { return false };
        let code = code.to_str().ok().and_then(|code| code.parse().ok());
        self.code = code.filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN);
        true
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let duration = self.begun.elapsed();
        let Metrics { methods, other } = &*self.access.0.metrics;
        let (metrics, method) = match &self.method {
            Method::Known(index) => (&methods[*index], methods[*index].method),
            Method::Other(path) => (other, &**path),
        };
        metrics.count(self.code, duration);
        self.access.0.log.record(&AccessLine {
            method,
            code: CODES[self.code],
            duration,
            peer: self.peer.as_ref().map_or("unknown", Peer::text),
        });
    }
}

/// A response's body, watched for its trailers.
pub struct Watched<B> {
    inner: B,
    call: Option<Call>,
}

impl<B> Watched<B> {
    /// A body that nobody counts, or somebody else does.
    pub fn unwatched(inner: B) -> Self {
        Self { inner, call: None }
    }
}

impl<B> http_body::Body for Watched<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &polled
            && let Some(trailers) = frame.trailers_ref()
            && let Some(call) = &mut self.call
        {
            call.note_code(trailers);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}
