//! The page that browsers get: `web/dist`, as `scripts/web` made it.

use std::fmt::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use sha2::{Digest as _, Sha256};
use tonic::body::Body;

use crate::grpc::ServedBody;

/// What the page may do: load its own script, style and icon, and call where it came from.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// What every answer says beside its type and its ETag. The names of the files stay when
/// their content changes, so browsers ask each time, which costs them a 304.
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (VARY, HeaderValue::from_static("accept")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

struct File {
    path: &'static str,
    content_type: HeaderValue,
    bytes: &'static [u8],
    etag: HeaderValue,
}

impl File {
    fn new(path: &'static str, content_type: &'static str, bytes: &'static [u8]) -> Self {
        let mut etag = "\"".to_owned();
        for byte in &Sha256::digest(bytes)[..16] {
            let _ = write!(etag, "{byte:02x}");
        }
        etag.push('"');
        Self {
            path,
            content_type: HeaderValue::from_static(content_type),
            bytes,
            etag: HeaderValue::from_str(&etag).expect("hexadecimal digits and quotes"),
        }
    }
}

macro_rules! file {
    ($path:literal, $file:literal, $content_type:literal) => {
        File::new($path, $content_type, include_bytes!(concat!("../../web/dist/", $file)))
    };
}

static FILES: LazyLock<[File; 5]> = LazyLock::new(|| {
    [
        file!("/", "index.html", "text/html; charset=utf-8"),
        file!("/assets/page.js", "assets/page.js", "text/javascript; charset=utf-8"),
        file!("/assets/page.css", "assets/page.css", "text/css; charset=utf-8"),
        file!("/assets/icon.svg", "assets/icon.svg", "image/svg+xml"),
        file!("/assets/licences.txt", "assets/licences.txt", "text/plain; charset=utf-8"),
    ]
});

/// The answer to a request for the page or what belongs to it; `None` for all others, among
/// them those at `/` of who does not ask for HTML.
pub(super) fn answer<B>(request: &Request<B>) -> Option<Response<ServedBody>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let file = FILES.iter().find(|file| file.path == request.uri().path())?;
    if file.path == "/" && !asks_for_html(request.headers()) {
        return None;
    }
    let known = request.headers().get_all(IF_NONE_MATCH).iter().any(|tags| names(tags, &file.etag));
    let (status, bytes) =
        if known { (StatusCode::NOT_MODIFIED, &[][..]) } else { (StatusCode::OK, file.bytes) };
    let body = Body::new(Full::new(Bytes::from_static(bytes)));
    let mut response = Response::new(ServedBody::unwatched(body.into()));
    *response.status_mut() = status;
    response.headers_mut().extend(HEADERS);
    response.headers_mut().insert(ETAG, file.etag.clone());
    if !known {
        response.headers_mut().insert(CONTENT_TYPE, file.content_type.clone());
    }
    Some(response)
}

/// What browsers ask for by name when somebody opens a page, and curl does not.
fn asks_for_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok())
        .flat_map(|accept| accept.split(','))
        .any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "text/html"))
}

/// Whether a list of ETags has this one; a proxy may have made it a weak one.
fn names(tags: &HeaderValue, etag: &HeaderValue) -> bool {
    let (Ok(tags), Ok(etag)) = (tags.to_str(), etag.to_str()) else { return false };
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn ask(path: &str, headers: &[(HeaderName, &'static str)]) -> Option<Response<ServedBody>> {
        let mut request = Request::get(path).body(()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        answer(&request)
    }

    #[test]
    fn who_asks_for_html_gets_the_page() {
        let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
        let page = ask("/", &[(ACCEPT, browser)]).unwrap();
        assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(ask("/", &[(ACCEPT, "text/html;q=0.5")]).is_some());
        assert!(ask("/", &[(ACCEPT, "application/json, text/html")]).is_some());
        for other in ["*/*", "text/plain", "text/htmlx"] {
            assert!(ask("/", &[(ACCEPT, other)]).is_none(), "{other}");
        }
        assert!(ask("/", &[]).is_none());
        assert!(ask("/assets/", &[]).is_none());
        assert!(answer(&Request::post("/assets/page.js").body(()).unwrap()).is_none());
    }

    #[tokio::test]
    async fn what_a_browser_has_is_not_sent_again() {
        let script = ask("/assets/page.js", &[]).unwrap();
        let etag = script.headers()[ETAG].to_str().unwrap().to_owned();
        assert!(!script.into_body().collect().await.unwrap().to_bytes().is_empty());
        let etag: &'static str = etag.leak();
        let again = ask("/assets/page.js", &[(IF_NONE_MATCH, etag)]).unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[ETAG], etag);
        assert!(again.into_body().collect().await.unwrap().to_bytes().is_empty());
        let other = ask("/assets/page.css", &[(IF_NONE_MATCH, etag)]).unwrap();
        assert_eq!(other.status(), StatusCode::OK);
    }

    /// The browser would refuse these, and the page would stay empty.
    #[test]
    fn the_page_has_nothing_that_its_policy_forbids() {
        let html = std::str::from_utf8(FILES[0].bytes).unwrap();
        assert!(!html.contains("<style") && !html.contains(" style="), "inline style");
        for script in html.split("<script").skip(1) {
            let (tag, content) = script.split_once('>').unwrap();
            assert!(tag.contains("src=") && content.starts_with("</script>"), "inline: {tag}");
        }
        let other = html.split(['"', '\'']).find(|text| text.contains("//"));
        assert_eq!(other, None, "another host");
        for file in html.split('"').filter(|text| text.starts_with('/')) {
            assert!(ask(file, &[]).is_some(), "{file} is not served");
        }
    }
}
