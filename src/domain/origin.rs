//! What is kept of where a call came from, and what never is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::ids::{RequestId, uuid_text};
use crate::proto;

/// The most headers kept of one call.
pub const MAX_RECORDED_HEADERS: usize = 32;

/// The most bytes kept of one header's value.
pub const MAX_RECORDED_HEADER_BYTES: usize = 1024;

/// The headers that are kept by default.
const DEFAULT_HEADERS: [&str; 10] = [
    "accept",
    "accept-language",
    "cache-control",
    "host",
    "origin",
    "referer",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-request-id",
];

/// Parts of the names of headers that are never kept, whatever a list says: they hold
/// credentials, the usual ones (`authorization`, `cookie`) and those under a name of
/// somebody's own.
const CREDENTIAL_PARTS: [&str; 14] = [
    "access-key",
    "api-key",
    "apikey",
    "auth",
    "cookie",
    "credential",
    "jwt",
    "passphrase",
    "passw",
    "private-key",
    "secret",
    "session",
    "signature",
    "token",
];

/// Headers whose values are addresses, kept without their query, where tokens travel.
const ADDRESSES: [&str; 2] = ["referer", "origin"];

/// Which headers of a call are kept with its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderPolicy {
    /// All but credentials.
    All,
    /// None.
    None,
    /// Those with these names, but credentials.
    List(HeaderNames),
}

impl Default for HeaderPolicy {
    fn default() -> Self {
        Self::List(DEFAULT_HEADERS.map(str::to_owned).into_iter().collect())
    }
}

/// Names of headers, in lower case. Looked through for each header of each call, of which
/// hardly any is among them: most are told by their length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderNames {
    names: Vec<String>,
    /// A bit for each length that there is, the longest ones together.
    lengths: u64,
}

impl HeaderNames {
    fn length_bit(name: &str) -> u64 {
        1 << name.len().min(63)
    }

    fn contains(&self, name: &str) -> bool {
        self.lengths & Self::length_bit(name) != 0 && self.names.iter().any(|known| known == name)
    }
}

impl FromIterator<String> for HeaderNames {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        let lengths = names.iter().fold(0, |bits, name| bits | Self::length_bit(name));
        Self { names, lengths }
    }
}

impl HeaderPolicy {
    /// Reads `all`, `none`, `default`, or names separated by commas.
    ///
    /// # Errors
    ///
    /// Says which name is no header name, or would hold credentials.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            "default" => Ok(Self::default()),
            list => list
                .split(',')
                .map(|name| {
                    let name = name.trim().to_ascii_lowercase();
                    if name.is_empty()
                        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                    {
                        Err(format!("{name:?} is not the name of a header"))
                    } else if holds_credentials(&name) {
                        Err(format!("{name} may hold credentials, which are never kept"))
                    } else {
                        Ok(name)
                    }
                })
                .collect::<Result<_, _>>()
                .map(Self::List),
        }
    }

    /// Picks what is to be kept. Names must be in lower case, as HTTP/2 sends them;
    /// values of one name are joined by ", "; values that are not UTF-8 and binary
    /// metadata (`-bin`) are left out.
    pub fn pick<'a>(
        &self,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> BTreeMap<String, String> {
        let mut kept: BTreeMap<String, String> = BTreeMap::new();
        if *self == Self::None {
            return kept;
        }
        for (name, value) in headers {
            if !self.wants(name) {
                continue;
            }
            let Ok(mut value) = std::str::from_utf8(value) else { continue };
            if ADDRESSES.contains(&name) {
                value = value.split(['?', '#']).next().unwrap_or_default();
            }
            if let Some(known) = kept.get_mut(name) {
                known.push_str(", ");
                known.push_str(value);
                truncate(known);
            } else if kept.len() < MAX_RECORDED_HEADERS {
                let mut value = value.to_owned();
                truncate(&mut value);
                kept.insert(name.to_owned(), value);
            }
        }
        kept
    }

    fn wants(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => {
                !name.starts_with(':') && !name.ends_with("-bin") && !holds_credentials(name)
            }
            // Credentials cannot be in a list: `parse` refuses them.
            Self::List(names) => names.contains(name),
        }
    }
}

fn holds_credentials(name: &str) -> bool {
    CREDENTIAL_PARTS.iter().any(|part| name.contains(part))
}

/// Cuts a text at [`MAX_RECORDED_HEADER_BYTES`], between characters.
fn truncate(text: &mut String) {
    if text.len() > MAX_RECORDED_HEADER_BYTES {
        let end = (0..=MAX_RECORDED_HEADER_BYTES).rev().find(|&i| text.is_char_boundary(i));
        text.truncate(end.unwrap_or(0));
    }
}

/// What is kept of a caller's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPolicy {
    /// The whole address.
    #[default]
    Full,
    /// The network: the first 24 bits of an IPv4 address, 48 of an IPv6 one.
    Truncated,
    /// Nothing.
    Off,
}

impl AddressPolicy {
    /// What is to be kept of an address, as text.
    pub fn apply(self, address: IpAddr) -> String {
        match (self, address.to_canonical()) {
            (Self::Off, _) => String::new(),
            (Self::Full, address) => address.to_string(),
            (Self::Truncated, IpAddr::V4(v4)) => {
                let [a, b, c, _] = v4.octets();
                Ipv4Addr::new(a, b, c, 0).to_string()
            }
            (Self::Truncated, IpAddr::V6(v6)) => {
                let [a, b, c, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).to_string()
            }
        }
    }
}

/// The address of the client behind the proxies that are trusted: the last one in
/// `x-forwarded-for` that no trusted proxy has, as only what a trusted proxy itself
/// has added can be believed. `forwarded` are the header's values in the order in
/// which they came.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[IpNet],
) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut client = peer.to_canonical();
    for entry in forwarded.rev().flat_map(|value| value.rsplit(',')) {
        if !is_trusted(client) {
            break;
        }
        match entry.trim().parse::<IpAddr>() {
            Ok(address) => client = address.to_canonical(),
            // What follows an entry that cannot be read cannot be placed.
            Err(_) => break,
        }
    }
    client
}

/// Where a call came from, as far as it is kept.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Headers, already picked by a [`HeaderPolicy`].
    pub headers: BTreeMap<String, String>,
    /// An address, already cut by an [`AddressPolicy`].
    pub remote_address: String,
    /// How the call came in.
    pub transport: proto::Transport,
    /// W3C trace context of the call.
    pub traceparent: Option<String>,
}

impl Source {
    /// The stored form.
    pub fn into_origin(
        self,
        request_id: Option<RequestId>,
        client_context: Option<proto::ClientContext>,
    ) -> proto::Origin {
        proto::Origin {
            request_id: request_id.map(|id| uuid_text(id.uuid())).unwrap_or_default(),
            headers: self.headers,
            remote_address: self.remote_address,
            transport: self.transport.into(),
            client_context,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(policy: &HeaderPolicy, headers: &[(&str, &str)]) -> Vec<(String, String)> {
        policy.pick(headers.iter().map(|(n, v)| (*n, v.as_bytes()))).into_iter().collect()
    }

    #[test]
    fn credentials_are_never_kept() {
        let headers = [
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("x-api-key", "k"),
            ("x-csrf-token", "t"),
            ("x-authorization", "s"),
            ("x-session", "s"),
            ("x-access-key", "s"),
            ("x-amz-signature", "s"),
            ("user-agent", "game/1"),
        ];
        for policy in [HeaderPolicy::All, HeaderPolicy::default()] {
            assert_eq!(pick(&policy, &headers), [("user-agent".into(), "game/1".into())]);
        }
        assert!(HeaderPolicy::parse("user-agent,Authorization").is_err());
        assert!(HeaderPolicy::parse("x-my-token").is_err());
    }

    #[test]
    fn a_list_replaces_the_default_and_values_of_one_name_are_joined() {
        let policy = HeaderPolicy::parse("X-Team, x-zone").unwrap();
        let headers = [("x-team", "a"), ("user-agent", "game/1"), ("x-team", "b")];
        assert_eq!(pick(&policy, &headers), [("x-team".into(), "a, b".into())]);
        assert!(pick(&HeaderPolicy::None, &headers).is_empty());
    }

    #[test]
    fn an_address_is_kept_without_its_query() {
        let headers = [("referer", "https://a.example/p?access_token=s#t")];
        let kept = pick(&HeaderPolicy::default(), &headers);
        assert_eq!(kept, [("referer".into(), "https://a.example/p".into())]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = "é".repeat(2000);
        let kept = pick(&HeaderPolicy::All, &[("x-long", &long)]);
        assert_eq!(kept[0].1.len(), MAX_RECORDED_HEADER_BYTES);
        let names: Vec<String> = (0..100).map(|i| format!("x-{i}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
        assert_eq!(pick(&HeaderPolicy::All, &many).len(), MAX_RECORDED_HEADERS);
    }

    #[test]
    fn addresses_are_cut_to_their_network() {
        let v4: IpAddr = "203.0.113.77".parse().unwrap();
        let v6: IpAddr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        assert_eq!(AddressPolicy::Truncated.apply(v4), "203.0.113.0");
        assert_eq!(AddressPolicy::Truncated.apply(v6), "2001:db8:1::");
        assert_eq!(
            AddressPolicy::Full.apply("::ffff:203.0.113.77".parse().unwrap()),
            "203.0.113.77"
        );
        assert_eq!(AddressPolicy::Off.apply(v4), "");
    }

    #[test]
    fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let address = |peer: &str, forwarded: &[&str]| {
            client_address(peer.parse().unwrap(), forwarded.iter().copied(), &trusted).to_string()
        };
        assert_eq!(address("198.51.100.1", &["1.2.3.4"]), "198.51.100.1", "a stranger's claim");
        assert_eq!(address("10.0.0.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(address("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"]), "1.2.3.4", "spoofed");
        assert_eq!(address("10.0.0.1", &["6.6.6.6", "1.2.3.4"]), "1.2.3.4", "two headers");
        assert_eq!(address("10.0.0.1", &["1.2.3.4, rubbish"]), "10.0.0.1");
        assert_eq!(address("10.0.0.1", &[]), "10.0.0.1");
    }
}
