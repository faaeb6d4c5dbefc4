//! gRPC-web, and which web pages may call.

use std::convert::Infallible;
use std::future::ready;

use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::header::{HeaderName, HeaderValue, ORIGIN};
use http::request::Parts;
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::util::BoxCloneSyncService;
use tower::{Service as _, ServiceBuilder, service_fn};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::Dispatch;
use super::access::Access;

/// Which web pages may call Herald from another origin than its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsPolicy {
    /// Those that come from the machine itself: `http://localhost:3000` and the like.
    Loopback,
    /// None.
    None,
    /// All.
    Any,
    /// Those of these origins.
    List(Vec<HeaderValue>),
}

/// What pages may read of an answer beside its body.
const EXPOSED: [HeaderName; 3] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];

/// How long a browser may remember the answer to its question.
const MAX_AGE: std::time::Duration = std::time::Duration::from_secs(3600);

impl CorsPolicy {
    /// Reads `loopback`, `none`, `any`, or origins separated by commas.
    ///
    /// # Errors
    ///
    /// Says which origin is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "loopback" => Ok(Self::Loopback),
            "none" => Ok(Self::None),
            "any" | "*" => Ok(Self::Any),
            list => list
                .split(',')
                .map(|origin| {
                    let origin = origin.trim();
                    let host = origin.split_once("://").map(|(_, host)| host);
                    match (host, HeaderValue::from_str(origin)) {
                        (Some(host), Ok(value)) if !host.is_empty() && !host.contains('/') => {
                            Ok(value)
                        }
                        _ => Err(format!("{origin:?} is no origin such as https://game.example")),
                    }
                })
                .collect::<Result<_, _>>()
                .map(Self::List),
        }
    }

    /// Whether a page of this origin may call. A page of Herald's own origin is no
    /// exception: there are none, and a name that is made to lead here would make any page
    /// one.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Loopback => is_loopback(origin),
            Self::None => false,
            Self::Any => true,
            Self::List(origins) => origins.contains(origin),
        }
    }

    fn layer(&self) -> CorsLayer {
        let policy = self.clone();
        let origins =
            AllowOrigin::predicate(move |origin: &HeaderValue, _: &Parts| policy.allows(origin));
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([http::Method::POST])
            .allow_headers(tower_http::cors::AllowHeaders::mirror_request())
            .expose_headers(EXPOSED)
            .max_age(MAX_AGE)
    }
}

fn is_loopback(origin: &HeaderValue) -> bool {
    let host = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.parse::<http::Uri>().ok())
        .and_then(|uri| uri.host().map(str::to_owned));
    host.is_some_and(|host| {
        host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    })
}

/// Whatever is not plain gRPC.
pub(super) struct Web {
    service: BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>,
    cors: CorsPolicy,
}

impl Web {
    pub fn new(dispatch: Dispatch, access: Access, cors: &CorsPolicy) -> Self {
        let calls = service_fn(move |request: http::Request<Body>| {
            let (dispatch, call) = (dispatch.clone(), access.begin(&request));
            async move {
                let response = call.watch(dispatch.serve(request).await);
                Ok::<_, Infallible>(response.map(Body::new))
            }
        });
        let service =
            ServiceBuilder::new().layer(cors.layer()).layer(GrpcWebLayer::new()).service(calls);
        Self { service: BoxCloneSyncService::new(service), cors: cors.clone() }
    }

    pub fn serve(
        &self,
        request: http::Request<Body>,
    ) -> impl Future<Output = http::Response<Body>> + Send + use<> {
        if request.headers().get(ORIGIN).is_some_and(|origin| !self.cors.allows(origin)) {
            let mut refusal = http::Response::new(Body::empty());
            *refusal.status_mut() = http::StatusCode::FORBIDDEN;
            return Either::Left(ready(refusal));
        }
        let served = self.service.clone().call(request);
        Either::Right(
            served.map(|served| served.unwrap_or_else(|never: Infallible| match never {})),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_from_the_machine_itself_are_told_from_others() {
        for (origin, loopback) in [
            ("http://localhost:3000", true),
            ("http://127.0.0.1", true),
            ("http://[::1]:8080", true),
            ("https://localhost.evil.example", false),
            ("http://127.0.0.1.evil.example", false),
            ("null", false),
        ] {
            assert_eq!(is_loopback(&HeaderValue::from_static(origin)), loopback, "{origin}");
        }
    }

    #[test]
    fn an_origin_has_a_scheme_and_no_path() {
        assert!(CorsPolicy::parse("https://a.example, https://b.example:8443").is_ok());
        for bad in ["a.example", "https://a.example/x", "https://", ""] {
            assert!(CorsPolicy::parse(bad).is_err(), "{bad:?}");
        }
    }
}
