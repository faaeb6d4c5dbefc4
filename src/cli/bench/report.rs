//! How a measurement is shown: a table for people, JSON for everything else.

use serde::Serialize;

use super::machine::Machine;
use super::tally::Round;
use super::write::LoadReport;
use crate::cli::output::{Output, StdoutError};

/// A whole measurement.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was measured on.
    pub machine: Machine,
    /// What was measured.
    pub versions: Versions,
    /// What was sent.
    pub load: LoadReport,
    /// What came of it, in the order of the measurement.
    pub targets: Vec<TargetReport>,
    /// The first target by each of the others.
    pub ratios: Vec<Ratio>,
}

/// Which build this is.
#[derive(Debug, Serialize)]
pub struct Versions {
    herald: &'static str,
    build: &'static str,
}

impl Versions {
    /// Of this program.
    pub fn this() -> Self {
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        Self { herald: env!("CARGO_PKG_VERSION"), build }
    }
}

/// One target.
#[derive(Debug, Serialize)]
pub struct TargetReport {
    /// Such as `herald` or `echo`.
    pub name: &'static str,
    /// In the order they were made.
    pub rounds: Vec<Round>,
    /// Of all rounds, each number by itself.
    pub median: Median,
}

/// The medians of several rounds.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs, reason = "the names of the numbers in `Round`")]
pub struct Median {
    pub calls_per_second: f64,
    pub p50_micros: f64,
    pub p99_micros: f64,
    pub server_cpu_micros_per_call: Option<f64>,
}

/// How two targets compare, by their medians.
#[derive(Debug, Serialize)]
pub struct Ratio {
    /// What is compared with.
    pub to: &'static str,
    /// More is better.
    pub calls_per_second: f64,
    /// Less is better.
    pub server_cpu_per_call: Option<f64>,
}

impl TargetReport {
    /// From the rounds of a target.
    pub fn new(name: &'static str, rounds: Vec<Round>) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let of = |number: fn(&Round) -> u64| median(rounds.iter().map(|r| number(r) as f64));
        let median = Median {
            calls_per_second: median(rounds.iter().map(|round| round.calls_per_second))
                .unwrap_or(0.0),
            p50_micros: of(|round| round.latency_micros.p50).unwrap_or(0.0),
            p99_micros: of(|round| round.latency_micros.p99).unwrap_or(0.0),
            server_cpu_micros_per_call: median(
                rounds.iter().filter_map(|round| round.server_cpu_micros_per_call),
            ),
        };
        Self { name, rounds, median }
    }
}

impl Report {
    /// From all targets; the first is compared with the others.
    pub fn new(load: LoadReport, targets: Vec<TargetReport>) -> Self {
        let ratios = targets.split_first().map_or_else(Vec::new, |(first, others)| {
            others.iter().map(|other| ratio(first, other)).collect()
        });
        Self { machine: Machine::this(), versions: Versions::this(), load, targets, ratios }
    }

    /// Writes the table.
    pub fn table(&self, output: &mut Output) -> Result<(), StdoutError> {
        output.line(format_args!(
            "{:<20} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>11}",
            "", "calls/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "CPU µs/call"
        ))?;
        for target in &self.targets {
            for (index, round) in target.rounds.iter().enumerate() {
                let latency = &round.latency_micros;
                output.line(format_args!(
                    "{:<20} {:>9.0} {:>9} {:>9} {:>9} {:>9} {:>9} {:>11}",
                    format!("{} {}", target.name, index + 1),
                    round.calls_per_second,
                    millis(latency.p50),
                    millis(latency.p90),
                    millis(latency.p99),
                    millis(latency.p99_9),
                    millis(latency.max),
                    micros(round.server_cpu_micros_per_call),
                ))?;
            }
        }
        for target in self.targets.iter().filter(|target| target.rounds.len() > 1) {
            output.line(format_args!(
                "{:<20} {:>9.0} {:>49} {:>11}",
                format!("{} median", target.name),
                target.median.calls_per_second,
                "",
                micros(target.median.server_cpu_micros_per_call),
            ))?;
        }
        for ratio in &self.ratios {
            let cpu = ratio
                .server_cpu_per_call
                .map_or_else(String::new, |cpu| format!(" at {cpu:.2} times its CPU time a call"));
            output.line(format_args!(
                "{} makes {:.2} of the calls/s of {}{cpu}",
                self.targets.first().map_or("", |first| first.name),
                ratio.calls_per_second,
                ratio.to,
            ))?;
        }
        Ok(())
    }

    /// The calls that failed, in words; none when all were acknowledged.
    pub fn failures(&self) -> Option<String> {
        let mut texts = Vec::new();
        for target in &self.targets {
            for round in target.rounds.iter().filter(|round| !round.failed.is_empty()) {
                let counts: Vec<_> =
                    round.failed.iter().map(|(code, count)| format!("{count} {code}")).collect();
                let first = round.first_failure.as_deref().unwrap_or_default();
                texts.push(format!(
                    "{}: {} calls acknowledged, failed: {} (the first: {first})",
                    target.name,
                    round.acknowledged,
                    counts.join(", "),
                ));
            }
        }
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

fn ratio(first: &TargetReport, other: &TargetReport) -> Ratio {
    let (ours, theirs) = (first.median, other.median);
    let cpu = ours.server_cpu_micros_per_call.zip(theirs.server_cpu_micros_per_call);
    Ratio {
        to: other.name,
        calls_per_second: ours.calls_per_second / theirs.calls_per_second.max(f64::MIN_POSITIVE),
        server_cpu_per_call: cpu
            .filter(|(_, theirs)| *theirs > 0.0)
            .map(|(ours, theirs)| ours / theirs),
    }
}

/// The middle number, or what is between the two middles.
pub fn median(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<_> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().checked_sub(1)? / 2;
    Some(f64::midpoint(sorted[middle], sorted[sorted.len() / 2]))
}

/// Microseconds in words, as milliseconds.
pub fn millis(micros: u64) -> String {
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

/// A number of microseconds in words, if there is one.
pub fn micros(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }
}
