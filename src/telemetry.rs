//! What the process tells its operator: log lines, access lines, metrics.
//!
//! Everything goes to stderr through one bounded queue and one thread, so that a
//! terminal or a pipe that nobody reads can delay nobody's call: lines that find the
//! queue full are counted and left out.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

/// The process's log. Dropping it writes what is queued.
pub struct Telemetry {
    writer: NonBlocking,
    dropped: ErrorCounter,
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
        Ok(Self { dropped: writer.error_counter(), writer, options, _guard: guard })
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

    /// How many writes were left out because stderr was not read.
    pub fn dropped_writes(&self) -> usize {
        self.dropped.dropped_lines()
    }
}

/// The access lines of one runtime. Cheap to clone.
#[derive(Clone, Default)]
pub struct AccessLog(Option<Arc<AccessBuffer>>);

struct AccessBuffer {
    writer: NonBlocking,
    format: Format,
    clock: Clock,
    lines: Mutex<String>,
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
    pub peer: &'a dyn fmt::Display,
}

impl AccessLog {
    /// Adds a line.
    pub fn record(&self, line: &AccessLine<'_>) {
        let Some(buffer) = &self.0 else { return };
        let mut lines = buffer.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a string cannot fail.
        let _ = line.write(&mut lines, buffer.format, buffer.clock.now());
        if lines.len() >= ACCESS_CHUNK_BYTES {
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
    fn hand_over(&self, lines: &mut String) {
        if !lines.is_empty() {
            // A full queue is counted by the queue.
            let _ = self.writer.clone().write_all(lines.as_bytes());
            lines.clear();
        }
    }
}

impl AccessLine<'_> {
    fn write(&self, out: &mut String, format: Format, now: Timestamp) -> fmt::Result {
        let micros = self.duration.as_micros();
        let (millis, rest) = (micros / 1000, micros % 1000);
        let method = Escaped(self.method);
        match format {
            Format::Text => {
                write_time(out, now)?;
                writeln!(out, "  CALL {method} {} {millis}.{rest:03}ms {}", self.code, self.peer)
            }
            Format::Json => {
                out.push_str("{\"timestamp\":\"");
                write_time(out, now)?;
                writeln!(
                    out,
                    "\",\"level\":\"INFO\",\"message\":\"call\",\"method\":\"{method}\",\
                     \"code\":\"{}\",\"duration_ms\":{millis}.{rest:03},\"peer\":\"{}\"}}",
                    self.code, self.peer
                )
            }
        }
    }
}

/// A text of the caller's, fit for a line and for a JSON string.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 200;
        for c in self.0.chars().take(MOST) {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// RFC 3339 in UTC with milliseconds.
struct Rfc3339;

impl FormatTime for Rfc3339 {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write_time(w, Clock::System.now())
    }
}

fn write_time(out: &mut impl fmt::Write, time: Timestamp) -> fmt::Result {
    match jiff::Timestamp::from_millisecond(time.as_millis()) {
        Ok(time) => write!(out, "{time:.3}"),
        Err(_) => write!(out, "{}ms", time.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(method: &str, format: Format) -> String {
        let mut out = String::new();
        AccessLine {
            method,
            code: "OK",
            duration: Duration::from_micros(1_234),
            peer: &"127.0.0.1:5",
        }
        .write(&mut out, format, Timestamp::from_millis(1_700_000_000_123))
        .unwrap();
        out
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
