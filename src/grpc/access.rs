//! Counts each call and writes its access line.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::{ByMethod, Peer};
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
    by_method: ByMethod<MethodMetrics>,
    other: MethodMetrics,
}

/// Looked up once a call, so that no label is hashed on the way.
#[derive(Clone)]
struct MethodMetrics {
    calls: [Counter; CODES.len()],
    duration: Histogram,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry, methods: &[&'static str]) -> Self {
        let calls = Family::<CallLabels, Counter>::default();
        let durations = Family::<MethodLabels, Histogram>::new_with_constructor(|| {
            // From 100 µs to about 26 s.
            Histogram::new(exponential_buckets(0.0001, 4.0, 10))
        });
        let registry = registry.sub_registry_with_prefix("grpc");
        registry.register("calls", "Calls by method and code", calls.clone());
        registry.register_with_unit(
            "call_duration",
            "From the headers of the request to the end of the response",
            Unit::Seconds,
            durations.clone(),
        );
        let of = |method: &'static str| MethodMetrics {
            calls: CODES.map(|code| calls.get_or_create(&CallLabels { method, code }).clone()),
            duration: durations.get_or_create(&MethodLabels { method }).clone(),
        };
        let by_method = methods.iter().map(|method| (*method, of(method))).collect();
        Self { by_method, other: of(OTHER) }
    }
}

/// Wraps a service, so that each of its calls is counted and written down.
#[derive(Clone)]
pub(super) struct Access<S> {
    inner: S,
    metrics: Arc<Metrics>,
    log: AccessLog,
}

impl<S> Access<S> {
    pub fn new(inner: S, metrics: Arc<Metrics>, log: AccessLog) -> Self {
        Self { inner, metrics, log }
    }
}

impl<S> Service<http::Request<Body>> for Access<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = AccessFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = Call {
            metrics: Arc::clone(&self.metrics),
            log: self.log.clone(),
            uri: request.uri().clone(),
            peer: request.extensions().get().map(|Peer(peer)| *peer),
            begun: Instant::now(),
            code: CANCELLED,
        };
        AccessFuture { inner: self.inner.call(request), call: Some(call) }
    }
}

/// The response on its way.
pub(super) struct AccessFuture<F> {
    inner: F,
    call: Option<Call>,
}

impl<F> Future for AccessFuture<F>
where
    F: Future<Output = Result<http::Response<Body>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = ready!(Pin::new(&mut self.inner).poll(cx));
        Poll::Ready(Ok(match self.call.take() {
            None => response,
            Some(mut call) => {
                let in_headers = call.note_code(response.headers());
                if in_headers || response.body().is_end_stream() {
                    response
                } else {
                    response.map(|inner| Body::new(AccessBody { inner, call }))
                }
            }
        }))
    }
}

/// One call; counted and written down when dropped.
struct Call {
    metrics: Arc<Metrics>,
    log: AccessLog,
    uri: http::Uri,
    peer: Option<SocketAddr>,
    begun: Instant,
    /// CANCELLED until a status was seen: so ends a call that nobody waits for.
    code: usize,
}

impl Call {
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
        let method = self.uri.path();
        let metrics = self.metrics.by_method.get(method).unwrap_or(&self.metrics.other);
        metrics.calls[self.code].inc();
        metrics.duration.observe(duration.as_secs_f64());
        let peer: &dyn std::fmt::Display = match &self.peer {
            Some(peer) => peer,
            None => &"unknown",
        };
        self.log.record(&AccessLine { method, code: CODES[self.code], duration, peer });
    }
}

/// A response's body, watched for its trailers.
struct AccessBody {
    inner: Body,
    call: Call,
}

impl http_body::Body for AccessBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.note_code(trailers);
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
