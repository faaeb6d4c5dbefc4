//! What came of the calls of a round.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use hdrhistogram::Histogram;
use prost::Message as _;
use serde::Serialize;

use super::payload::{Call, Payload};
use super::wire::Failure;
use crate::proto::PurchaseItemResponse;

/// Latencies are kept in microseconds, with three digits of them exact.
const LATENCY_DIGITS: u8 = 3;

/// Longer latencies count as this one: ten minutes, far more than the silence
/// after which a round ends. The bound is given, as a histogram that grows by
/// itself does so only for calls that can fail.
const LONGEST_LATENCY_MICROS: u64 = 600_000_000;

/// The tally of one round. Only calls that were acknowledged while the clock
/// ran are measured; all that failed are counted.
#[derive(Debug)]
pub struct Tally {
    clock_runs: bool,
    latencies: Histogram<u64>,
    /// Acknowledged in all, also while the clock did not run.
    pub acknowledged: u64,
    /// Failed in all, by code.
    pub failed: BTreeMap<String, u64>,
    /// What the first failure said.
    pub first_failure: Option<String>,
}

impl Tally {
    /// Nothing yet; the clock stands.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            clock_runs: false,
            latencies: latencies()?,
            acknowledged: 0,
            failed: BTreeMap::new(),
            first_failure: None,
        })
    }

    /// Starts the clock.
    pub fn start(&mut self) {
        self.clock_runs = true;
    }

    /// Stops the clock: how many calls were measured, and how long they took.
    pub fn stop(&mut self) -> (u64, Latency) {
        self.clock_runs = false;
        (self.latencies.len(), Latency::of(&self.latencies))
    }

    /// Counts an acknowledged call.
    pub fn acknowledge(&mut self, sent: Instant) {
        self.acknowledged += 1;
        if self.clock_runs {
            let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.latencies.saturating_record(micros);
        }
    }

    /// Counts a call that failed.
    pub fn fail(&mut self, failure: Failure) {
        let (code, message) = match failure {
            Failure::Refused { code, message } => (code, message),
            Failure::Broken(message) => ("connection lost".to_owned(), message),
        };
        self.first_failure.get_or_insert_with(|| format!("{code}: {message}"));
        *self.failed.entry(code).or_default() += 1;
    }

    /// How many calls are over.
    pub fn over(&self) -> u64 {
        self.acknowledged + self.failed.values().sum::<u64>()
    }
}

/// How long calls took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "percentiles")]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub max: u64,
}

/// An empty histogram of latencies in microseconds.
pub fn latencies() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST_LATENCY_MICROS, LATENCY_DIGITS)
        .context("cannot make a histogram")
}

impl Latency {
    /// The percentiles of a histogram.
    pub fn of(latencies: &Histogram<u64>) -> Self {
        let at = |quantile| latencies.value_at_quantile(quantile);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p99_9: at(0.999), max: latencies.max() }
    }
}

/// Every acknowledged call as a line of JSON in a file.
#[derive(Debug)]
pub struct Receipts {
    file: BufWriter<File>,
    error: Option<anyhow::Error>,
}

#[derive(Serialize)]
struct Line<'a> {
    request_id: String,
    player_id: String,
    sequence: u64,
    event_id: &'a str,
    partition: i32,
    offset: i64,
    replayed: bool,
}

impl Receipts {
    /// Into a new file at `path`, or over the one that is there.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file: BufWriter::new(file), error: None })
    }

    /// Adds the receipt in an answer. What fails is told by [`Receipts::finish`].
    pub fn add(&mut self, payload: &Payload, call: Call, answer: Bytes) {
        if self.error.is_none() {
            self.error = self.try_add(payload, call, answer).err();
        }
    }

    fn try_add(&mut self, payload: &Payload, call: Call, answer: Bytes) -> anyhow::Result<()> {
        let answer = PurchaseItemResponse::decode(answer).context("an answer is no receipt")?;
        let receipt = answer.receipt.context("an answer has no receipt")?;
        let request_id = payload.request_id(call.number).to_string();
        anyhow::ensure!(receipt.request_id == request_id, "an answer is of another request");
        let line = Line {
            request_id,
            player_id: payload.player_id(call.player),
            sequence: call.sequence,
            event_id: &receipt.event_id,
            partition: receipt.partition,
            offset: receipt.offset,
            replayed: receipt.replayed,
        };
        serde_json::to_writer(&mut self.file, &line).context("cannot write a receipt")?;
        self.file.write_all(b"\n").context("cannot write a receipt")
    }

    /// Hands all lines to the system.
    ///
    /// # Errors
    ///
    /// Not every acknowledged call is in the file.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.file.flush().context("cannot write the receipts"),
        }
    }
}

/// One round of one target.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// How long the clock ran.
    pub seconds: f64,
    /// How many calls were acknowledged while it ran.
    pub calls: u64,
    /// `calls` by `seconds`.
    pub calls_per_second: f64,
    /// How long these took.
    pub latency_micros: Latency,
    /// CPU time of the server by call, user and system; none for a process that
    /// is not known.
    pub server_cpu_micros_per_call: Option<f64>,
    /// Acknowledged in all, also before and after the clock ran.
    pub acknowledged: u64,
    /// Failed in all, by code.
    pub failed: BTreeMap<String, u64>,
    /// What the first failure said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<String>,
}

impl Round {
    /// From the tally and what was read when the clock stopped.
    pub fn new(
        tally: &Tally,
        (calls, latency_micros): (u64, Latency),
        time: Duration,
        cpu: Option<Duration>,
    ) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = calls as f64;
        let seconds = time.as_secs_f64();
        Self {
            seconds,
            calls,
            calls_per_second: if seconds > 0.0 { count / seconds } else { 0.0 },
            latency_micros,
            server_cpu_micros_per_call: cpu
                // Less than a tick of the kernel's clock cannot be told from nothing.
                .filter(|cpu| calls > 0 && !cpu.is_zero())
                .map(|cpu| cpu.as_secs_f64() * 1e6 / count),
            acknowledged: tally.acknowledged,
            failed: tally.failed.clone(),
            first_failure: tally.first_failure.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_seconds_are_kept_and_only_while_the_clock_runs() {
        let mut tally = Tally::new().unwrap();
        let ago = |time| Instant::now().checked_sub(Duration::from_millis(time)).unwrap();
        tally.acknowledge(ago(9_000));
        tally.start();
        tally.acknowledge(ago(3));
        tally.acknowledge(ago(2_000));
        tally.acknowledge(ago(2_000));
        let (count, latency) = tally.stop();
        tally.acknowledge(ago(9_000));
        assert_eq!((count, tally.acknowledged), (3, 5));
        for micros in [latency.p50, latency.p99, latency.max] {
            assert!((2_000_000..2_100_000).contains(&micros), "{latency:?}");
        }
    }
}
