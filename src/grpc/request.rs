//! What is read off a request beside its message: deadline, caller, source.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST};
use tokio::time::Instant;
use tonic::metadata::{KeyAndValueRef, MetadataMap};

use super::Options;
use crate::domain::{AddressPolicy, Caller, Source, client_address};
use crate::proto;

/// Who is at the other end of the connection, and how a call came in. Put into a request's
/// extensions by the server.
#[derive(Clone, Debug)]
pub struct Peer {
    shown: Arc<Shown>,
    /// Noted for each call, before gRPC-web is turned into gRPC.
    came_by: proto::Transport,
}

/// What is shown of a peer; written once a connection.
#[derive(Debug)]
struct Shown {
    address: SocketAddr,
    /// For access lines.
    text: String,
    /// For events.
    host: String,
}

impl Peer {
    /// The peer at an address, of which lines and events show what the policy lets them.
    pub fn new(address: SocketAddr, policy: AddressPolicy) -> Self {
        let text = match policy {
            AddressPolicy::Full => address.to_string(),
            AddressPolicy::Truncated => policy.apply(address.ip()),
            AddressPolicy::Off => "-".to_owned(),
        };
        let shown = Arc::new(Shown { address, text, host: policy.apply(address.ip()) });
        Self { shown, came_by: proto::Transport::default() }
    }

    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        self.shown.address.ip().is_loopback()
    }

    /// Its address and port.
    pub(super) fn text(&self) -> &str {
        &self.shown.text
    }
}

/// The least and the most by which an answer comes before the caller's deadline, as
/// parts of the time that was left: a tenth, but 50 ms at the least, but half at the
/// most.
const MARGIN_PART: u32 = 10;
const MARGIN_LEAST: Duration = Duration::from_millis(50);
const MARGIN_MOST_PART: u32 = 2;

/// Notes what later steps cannot see any more.
pub(super) fn note<B>(request: &mut http::Request<B>, came_by: proto::Transport) {
    if let Some(peer) = request.extensions_mut().get_mut::<Peer>() {
        peer.came_by = came_by;
    }
    // HTTP/2 names the host outside of the headers.
    if !request.headers().contains_key(HOST)
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = authority.as_str().parse()
    {
        request.headers_mut().insert(HOST, host);
    }
}

/// Whether a request is gRPC over HTTP/2, which takes the short way.
pub fn is_plain_grpc<B>(request: &http::Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
    request.version() == http::Version::HTTP_2
        && content_type.is_some_and(|content_type| {
            content_type
                .strip_prefix(b"application/grpc")
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
        })
}

/// Who calls: anonymous, until there is authentication.
pub(super) fn caller(options: &Options) -> Caller {
    Caller::Anonymous { may_read_origin: options.expose_origin }
}

/// Where a call came from, as far as the settings let it be kept.
pub(super) fn source<T>(request: &tonic::Request<T>, options: &Options) -> Source {
    let metadata = request.metadata();
    let text = |name| metadata.get(name).and_then(|value| value.to_str().ok());
    let headers = options.headers.pick(metadata.iter().filter_map(|entry| match entry {
        KeyAndValueRef::Ascii(key, value) => Some((key.as_str(), value.as_encoded_bytes())),
        KeyAndValueRef::Binary(..) => None,
    }));
    let peer = request.extensions().get::<Peer>();
    let remote_address = peer.map(|Peer { shown, .. }| {
        if options.trusted_proxies.is_empty() {
            return shown.host.clone();
        }
        let forwarded = metadata.get_all("x-forwarded-for");
        let forwarded = forwarded.iter().filter_map(|value| value.to_str().ok());
        let address = client_address(shown.address.ip(), forwarded, &options.trusted_proxies);
        options.addresses.apply(address)
    });
    Source {
        headers,
        remote_address: remote_address.unwrap_or_default(),
        transport: peer.map_or_else(Default::default, |peer| peer.came_by),
        traceparent: text("traceparent").map(str::to_owned),
    }
}

/// When a call has to be answered: a little before the caller's own deadline, so that
/// the answer still finds it waiting.
pub(super) fn answer_by(metadata: &MetadataMap) -> Option<Instant> {
    let left = timeout(metadata)?;
    let margin = (left / MARGIN_PART).max(MARGIN_LEAST).min(left / MARGIN_MOST_PART);
    Instant::now().checked_add(left - margin)
}

/// The `grpc-timeout` of a call: at most eight digits and a unit. One that is no
/// timeout is as good as none.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(timeout: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", timeout.parse().unwrap());
        metadata
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1x", None),
            ("1é", None),
        ] {
            let read = if text.is_ascii() { timeout(&metadata(text)) } else { None };
            assert_eq!(read, expected, "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_comes_a_little_before_the_deadline() {
        for (timeout, answer_after) in [("10S", 9_000), ("200m", 150), ("60m", 30), ("0m", 0)] {
            let by = answer_by(&metadata(timeout)).unwrap();
            assert_eq!(by - Instant::now(), Duration::from_millis(answer_after), "{timeout}");
        }
        assert!(answer_by(&MetadataMap::new()).is_none());
    }
}
