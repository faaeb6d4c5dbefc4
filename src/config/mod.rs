//! From flags and environment to each room's options.
//!
//! Everything that is wrong is reported at once, and nothing is opened or bound while
//! loading (files that are named are read).

mod catalog;
mod log;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::{AddressPolicy, Catalog, HeaderPolicy};
use crate::http::{CorsPolicy, PagePolicy};
use crate::telemetry::{self, Format};
use crate::{commands, feed, grpc, players};

pub use catalog::CatalogFile;
pub use log::{KafkaSettings, LogOptions, LogSettings};

/// The name of the snapshot of players in the data folder.
const SNAPSHOT_NAME: &str = "players.snapshot";

/// The flags of `herald serve`, as they were given. Values are texts, so that all of
/// them are judged together.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Network", allow_hyphen_values = true)]
pub struct Settings {
    /// Where gRPC, gRPC-web and plain HTTP are served; port 0 takes any free one
    #[arg(long, env = "HERALD_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:50051")]
    pub listen: String,

    /// Where /live, /ready and /metrics are served; "off" for nowhere
    #[arg(
        long,
        env = "HERALD_ADMIN_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:50052"
    )]
    pub admin_listen: String,

    /// Allow addresses beyond loopback, although nothing is encrypted and nobody is asked who
    /// they are: "yes" (also without a value) or "no"
    #[arg(
        long,
        env = "HERALD_INSECURE",
        value_name = "CHOICE",
        default_value = "no",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes"
    )]
    pub insecure: String,

    /// Which web pages may call beside Herald's own under an address or `localhost`: "none",
    /// "loopback" (pages served from the machine itself), "any", or origins separated by commas
    #[arg(long, env = "HERALD_CORS", value_name = "ORIGINS", default_value = "none")]
    pub cors: String,

    /// Names that lead here, separated by commas: Herald's own page may call under them, and a
    /// proxy on this machine pass them on. Once there are any, HTTP under other names is refused
    #[arg(
        long,
        env = "HERALD_ALLOWED_HOSTS",
        value_name = "NAMES",
        default_value = "",
        hide_default_value = true
    )]
    pub allowed_hosts: String,

    /// Most connections open at once; further ones are closed at once
    #[arg(long, env = "HERALD_MAX_CONNECTIONS", value_name = "N", default_value = "10000")]
    pub max_connections: String,

    /// Most bytes of a request message, 1KiB to 512KiB
    #[arg(long, env = "HERALD_MAX_MESSAGE_BYTES", value_name = "SIZE", default_value = "64KiB")]
    pub max_message_bytes: String,

    /// Threads that own connections; "auto" for as many as there are cores
    #[arg(long, env = "HERALD_WORKER_THREADS", value_name = "N", default_value = "auto")]
    pub worker_threads: String,

    /// How long calls may take to finish, and events to be flushed, when the server stops
    #[arg(long, env = "HERALD_STOP_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    pub stop_timeout: String,

    /// Where events are kept.
    #[command(flatten)]
    pub log_settings: LogSettings,

    /// A TOML file with items and guilds (see below), read again when it changes and on SIGHUP;
    /// the built-in catalogue when absent
    #[arg(long, env = "HERALD_CATALOG", value_name = "FILE", help_heading = "Actions")]
    pub catalog: Option<String>,

    /// How long a call without a deadline waits for its event to be durable
    #[arg(
        long,
        env = "HERALD_WRITE_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s",
        help_heading = "Actions"
    )]
    pub write_timeout: String,

    /// Most refused actions a second that are recorded as request_rejected events; 0 records
    /// none
    #[arg(
        long,
        env = "HERALD_REJECTIONS_PER_SECOND",
        value_name = "N",
        default_value = "100",
        help_heading = "Actions"
    )]
    pub rejections_per_second: String,

    /// How long a request id is remembered, so that a retry is recognised
    #[arg(
        long,
        env = "HERALD_REQUEST_HORIZON",
        value_name = "DURATION",
        default_value = "1h",
        help_heading = "Actions"
    )]
    pub request_horizon: String,

    /// Most request ids that are remembered, about 100 bytes each; beyond it the oldest are
    /// forgotten early
    #[arg(
        long,
        env = "HERALD_REQUEST_INDEX_ENTRIES",
        value_name = "N",
        default_value = "2000000",
        help_heading = "Actions"
    )]
    pub request_index_entries: String,

    /// Which headers are kept with events: "default", "all", "none", or names separated by
    /// commas; credentials never are
    #[arg(
        long,
        env = "HERALD_RECORD_HEADERS",
        value_name = "NAMES",
        default_value = "default",
        help_heading = "Privacy"
    )]
    pub record_headers: String,

    /// What is kept of callers' addresses, in events and in lines: "full", "truncated" (to /24 or /48) or "off"
    #[arg(
        long,
        env = "HERALD_REMOTE_ADDRESS",
        value_name = "POLICY",
        default_value = "full",
        help_heading = "Privacy"
    )]
    pub remote_address: String,

    /// Networks of proxies whose x-forwarded-for is believed, separated by commas
    #[arg(
        long,
        env = "HERALD_TRUSTED_PROXIES",
        value_name = "CIDRS",
        default_value = "",
        hide_default_value = true,
        help_heading = "Privacy"
    )]
    pub trusted_proxies: String,

    /// Whether subscribers may ask for the private origin of events: "yes", "no", or "auto" (only
    /// while listening on loopback)
    #[arg(
        long,
        env = "HERALD_EXPOSE_ORIGIN",
        value_name = "CHOICE",
        default_value = "auto",
        help_heading = "Privacy"
    )]
    pub expose_origin: String,

    /// Where what players have is kept, so that a start need not read the whole log; "auto" for
    /// players.snapshot in the data folder of the embedded log and nowhere with Kafka, "off" for
    /// nowhere
    #[arg(
        long,
        env = "HERALD_SNAPSHOT_FILE",
        value_name = "FILE|auto|off",
        default_value = "auto",
        help_heading = "Players"
    )]
    pub snapshot_file: String,

    /// How often that file is written while something changes; it also is when the server stops
    #[arg(
        long,
        env = "HERALD_SNAPSHOT_INTERVAL",
        value_name = "DURATION",
        default_value = "5m",
        help_heading = "Players"
    )]
    pub snapshot_interval: String,

    /// Most streams open at once
    #[arg(
        long,
        env = "HERALD_MAX_SUBSCRIBERS",
        value_name = "N",
        default_value = "10000",
        help_heading = "Feed"
    )]
    pub max_subscribers: String,

    /// How old a stream becomes before it is closed, which its client is told and goes on at
    /// once: a tenth less or more, so that streams spread over servers; "off" for no end
    #[arg(
        long,
        env = "HERALD_MAX_STREAM_AGE",
        value_name = "DURATION|off",
        default_value = "1h",
        help_heading = "Feed"
    )]
    pub max_stream_age: String,

    /// Most bytes of the newest events, and of the messages that are made of them, that are kept
    /// in memory for live subscribers, up to 64GiB
    #[arg(
        long,
        env = "HERALD_FEED_RING_BYTES",
        value_name = "SIZE",
        default_value = "32MiB",
        help_heading = "Feed"
    )]
    pub feed_ring_bytes: String,

    /// What is logged, such as "info" or "herald=debug,warn"
    #[arg(
        long,
        env = "HERALD_LOG",
        value_name = "FILTER",
        default_value = "info",
        help_heading = "Output"
    )]
    pub log: String,

    /// How log lines are written: "text", "json", or "auto" (text on a terminal)
    #[arg(
        long,
        env = "HERALD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "auto",
        help_heading = "Output"
    )]
    pub log_format: String,

    /// Whether each call has a line: "on" or "off"
    #[arg(
        long,
        env = "HERALD_ACCESS_LOG",
        value_name = "CHOICE",
        default_value = "on",
        help_heading = "Output"
    )]
    pub access_log: String,

    /// Check the configuration, say what is wrong with it, and exit
    #[arg(long, help_heading = "Output")]
    pub check_config: bool,
}

/// A checked configuration: what each room is built with.
#[derive(Clone, Debug)]
pub struct Config {
    /// For the server itself.
    pub server: ServerOptions,
    /// For the transport.
    pub grpc: grpc::Options,
    /// Which web pages may call.
    pub pages: PagePolicy,
    /// For the write path.
    pub commands: commands::Options,
    /// For what players have and have asked for.
    pub players: players::Options,
    /// What can be bought and joined.
    pub catalog: Catalog,
    /// The file that it was read from, if it was one.
    pub catalog_file: Option<CatalogFile>,
    /// For the feed.
    pub feed: feed::Options,
    /// For the log.
    pub log: LogOptions,
    /// For the log lines.
    pub telemetry: telemetry::Options,
    /// Where the time comes from.
    pub clock: Clock,
}

/// Settings of the server itself.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where calls are served.
    pub listen: SocketAddr,
    /// Where the operator looks, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    /// How many threads own connections.
    pub worker_threads: NonZeroUsize,
    /// Most connections open at once.
    pub max_connections: usize,
    /// How long stopping may take.
    pub stop_timeout: Duration,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Collects what is wrong while values are read.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, flag: &str, problem: impl Display) {
        let variable = flag.replace('-', "_").to_ascii_uppercase();
        self.0.push(format!("--{flag} (HERALD_{variable}): {problem}"));
    }

    /// A value, or a note of what is wrong with it and something to go on with.
    fn take<T: Default, E: Display>(&mut self, flag: &str, value: Result<T, E>) -> T {
        value.unwrap_or_else(|problem| {
            self.add(flag, problem);
            T::default()
        })
    }

    fn number<T: FromStr + PartialOrd + Display + Copy>(
        &mut self,
        flag: &str,
        text: &str,
        least: T,
        most: T,
    ) -> T {
        match text.parse() {
            Ok(number) if number >= least && number <= most => number,
            _ => {
                self.add(flag, format!("{text:?} is not a whole number from {least} to {most}"));
                least
            }
        }
    }
}

impl Settings {
    /// How lines are to be written, also while other settings are wrong.
    pub fn format(&self) -> Format {
        match self.log_format.as_str() {
            "text" => Format::Text,
            "json" => Format::Json,
            _ => auto_format(),
        }
    }

    /// Checks all settings.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, each with its flag.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut p = Problems::default();
        let listen = address("listen", &self.listen, &mut p);
        let admin_listen = match self.admin_listen.as_str() {
            "off" => None,
            text => address("admin-listen", text, &mut p),
        };
        // What is none of them counts as the first.
        let words = [("no", false), ("yes", true), ("false", false), ("true", true)];
        let insecure = choice("insecure", &self.insecure, &words, &mut p);
        if let (Some(calls), Some(admin)) = (listen, admin_listen)
            && calls.port() != 0
            && calls == admin
        {
            p.add("admin-listen", "the same address as --listen; choose another port");
        }
        for (flag, bound) in [("listen", listen), ("admin-listen", admin_listen)] {
            if bound.is_some_and(|address| !address.ip().is_loopback()) && !insecure {
                p.add(
                    flag,
                    "reaches beyond this machine, where nothing is encrypted and nobody is asked \
                     who they are; add --insecure if the network around it is trusted",
                );
            }
        }
        let on_loopback = listen.is_some_and(|address| address.ip().is_loopback());

        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let worker_threads = match self.worker_threads.as_str() {
            "auto" => cores,
            text => {
                let number = p.number("worker-threads", text, 1, 1024);
                NonZeroUsize::new(number).unwrap_or(cores)
            }
        };
        let mut catalog_file = self.catalog.clone().map(CatalogFile::new);
        let catalog = catalog_file.as_mut().map_or_else(|| Ok(Catalog::built_in()), |f| f.read());
        let catalog = catalog.unwrap_or_else(|problems| {
            problems.iter().for_each(|problem| p.add("catalog", problem));
            Catalog::built_in()
        });
        let addresses = choice(
            "remote-address",
            &self.remote_address,
            &[
                ("full", AddressPolicy::Full),
                ("truncated", AddressPolicy::Truncated),
                ("off", AddressPolicy::Off),
            ],
            &mut p,
        );
        let expose_origin = choice(
            "expose-origin",
            &self.expose_origin,
            &[("auto", on_loopback), ("yes", true), ("no", false)],
            &mut p,
        );
        let trusted_proxies = self.trusted_proxies.split(',').map(str::trim);
        let trusted_proxies = trusted_proxies
            .filter(|text| !text.is_empty())
            .filter_map(|text| match text.parse() {
                Ok(net) => Some(net),
                Err(_) => {
                    p.add("trusted-proxies", format!("{text:?} is no network such as 10.0.0.0/8"));
                    None
                }
            })
            .collect();
        if tracing_subscriber::EnvFilter::try_new(&self.log).is_err() {
            let problem = "is no filter such as info, debug or herald=debug,warn";
            p.add("log", format!("{:?} {problem}", self.log));
        }
        let formats = [("auto", auto_format()), ("text", Format::Text), ("json", Format::Json)];
        let format = choice("log-format", &self.log_format, &formats, &mut p);
        let access_lines =
            choice("access-log", &self.access_log, &[("on", true), ("off", false)], &mut p);

        let log = self.log_settings.load(&mut p);
        let config = Config {
            server: ServerOptions {
                listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
                admin_listen,
                worker_threads,
                max_connections: p.number("max-connections", &self.max_connections, 1, 1_000_000),
                stop_timeout: duration("stop-timeout", &self.stop_timeout, &mut p),
            },
            grpc: grpc::Options {
                max_message_bytes: message_bytes(&self.max_message_bytes, &mut p),
                headers: p.take("record-headers", HeaderPolicy::parse(&self.record_headers)),
                addresses,
                trusted_proxies,
                expose_origin,
            },
            pages: PagePolicy {
                cors: p.take("cors", CorsPolicy::parse(&self.cors)),
                hosts: p.take("allowed-hosts", PagePolicy::parse_hosts(&self.allowed_hosts)),
            },
            commands: commands::Options {
                write_timeout: duration("write-timeout", &self.write_timeout, &mut p),
                rejections_per_second: p.number(
                    "rejections-per-second",
                    &self.rejections_per_second,
                    0,
                    1_000_000,
                ),
            },
            players: players::Options {
                request_max_age: duration("request-horizon", &self.request_horizon, &mut p),
                request_max_entries: p.number(
                    "request-index-entries",
                    &self.request_index_entries,
                    1_000,
                    1_000_000_000,
                ),
                snapshot: self.snapshot(&log, &mut p),
            },
            catalog,
            catalog_file,
            feed: feed::Options {
                max_subscribers: p.number("max-subscribers", &self.max_subscribers, 1, 10_000_000),
                ring_bytes: ring_bytes(&self.feed_ring_bytes, &mut p),
                max_stream_age: unless_off(&self.max_stream_age)
                    .map(|text| duration("max-stream-age", text, &mut p)),
            },
            log,
            telemetry: telemetry::Options {
                format,
                colour: std::io::stderr().is_terminal(),
                filter: self.log.clone(),
                access_lines,
            },
            clock: Clock::System,
        };
        if p.0.is_empty() { Ok(config) } else { Err(ConfigError(p.0)) }
    }

    fn snapshot(&self, log: &LogOptions, p: &mut Problems) -> Option<players::SnapshotOptions> {
        let interval = duration("snapshot-interval", &self.snapshot_interval, p);
        let file = match (self.snapshot_file.as_str(), log) {
            ("off", _) | ("auto", LogOptions::Kafka(_)) => return None,
            ("auto", LogOptions::Local(options)) => options.data_dir.join(SNAPSHOT_NAME),
            ("", _) => {
                p.add("snapshot-file", "is empty; name a file, or say auto or off");
                return None;
            }
            (file, _) => PathBuf::from(file),
        };
        Some(players::SnapshotOptions { file, interval })
    }
}

/// What fits whoever reads stderr.
fn auto_format() -> Format {
    if std::io::stderr().is_terminal() { Format::Text } else { Format::Json }
}

fn unless_off(text: &str) -> Option<&str> {
    (text != "off").then_some(text)
}

fn address(flag: &str, text: &str, p: &mut Problems) -> Option<SocketAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        p.add(flag, format!("{text:?} is no address with a port such as 127.0.0.1:50051"));
    }
    address
}

fn choice<T: Copy>(flag: &str, text: &str, choices: &[(&str, T)], p: &mut Problems) -> T {
    match choices.iter().find(|(name, _)| *name == text) {
        Some((_, value)) => *value,
        None => {
            let names: BTreeSet<_> = choices.iter().map(|(name, _)| *name).collect();
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            p.add(flag, format!("{text:?} is not one of: {names}"));
            choices[0].1
        }
    }
}

/// A number and a unit: `ms`, `s`, `m`, `h` or `d`. More than zero.
fn duration(flag: &str, text: &str, p: &mut Problems) -> Duration {
    const UNITS: [(&str, u64); 5] =
        [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    match quantity(text, &UNITS) {
        Some(millis) => Duration::from_millis(millis),
        None => {
            p.add(flag, format!("{text:?} is no duration such as 500ms, 10s, 5m, 12h or 30d"));
            Duration::from_secs(1)
        }
    }
}

/// Reads a size: a number and a unit, none or `B`, `KiB`, `MiB`, `GiB` or `TiB`. More than zero.
pub fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 6] =
        [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    quantity(text, &UNITS)
}

fn size(flag: &str, text: &str, p: &mut Problems) -> Option<u64> {
    let bytes = bytes(text);
    if bytes.is_none() {
        p.add(flag, format!("{text:?} is no size such as 65536, 64KiB, 16MiB or 10GiB"));
    }
    bytes
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor).filter(|value| *value > 0)
}

fn ring_bytes(text: &str, p: &mut Problems) -> usize {
    let bytes = size("feed-ring-bytes", text, p);
    let bytes = at_least_and_at_most("feed-ring-bytes", bytes, 1, 64 << 30, p);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A message has to fit into a record of the log, with its origin.
fn message_bytes(text: &str, p: &mut Problems) -> usize {
    let bytes = size("max-message-bytes", text, p);
    let bytes = at_least_and_at_most("max-message-bytes", bytes, 1 << 10, 512 << 10, p);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A size in a range; one that could not be read has been noted already.
fn at_least_and_at_most(
    flag: &str,
    bytes: Option<u64>,
    least: u64,
    most: u64,
    p: &mut Problems,
) -> u64 {
    if bytes.is_some_and(|bytes| bytes < least) {
        p.add(flag, format!("less than {least} bytes, which is the least"));
    } else if bytes.is_some_and(|bytes| bytes > most) {
        p.add(flag, format!("more than {most} bytes, which is the most"));
    }
    bytes.unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    pub(super) fn load(args: &[&str]) -> Result<Config, ConfigError> {
        Cli::parse_from(std::iter::once(&"herald").chain(args)).settings.load()
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = load(&[]).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:50051");
        assert_eq!(config.grpc.max_message_bytes, 65_536);
        assert!(config.grpc.expose_origin);
        let LogOptions::Local(log) = config.log else { panic!("it is the embedded log") };
        assert!(log.retention_age.is_none() && log.retention_bytes.is_none());
    }

    #[test]
    fn every_bad_value_is_reported_at_once() {
        let ConfigError(problems) = load(&[
            "--listen=localhost",
            "--admin-listen=0.0.0.0:1",
            "--cors=example.com",
            "--allowed-hosts=https://example.com",
            "--max-connections=0",
            "--max-message-bytes=1GiB",
            "--worker-threads=none",
            "--stop-timeout=10",
            "--key-partitions=-1",
            "--retention-age=forever",
            "--retention-bytes=10GB",
            "--catalog=/nowhere.toml",
            "--write-timeout=0s",
            "--rejections-per-second=x",
            "--request-horizon=for-ever",
            "--request-index-entries=10",
            "--record-headers=authorization",
            "--remote-address=half",
            "--trusted-proxies=10.0.0.0/99",
            "--expose-origin=maybe",
            "--max-subscribers=0",
            "--feed-ring-bytes=big",
            "--log=herald=loud",
            "--log-format=xml",
            "--access-log=1",
            "--insecure=fasle",
            "--data-dir=",
            "--snapshot-file=",
            "--snapshot-interval=0s",
        ])
        .unwrap_err();
        assert_eq!(problems.len(), 29, "{problems:#?}");
    }

    #[test]
    fn the_snapshot_lies_with_the_embedded_log() {
        let file = |flags: &[&str]| load(flags).unwrap().players.snapshot.map(|s| s.file);
        assert_eq!(file(&["--data-dir=d"]), Some("d/players.snapshot".into()));
        assert_eq!(file(&["--snapshot-file=off"]), None);
        assert_eq!(file(&["--kafka-brokers=k:1"]), None);
        assert_eq!(file(&["--kafka-brokers=k:1", "--snapshot-file=s"]), Some("s".into()));
    }

    #[test]
    fn beyond_loopback_needs_a_word_and_hides_origins() {
        let ConfigError(problems) = load(&["--listen=0.0.0.0:50051"]).unwrap_err();
        assert!(problems[0].contains("--insecure"), "{problems:?}");
        let config = load(&["--listen=0.0.0.0:50051", "--insecure"]).unwrap();
        assert!(!config.grpc.expose_origin);
    }

    #[test]
    fn only_a_clear_word_takes_the_protection_away() {
        for (word, valid) in [("yes", true), ("true", true), ("no", false), ("maybe", false)] {
            let flags = ["--listen=0.0.0.0:1", &format!("--insecure={word}")];
            assert_eq!(load(&flags).is_ok(), valid, "{word}");
        }
    }

    #[test]
    fn a_problem_names_the_flag_and_the_variable() {
        let ConfigError(problems) = load(&["--max-connections", "-3"]).unwrap_err();
        assert!(problems[0].starts_with("--max-connections (HERALD_MAX_CONNECTIONS): "));
        let ConfigError(problems) = load(&["--retention-bytes=1x"]).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let same = ["--listen=127.0.0.1:7", "--admin-listen=127.0.0.1:7"];
        assert!(load(&same).is_err());
    }

    #[test]
    fn durations_and_sizes_have_units() {
        let config = load(&["--retention-age=30d", "--retention-bytes=10GiB"]).unwrap();
        let LogOptions::Local(log) = config.log else { panic!("it is the embedded log") };
        assert_eq!(log.retention_age, Some(Duration::from_secs(30 * 86_400)));
        assert_eq!(log.retention_bytes, Some(10 << 30));
        assert!(load(&["--stop-timeout=99999999999999999999d"]).is_err());
    }
}
