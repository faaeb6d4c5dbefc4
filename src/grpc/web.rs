//! gRPC-web, and which web pages may call.

use std::convert::Infallible;
use std::future::ready;

use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
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

    /// Whether a page of this origin may call what it names `host`. Herald's own page may where
    /// it was called by an address or on loopback; a name that somebody makes lead here would
    /// make any page its own (DNS rebinding), and so has to be in the list.
    pub fn allows(&self, origin: &HeaderValue, host: &str) -> bool {
        is_own(origin, host)
            || match self {
                Self::Loopback => is_loopback(origin),
                Self::None => false,
                Self::Any => true,
                Self::List(origins) => origins.contains(origin),
            }
    }

    /// Whether nobody else can have made the name `host` lead here, or the operator has listed
    /// it.
    pub fn knows(&self, host: &str) -> bool {
        let is_this =
            |origin: &HeaderValue| authority(origin).is_some_and(|authority| authority == *host);
        match self {
            Self::Any => true,
            Self::List(origins) if origins.iter().any(is_this) => true,
            _ => host.parse().is_ok_and(|host| is_fixed(&host)),
        }
    }

    fn layer(&self) -> CorsLayer {
        let policy = self.clone();
        let origins = AllowOrigin::predicate(move |origin: &HeaderValue, head: &Parts| {
            policy.allows(origin, host(&head.headers, &head.uri))
        });
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([http::Method::POST])
            .allow_headers(tower_http::cors::AllowHeaders::mirror_request())
            .expose_headers(EXPOSED)
            .max_age(MAX_AGE)
    }
}

/// The host that a request names; empty when it names none.
pub fn host<'a>(headers: &'a http::HeaderMap, uri: &'a http::Uri) -> &'a str {
    let named = headers.get(HOST).and_then(|host| host.to_str().ok());
    named.or_else(|| Some(uri.authority()?.as_str())).unwrap_or_default()
}

fn is_loopback(origin: &HeaderValue) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<http::Uri>().ok());
    origin.as_ref().and_then(http::Uri::host).is_some_and(|host| match address(host) {
        Some(address) => address.is_loopback(),
        None => host == "localhost",
    })
}

/// Whether an origin is that of the server, which was called by something that nobody else can
/// make lead here.
fn is_own(origin: &HeaderValue, host: &str) -> bool {
    authority(origin).is_some_and(|authority| authority == *host && is_fixed(&authority))
}

/// The host and port of an origin.
fn authority(origin: &HeaderValue) -> Option<Authority> {
    let (_, authority) = origin.to_str().ok()?.split_once("://")?;
    authority.parse().ok()
}

/// Whether nobody can make this lead anywhere else.
fn is_fixed(authority: &Authority) -> bool {
    address(authority.host()).is_some() || authority.host() == "localhost"
}

/// The address that a host is, if it is none by name.
fn address(host: &str) -> Option<std::net::IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
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
        let host = host(request.headers(), request.uri());
        if request.headers().get(ORIGIN).is_some_and(|origin| !self.cors.allows(origin, host)) {
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
    fn the_servers_own_page_is_told_from_pages_under_names_that_lead_here() {
        for (origin, host, own) in [
            ("http://192.168.1.5:50051", "192.168.1.5:50051", true),
            ("https://192.168.1.5", "192.168.1.5", true),
            ("http://[2001:db8::1]:50051", "[2001:db8::1]:50051", true),
            ("http://localhost:50051", "localhost:50051", true),
            ("http://192.168.1.5:50051", "192.168.1.5:50052", false),
            ("http://192.168.1.5:50051", "", false),
            ("http://evil.example:50051", "evil.example:50051", false),
            ("http://evil.example", "192.168.1.5:50051", false),
            ("null", "null", false),
        ] {
            let origin = HeaderValue::from_static(origin);
            assert_eq!(CorsPolicy::None.allows(&origin, host), own, "{origin:?} {host}");
        }
        let named = CorsPolicy::parse("https://events.example").unwrap();
        let allows = |origin| named.allows(&HeaderValue::from_static(origin), "events.example");
        assert!(allows("https://events.example") && !allows("http://events.example"));
    }

    #[test]
    fn a_host_is_known_by_what_it_is_or_by_the_list() {
        let list = CorsPolicy::parse("https://events.example:8443").unwrap();
        for (host, fixed, listed) in [
            ("127.0.0.1:50051", true, true),
            ("[::1]:50051", true, true),
            ("localhost", true, true),
            ("192.168.1.5", true, true),
            ("events.example:8443", false, true),
            ("events.example", false, false),
            ("localhost.evil.example", false, false),
            ("127.0.0.1.evil.example", false, false),
        ] {
            assert_eq!(CorsPolicy::Loopback.knows(host), fixed, "{host}");
            assert_eq!(list.knows(host), listed, "{host}");
            assert!(CorsPolicy::Any.knows(host));
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
