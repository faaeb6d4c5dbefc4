//! `herald bench write`: the measurement.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::child::Child;
use super::load::{self, Length, Load, Target};
use super::payload::MOST_PLAYERS;
use super::report::{Report, TargetReport};
use super::tally::Receipts;
use super::{until_signalled, wire};
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::cli::remote::Server;
use crate::cli::words::printable;

/// How many rounds a comparison takes: enough for a median.
const ROUNDS_OF_A_COMPARISON: u32 = 3;

/// Arguments of `herald bench write`.
#[derive(Debug, Args)]
pub struct Write {
    #[command(flatten)]
    server: Server,
    /// The server's process, to measure its CPU time.
    #[arg(long, value_name = "PID", conflicts_with = "spawn")]
    server_pid: Option<u32>,
    /// Measure a server started for this, with an empty log, instead of --server.
    #[arg(long)]
    spawn: bool,
    /// An argument for that server, such as --serve-arg=--flag=value; can be
    /// repeated.
    #[arg(long, value_name = "ARG", requires = "spawn", allow_hyphen_values = true)]
    serve_arg: Vec<String>,
    /// Send the same load to a bare tonic server in turn and compare.
    #[arg(long)]
    echo: bool,
    /// Compare with a bare tonic server on a single thread too.
    #[arg(long)]
    echo_single_thread: bool,
    /// Compare with a bare tonic server that writes to this Kafka by rdkafka's
    /// FutureProducer too.
    #[arg(long, value_name = "BROKERS")]
    future_producer: Option<String>,
    /// How often to measure each; 3 in a comparison, else 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How many connections to use.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// How many calls to keep under way, over all connections.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: u32,
    /// How long to measure.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// How long to send before measuring.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    warmup: u32,
    /// Make exactly so many calls and measure all of them.
    #[arg(long, value_name = "N", conflicts_with_all = ["seconds", "warmup"], value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// How many players buy.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=MOST_PLAYERS))]
    players: u64,
    /// What they buy.
    #[arg(long, value_name = "ID", default_value = "sword")]
    item: String,
    /// Send a player's purchase only when the one before it was answered. The
    /// quantity counts a player's purchases in either case.
    #[arg(long)]
    ordered: bool,
    /// Write every acknowledged purchase (not the yardstick's) to this file, as
    /// lines of JSON.
    #[arg(long, value_name = "FILE")]
    receipts: Option<PathBuf>,
    /// Go on after a failure, and end with success.
    #[arg(long)]
    tolerate_errors: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was sent, as it is reported.
#[derive(Debug, Serialize)]
pub struct LoadReport {
    connections: usize,
    in_flight: usize,
    players: u64,
    ordered: bool,
    rounds: u32,
    warmup_seconds: Option<u32>,
    seconds: Option<u32>,
    requests: Option<u64>,
}

/// A target with its name and, if it was started here, its process.
struct Entry {
    name: &'static str,
    target: Target,
    _child: Option<Child>,
}

impl Entry {
    fn child(name: &'static str, child: Child) -> anyhow::Result<Self> {
        let target = Target { server: wire::address(&child.address)?, pid: Some(child.pid()) };
        Ok(Self { name, target, _child: Some(child) })
    }
}

impl Write {
    /// Measures all targets in turn and reports.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let report = match until_signalled(output, self.measure()).await? {
            Ok(report) => report,
            Err(exit) => return Ok(exit),
        };
        if self.json {
            output.line(serde_json::to_string_pretty(&report)?)?;
        } else {
            report.table(output)?;
        }
        match report.failures() {
            Some(failures) if self.tolerate_errors => {
                output.note(&printable(&format!("calls failed, {failures}")))
            }
            Some(failures) => anyhow::bail!("calls failed, {failures}"),
            None => {}
        }
        Ok(Exit::Done)
    }

    async fn measure(&self) -> anyhow::Result<Report> {
        let load = self.load();
        let entries = self.targets()?;
        let rounds =
            self.rounds.unwrap_or(if entries.len() > 1 { ROUNDS_OF_A_COMPARISON } else { 1 });
        let receipts = self.receipts.as_deref().map(Receipts::create).transpose()?;
        let receipts = receipts.map(|receipts| Arc::new(Mutex::new(receipts)));
        let mut measured: Vec<_> = entries.iter().map(|_| Vec::new()).collect();
        // In turn, so that a noisy minute hits all alike.
        for round in 1..=rounds {
            for (index, (entry, rounds_of)) in entries.iter().zip(&mut measured).enumerate() {
                let bar = progress(self.requests);
                bar.set_prefix(format!("{} {round}/{rounds}", entry.name));
                let receipts = receipts.clone().filter(|_| index == 0);
                let result = load::run(&entry.target, &load, receipts, &bar).await;
                bar.finish_and_clear();
                rounds_of.push(result.with_context(|| format!("cannot measure {}", entry.name))?);
            }
        }
        let targets = entries.iter().zip(measured);
        let targets = targets.map(|(entry, rounds)| TargetReport::new(entry.name, rounds));
        Ok(Report::new(self.load_report(&load, rounds), targets.collect()))
    }

    /// What to measure: first the server in question, then the yardsticks.
    fn targets(&self) -> anyhow::Result<Vec<Entry>> {
        let mut entries = vec![if self.spawn {
            Entry::child("herald", Child::serve(&self.serve_arg)?)?
        } else {
            let target =
                Target { server: wire::address(&self.server.server)?, pid: self.server_pid };
            Entry { name: "herald", target, _child: None }
        }];
        if self.echo {
            entries.push(Entry::child("echo", Child::echo(&[])?)?);
        }
        if self.echo_single_thread {
            entries.push(Entry::child("echo-1-thread", Child::echo(&["--single-thread"])?)?);
        }
        if let Some(brokers) = &self.future_producer {
            let kafka = ["--kafka-brokers", brokers];
            entries.push(Entry::child("future-producer", Child::echo(&kafka)?)?);
        }
        Ok(entries)
    }

    fn load(&self) -> Load {
        let seconds = |count: u32| Duration::from_secs(count.into());
        Load {
            connections: usize::try_from(self.connections).unwrap_or(usize::MAX),
            in_flight: usize::try_from(self.in_flight).unwrap_or(usize::MAX),
            players: self.players,
            ordered: self.ordered,
            tolerate_errors: self.tolerate_errors,
            item: self.item.clone(),
            length: match self.requests {
                Some(calls) => Length::Calls(calls),
                None => {
                    Length::Time { warmup: seconds(self.warmup), measured: seconds(self.seconds) }
                }
            },
        }
    }

    fn load_report(&self, load: &Load, rounds: u32) -> LoadReport {
        let timed = self.requests.is_none();
        LoadReport {
            connections: load.connections,
            in_flight: load.in_flight,
            players: load.players,
            ordered: load.ordered,
            rounds,
            warmup_seconds: timed.then_some(self.warmup),
            seconds: timed.then_some(self.seconds),
            requests: self.requests,
        }
    }
}

/// A bar on stderr, if that is a terminal.
fn progress(requests: Option<u64>) -> ProgressBar {
    // Without a number of calls the length is the time, which comes with each phase.
    let bar = ProgressBar::new(requests.unwrap_or(1));
    let template = "{prefix}  [{bar:30}]  {msg}";
    // It cannot fail, the template is known; a bar without a style will do.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
