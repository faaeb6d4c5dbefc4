//! What the process tells its operator: log lines, access lines, metrics.
//!
//! Everything goes to stderr through one bounded queue and one thread, so that a
//! terminal or a pipe that nobody reads can delay nobody's call: lines that find the
//! queue full are counted and left out.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::clock::{Clock, Timestamp};

/// How many writes wait for stderr at the most. Access lines come in chunks of up to
/// [`ACCESS_CHUNK_BYTES`], so this bounds the queue at 16 MiB.
const QUEUED_WRITES: usize = 1_000;

/// The size at which access lines are handed to the queue.
const ACCESS_CHUNK_BYTES: usize = 16 * 1024;

/// How long an access line waits for others at the most.
pub const ACCESS_FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct Options {
    /// How lines are written.
    pub format: Format,
    /// Whether text has colours.
    pub colour: bool,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// Whether each call has a line.
    pub access_lines: bool,
}

impl Options {
    /// Enough to say, in JSON, that nothing came about.
    pub fn for_failures() -> Self {
        Self { format: Format::Json, colour: false, filter: "info".to_owned(), access_lines: false }
    }
}

/// The process's log. Dropping it writes what is queued.
pub struct Telemetry {
    writer: NonBlocking,
    options: Options,
    _guard: WorkerGuard,
}

impl Telemetry {
    /// Starts the writer and installs the subscriber of `tracing` for the process.
    ///
    /// # Errors
    ///
    /// The filter is no filter, or a subscriber was installed before.
    pub fn install(options: Options) -> Result<Self, String> {
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUED_WRITES)
            .thread_name("log")
            .finish(std::io::stderr());
        let filter = EnvFilter::try_new(&options.filter).map_err(|e| e.to_string())?;
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_timer(Rfc3339)
            .with_writer(writer.clone());
        let installed = match options.format {
            Format::Text => lines.with_ansi(options.colour).with_target(false).try_init(),
            Format::Json => lines.json().flatten_event(true).try_init(),
        };
        installed.map_err(|e| e.to_string())?;
        Ok(Self { writer, options, _guard: guard })
    }

    /// Access lines for one runtime; its owner flushes it now and then.
    pub fn access_log(&self) -> AccessLog {
        if !self.options.access_lines {
            return AccessLog(None);
        }
        AccessLog(Some(Arc::new(AccessBuffer {
            writer: self.writer.clone(),
            format: self.options.format,
            clock: Clock::System,
            lines: Mutex::default(),
        })))
    }

    /// Counts what was left out because stderr was not read.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Dropped(self.writer.error_counter())));
    }
}

/// Reads the queue's own count when asked.
#[derive(Debug)]
struct Dropped(ErrorCounter);

impl Collector for Dropped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let count = ConstCounter::new(self.0.dropped_lines() as u64);
        let metric = encoder.encode_descriptor(
            "dropped_log_writes",
            "Writes to stderr that were left out because it was not read",
            None,
            count.metric_type(),
        )?;
        count.encode(metric)
    }
}

/// The access lines of one runtime. Cheap to clone.
#[derive(Clone, Default)]
pub struct AccessLog(Option<Arc<AccessBuffer>>);

struct AccessBuffer {
    writer: NonBlocking,
    format: Format,
    clock: Clock,
    lines: Mutex<Lines>,
}

/// Lines that have gathered, and the second of the last one, as most lines share it
/// with the one before.
#[derive(Default)]
struct Lines {
    text: String,
    second: i64,
    stamp: String,
}

/// One call.
pub struct AccessLine<'a> {
    /// The full name of the method, as the caller wrote it.
    pub method: &'a str,
    /// The name of the gRPC status code.
    pub code: &'static str,
    /// From the request's headers to the end of the response.
    pub duration: Duration,
    /// Who called.
    pub peer: &'a str,
}

impl AccessLog {
    /// Adds a line.
    pub fn record(&self, line: &AccessLine<'_>) {
        let Some(buffer) = &self.0 else { return };
        let mut lines = buffer.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.add(line, buffer.format, buffer.clock.now());
        if lines.text.len() >= ACCESS_CHUNK_BYTES {
            buffer.hand_over(&mut lines);
        }
    }

    /// Hands over what has gathered.
    pub fn flush(&self) {
        if let Some(buffer) = &self.0 {
            buffer.hand_over(&mut buffer.lines.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl AccessBuffer {
    fn hand_over(&self, lines: &mut Lines) {
        if !lines.text.is_empty() {
            // A full queue is counted by the queue.
            let _ = self.writer.clone().write_all(lines.text.as_bytes());
            lines.text.clear();
        }
    }
}

impl Lines {
    /// Adds a line. This runs once a call, and so does without the machinery of
    /// formatting where it can.
    fn add(&mut self, line: &AccessLine<'_>, format: Format, now: Timestamp) {
        let AccessLine { method, code, duration, peer } = line;
        let micros = duration.as_micros();
        match format {
            Format::Text => {
                self.push_time(now);
                self.push(&["  CALL "]);
                self.push_escaped(method);
                self.push(&[" ", code, " "]);
                self.push_millis(micros);
                self.push(&["ms ", peer, "\n"]);
            }
            Format::Json => {
                self.push(&["{\"timestamp\":\""]);
                self.push_time(now);
                self.push(&["\",\"level\":\"INFO\",\"message\":\"call\",\"method\":\""]);
                self.push_escaped(method);
                self.push(&["\",\"code\":\"", code, "\",\"duration_ms\":"]);
                self.push_millis(micros);
                self.push(&[",\"peer\":\"", peer, "\"}\n"]);
            }
        }
    }

    fn push(&mut self, parts: &[&str]) {
        for part in parts {
            self.text.push_str(part);
        }
    }

    fn push_time(&mut self, now: Timestamp) {
        let (second, millis) = (now.as_millis().div_euclid(1000), now.as_millis().rem_euclid(1000));
        if self.stamp.is_empty() || second != self.second {
            self.second = second;
            self.stamp.clear();
            // Writing to a string cannot fail.
            let _ = match jiff::Timestamp::from_second(second) {
                Ok(time) => write!(self.stamp, "{}", time.strftime("%Y-%m-%dT%H:%M:%S")),
                Err(_) => write!(self.stamp, "{second}s"),
            };
        }
        self.text.push_str(&self.stamp);
        self.text.push('.');
        self.push_three_digits(millis.unsigned_abs());
        self.text.push('Z');
    }

    fn push_millis(&mut self, micros: u128) {
        let _ = write!(self.text, "{}.", micros / 1000);
        // The remainder is below 1000.
        self.push_three_digits((micros % 1000) as u64);
    }

    fn push_three_digits(&mut self, number: u64) {
        for place in [100, 10, 1] {
            self.text.push(char::from(b'0' + (number / place % 10) as u8));
        }
    }

    /// A text of the caller's, fit for a line and for a JSON string.
    fn push_escaped(&mut self, text: &str) {
        const MOST_CHARS: usize = 200;
        let plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\';
        if text.len() <= MOST_CHARS && text.bytes().all(plain) {
            self.text.push_str(text);
            return;
        }
        for c in text.chars().take(MOST_CHARS) {
            match c {
                '"' | '\\' => {
                    self.text.push('\\');
                    self.text.push(c);
                }
                c if c.is_control() => {
                    let _ = write!(self.text, "\\u{:04x}", u32::from(c));
                }
                c => self.text.push(c),
            }
        }
    }
}

/// RFC 3339 in UTC with milliseconds.
struct Rfc3339;

impl FormatTime for Rfc3339 {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", Clock::System.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(method: &str, format: Format) -> String {
        let mut lines = Lines::default();
        let duration = Duration::from_micros(1_234);
        let line = AccessLine { method, code: "OK", duration, peer: "127.0.0.1:5" };
        lines.add(&line, format, Timestamp::from_millis(1_700_000_000_123));
        lines.text
    }

    #[test]
    fn a_line_names_method_code_duration_and_peer() {
        assert_eq!(
            line("/game.v1.GameService/JoinGuild", Format::Text),
            "2023-11-14T22:13:20.123Z  CALL /game.v1.GameService/JoinGuild OK 1.234ms 127.0.0.1:5\n"
        );
    }

    #[test]
    fn whatever_a_caller_names_its_method_the_line_stays_one_json_object() {
        let hostile = "/a\"b\\c\nd\u{1b}";
        let parsed: serde_json::Value = serde_json::from_str(&line(hostile, Format::Json)).unwrap();
        assert_eq!(parsed["method"], hostile);
        assert_eq!(parsed["duration_ms"], 1.234);
        assert_eq!(line(hostile, Format::Text).lines().count(), 1);
    }
}
