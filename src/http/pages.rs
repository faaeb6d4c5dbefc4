//! Which web pages may call, under which names the server may be called, and what pages may
//! read: one set of rules for whatever a browser can send.
//!
//! Nobody is asked who they are, so a browser on the operator's machine could act for every page
//! that it shows. Herald's own page may call, and those that the operator lets; another page is
//! known by the `Origin` or the `Sec-Fetch-Site` that its browser sends, and one under a name
//! that was made to lead here (DNS rebinding) by the `Host`. What is no browser sends none of
//! these, and may call. Sources: <https://fetch.spec.whatwg.org/#http-cors-protocol>,
//! <https://www.w3.org/TR/fetch-metadata/>.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Uri};

use super::{Answer, Status, problem};

/// What calls are made by.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, DELETE");

/// What pages may read of an answer beside its body and what browsers show of any.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "accept-post, allow, etag, grpc-message, grpc-status, grpc-status-details-bin, retry-after",
);

/// How many seconds a browser may remember the answer to its question.
const MAX_AGE: HeaderValue = HeaderValue::from_static("3600");

/// How the page that has started a request is related to the server, and what the answer is
/// for: set by the browser, and by no page.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Asked by some browsers for a page of the internet that calls a server on the machine or in
/// its network. Source: <https://wicg.github.io/private-network-access/>.
const PRIVATE_REQUEST: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const PRIVATE_ALLOW: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Which web pages may call Herald from another origin than its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CorsPolicy {
    /// Those that come from the machine itself: `http://localhost:3000` and the like.
    Loopback,
    /// None.
    #[default]
    None,
    /// All.
    Any,
    /// Those of these origins.
    List(Vec<HeaderValue>),
}

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
}

/// Which web pages may call, and under which names the server may be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PagePolicy {
    /// The pages of other origins.
    pub cors: CorsPolicy,
    /// The names that lead here by the operator's word.
    pub hosts: Vec<String>,
}

impl PagePolicy {
    /// Reads names separated by commas.
    ///
    /// # Errors
    ///
    /// Says which name is none.
    pub fn parse_hosts(text: &str) -> Result<Vec<String>, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        names
            .map(|name| match name.chars().all(is_part) && !name.starts_with('.') {
                true => Ok(name.to_owned()),
                false => Err(format!("{name:?} is no name such as events.example")),
            })
            .collect()
    }

    /// Decides whether a request may be served. A caller on this machine is local to it.
    ///
    /// # Errors
    ///
    /// It comes from a page that may not call, or names a host that is not known.
    pub fn admit<B>(&self, request: &Request<B>, is_local: bool) -> Result<(), Status> {
        let host = host(request.headers(), request.uri());
        match request.headers().get(ORIGIN) {
            Some(origin) if self.allows(origin, host) => Ok(()),
            Some(_) => Err(Status::origin_denied()),
            None if is_of_unnamed_page(request) && self.cors != CorsPolicy::Any => {
                Err(Status::origin_denied())
            }
            None if host.is_empty() || self.knows(host) => Ok(()),
            None if is_local || !self.hosts.is_empty() => Err(Status::host_unknown()),
            None => Ok(()),
        }
    }

    /// The answer to a browser that asks whether a page may make a call; `None` to any other
    /// request.
    pub fn preflight<B>(&self, request: &Request<B>) -> Option<Answer> {
        let asked = request.headers();
        let origin = asked.get(ORIGIN).filter(|_| request.method() == Method::OPTIONS)?;
        asked.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let mut answer = if self.allows(origin, host(asked, request.uri())) {
            let mut answer = problem::empty();
            let headers = answer.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            // Which headers mean something, the call itself decides.
            if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
            if asked.contains_key(PRIVATE_REQUEST) {
                headers.insert(PRIVATE_ALLOW, HeaderValue::from_static("true"));
            }
            answer
        } else {
            problem::problem(&Status::origin_denied(), true)
        };
        answer.headers_mut().append(VARY, HeaderValue::from_static("origin"));
        Some(answer)
    }

    /// Whether a page of this origin may call what it names `host`. Herald's own page may where
    /// it was called by what nobody else can make lead here.
    fn allows(&self, origin: &HeaderValue, host: &str) -> bool {
        let is_own = authority(origin).is_some_and(|own| own == *host && self.is_fixed(&own));
        is_own
            || match &self.cors {
                CorsPolicy::Loopback => is_loopback(origin),
                CorsPolicy::None => false,
                CorsPolicy::Any => true,
                CorsPolicy::List(origins) => origins.contains(origin),
            }
    }

    /// Whether nobody else can have made the name `host` lead here, or the operator has listed
    /// it, as a name or in an origin.
    fn knows(&self, host: &str) -> bool {
        let is_this =
            |origin: &HeaderValue| authority(origin).is_some_and(|authority| authority == *host);
        match &self.cors {
            CorsPolicy::Any => true,
            CorsPolicy::List(origins) if origins.iter().any(is_this) => true,
            _ => host.parse().is_ok_and(|host| self.is_fixed(&host)),
        }
    }

    /// Whether nobody else can make this lead anywhere.
    fn is_fixed(&self, authority: &Authority) -> bool {
        let host = authority.host();
        address(host).is_some()
            || host == "localhost"
            || self.hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Says to whom an answer is open: to a page of `origin`, or to nobody in particular.
pub fn open_to(origin: Option<HeaderValue>, headers: &mut HeaderMap) {
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

/// The host that a request names; empty when it names none.
pub fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> &'a str {
    let named = headers.get(HOST).and_then(|host| host.to_str().ok());
    named.or_else(|| Some(uri.authority()?.as_str())).unwrap_or_default()
}

/// Whether a page of another origin has started a request that does not name it. Somebody who
/// follows a link from there starts one too, which may only read: the page that it is on is left
/// or, in a frame, cannot look at it.
fn is_of_unnamed_page<B>(request: &Request<B>) -> bool {
    let Some(site) = request.headers().get(SITE) else { return false };
    let navigates = request.headers().get(MODE).is_some_and(|mode| mode == "navigate");
    let follows_link = navigates && request.method() == Method::GET;
    // "none" is somebody who has typed the address.
    site != "same-origin" && site != "none" && !follows_link
}

fn is_loopback(origin: &HeaderValue) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    origin.as_ref().and_then(Uri::host).is_some_and(|host| match address(host) {
        Some(address) => address.is_loopback(),
        None => host == "localhost",
    })
}

/// The host and port of an origin.
fn authority(origin: &HeaderValue) -> Option<Authority> {
    let (_, authority) = origin.to_str().ok()?.split_once("://")?;
    authority.parse().ok()
}

/// The address that a host is, if it is none by name.
fn address(host: &str) -> Option<std::net::IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn policy(cors: &str, hosts: &str) -> PagePolicy {
        let hosts = PagePolicy::parse_hosts(hosts).unwrap();
        PagePolicy { cors: CorsPolicy::parse(cors).unwrap(), hosts }
    }

    fn request(method: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().method(method).uri("/");
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap()
    }

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
        let closed = policy("none", "events.example");
        for (origin, host, own) in [
            ("http://192.168.1.5:50051", "192.168.1.5:50051", true),
            ("https://192.168.1.5", "192.168.1.5", true),
            ("http://[2001:db8::1]:50051", "[2001:db8::1]:50051", true),
            ("http://localhost:50051", "localhost:50051", true),
            ("https://events.example", "events.example", true),
            ("https://events.example", "Events.example", true),
            ("http://192.168.1.5:50051", "192.168.1.5:50052", false),
            ("http://192.168.1.5:50051", "", false),
            ("http://evil.example:50051", "evil.example:50051", false),
            ("http://evil.example", "192.168.1.5:50051", false),
            ("https://events.example", "evil.example", false),
            ("https://events.example:1", "events.example:2", false),
            ("null", "null", false),
        ] {
            let origin = HeaderValue::from_static(origin);
            assert_eq!(closed.allows(&origin, host), own, "{origin:?} {host}");
        }
        let named = policy("https://events.example", "");
        let allows = |origin| named.allows(&HeaderValue::from_static(origin), "events.example");
        assert!(allows("https://events.example") && !allows("http://events.example"));
    }

    #[test]
    fn a_host_is_known_by_what_it_is_or_by_a_list() {
        let (closed, any) = (policy("loopback", ""), policy("any", ""));
        let by_origin = policy("https://events.example:8443", "");
        let by_name = policy("none", "events.example, b");
        for (host, fixed, in_origin, in_names) in [
            ("127.0.0.1:50051", true, true, true),
            ("[::1]:50051", true, true, true),
            ("localhost", true, true, true),
            ("192.168.1.5", true, true, true),
            ("events.example:8443", false, true, true),
            ("events.example", false, false, true),
            ("EVENTS.example", false, false, true),
            ("x.events.example", false, false, false),
            ("localhost.evil.example", false, false, false),
            ("127.0.0.1.evil.example", false, false, false),
        ] {
            assert_eq!(closed.knows(host), fixed, "{host}");
            assert_eq!(by_origin.knows(host), in_origin, "{host}");
            assert_eq!(by_name.knows(host), in_names, "{host}");
            assert!(any.knows(host));
        }
    }

    #[test]
    fn what_another_page_starts_without_its_name_is_refused_unless_it_is_a_link() {
        for (method, site, mode, admitted) in [
            ("POST", "same-origin", "cors", true),
            ("POST", "none", "navigate", true),
            ("POST", "cross-site", "navigate", false),
            ("POST", "same-site", "navigate", false),
            ("DELETE", "cross-site", "cors", false),
            ("GET", "cross-site", "navigate", true),
            ("GET", "same-site", "navigate", true),
            ("GET", "cross-site", "no-cors", false),
            ("GET", "something-new", "no-cors", false),
        ] {
            let headers = [("sec-fetch-site", site), ("sec-fetch-mode", mode)];
            let asked = request(method, &headers);
            let refused = policy("loopback", "").admit(&asked, true);
            assert_eq!(refused.is_ok(), admitted, "{method} {site} {mode}");
            assert!(policy("any", "").admit(&asked, true).is_ok());
            // One that is named and may.
            let named = [&headers[..], &[("origin", "http://localhost:3000")]].concat();
            assert!(policy("loopback", "").admit(&request(method, &named), true).is_ok());
        }
    }

    #[test]
    fn other_names_are_refused_on_this_machine_and_where_there_is_a_list() {
        let asked = request("GET", &[("host", "evil.example")]);
        for (hosts, is_local, admitted) in [
            ("", true, false),
            ("", false, true),
            ("events.example", true, false),
            ("events.example", false, false),
            ("evil.example", true, true),
            ("evil.example", false, true),
        ] {
            let refused = policy("loopback", hosts).admit(&asked, is_local);
            assert_eq!(refused.is_ok(), admitted, "{hosts} {is_local}");
        }
    }

    #[test]
    fn a_browser_is_told_what_a_page_may_do() {
        let policy = policy("https://game.example", "");
        let origin = ("origin", "https://game.example");
        let asks = ("access-control-request-method", "DELETE");
        let names = ("access-control-request-headers", "content-type,idempotency-key");
        let answer = policy.preflight(&request("OPTIONS", &[origin, asks, names])).unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        for (name, expected) in [
            ("access-control-allow-origin", "https://game.example"),
            ("access-control-allow-methods", "GET, HEAD, POST, DELETE"),
            ("access-control-allow-headers", "content-type,idempotency-key"),
            ("access-control-max-age", "3600"),
            ("vary", "origin"),
        ] {
            assert_eq!(answer.headers()[name], expected, "{name}");
        }
        assert!(!answer.headers().contains_key(PRIVATE_ALLOW));
        let private = ("access-control-request-private-network", "true");
        let answer = policy.preflight(&request("OPTIONS", &[origin, asks, private])).unwrap();
        assert_eq!(answer.headers()[PRIVATE_ALLOW], "true");
        // Nobody else is told anything, and what is no question is not answered.
        let other = ("origin", "https://evil.example");
        let answer = policy.preflight(&request("OPTIONS", &[other, asks, private])).unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        let told = |name: &HeaderName| name.as_str().starts_with("access-control-");
        assert!(!answer.headers().keys().any(told));
        for (method, headers) in [("POST", [origin, asks]), ("OPTIONS", [origin, names])] {
            assert!(policy.preflight(&request(method, &headers)).is_none());
        }
    }

    #[test]
    fn an_origin_has_a_scheme_and_no_path_and_a_host_is_a_name() {
        assert!(CorsPolicy::parse("https://a.example, https://b.example:8443").is_ok());
        for bad in ["a.example", "https://a.example/x", "https://", ""] {
            assert!(CorsPolicy::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(PagePolicy::parse_hosts("").unwrap(), [""; 0]);
        assert_eq!(PagePolicy::parse_hosts("a.example, b").unwrap(), ["a.example", "b"]);
        for bad in ["https://a.example", "a.example:1", "a.example/x", ".a.example", "*"] {
            assert!(PagePolicy::parse_hosts(bad).is_err(), "{bad:?}");
        }
    }
}
