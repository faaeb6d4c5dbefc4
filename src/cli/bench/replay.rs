//! `herald bench replay`: how fast one subscriber gets all that the log holds.
//!
//! On Kafka a bare librdkafka consumer reads the same topic in turn.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Serialize;
use tokio::time::timeout;
use uuid::Uuid;

use super::child::{Child, Directory};
use super::load::Target;
use super::machine::{Machine, cpu_time};
use super::report::{Versions, median};
use super::stream::{self, Frames, Message};
use super::{consumer, fill, until_signalled, wire};
use crate::cli::exit::Exit;
use crate::cli::output::{Output, StdoutError};
use crate::proto::stream_events_request::Start;
use crate::proto::{StartPosition, StreamEventsRequest};
use crate::tasks::Tasks;

/// What the server may send before it is told that this was read: so much that a fast
/// reader is not what it waits for.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// By how many players the events are.
const PLAYERS: u64 = 1_000;

/// A round fails when nothing has come for so long: the server hangs.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// Arguments of `herald bench replay`.
#[derive(Debug, Args, Serialize)]
pub struct Replay {
    /// The Kafka to read from; without it there is an embedded log.
    #[arg(long, value_name = "BROKERS")]
    #[serde(skip)]
    kafka_brokers: Option<String>,
    /// A topic that exists, to be read as it is. Without it one is made, filled, and
    /// removed at the end.
    #[arg(long, value_name = "NAME", requires = "kafka_brokers", conflicts_with_all = ["events", "bytes"])]
    topic: Option<String>,
    /// How many events to write and read.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    events: u64,
    /// How long each of them is in the log, about; 200 and a little at the least.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    bytes: u32,
    /// How often to read all of them.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// An argument for the server that is started, such as --serve-arg=--flag=value; can
    /// be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    #[serde(skip)]
    serve_arg: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

/// A whole measurement.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    versions: Versions,
    load: Replay,
    targets: Vec<Reader>,
    /// What the subscriber gets a second, by what the bare consumer does; on Kafka only.
    ratio: Option<f64>,
}

/// One that reads all events.
#[derive(Debug, Serialize)]
struct Reader {
    name: &'static str,
    rounds: Vec<Round>,
    median_events_per_second: f64,
    median_cpu_micros_per_event: Option<f64>,
}

/// One reading of all events.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Round {
    events: u64,
    seconds: f64,
    events_per_second: f64,
    /// CPU time by event: the server's, and of the bare consumer its own.
    cpu_micros_per_event: Option<f64>,
}

/// Where the events are.
enum Place {
    Embedded(Directory),
    Topic { brokers: String, topic: String, made: bool },
}

impl Replay {
    /// Measures and reports.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let json = self.json;
        let report = match until_signalled(output, self.measure()).await? {
            Ok(report) => report,
            Err(exit) => return Ok(exit),
        };
        if json {
            output.line(serde_json::to_string_pretty(&report)?)?;
        } else {
            report.table(output)?;
        }
        report.check()?;
        Ok(Exit::Done)
    }

    async fn measure(self) -> anyhow::Result<Report> {
        let place = self.place()?;
        let bare = match &place {
            Place::Topic { brokers, topic, made } => Some((brokers.clone(), topic.clone(), *made)),
            Place::Embedded(_) => None,
        };
        let measured = self.measure_at(place, bare.as_ref()).await;
        if let Some((brokers, topic, true)) = &bare {
            let removed = consumer::delete_topic(brokers, topic).await;
            // What went wrong first is what counts.
            if measured.is_ok() {
                removed?;
            }
        }
        let targets = measured?;
        let ratio = match &targets[..] {
            [herald, bare] if bare.median_events_per_second > 0.0 => {
                Some(herald.median_events_per_second / bare.median_events_per_second)
            }
            _ => None,
        };
        let (machine, versions) = (Machine::this(), Versions::this());
        Ok(Report { machine, versions, load: self, targets, ratio })
    }

    async fn measure_at(
        &self,
        place: Place,
        bare: Option<&(String, String, bool)>,
    ) -> anyhow::Result<Vec<Reader>> {
        if self.topic.is_none() {
            self.fill(&place).await?;
        } else if let Some((brokers, topic, _)) = bare.cloned() {
            // The server would make it.
            let found = tokio::task::spawn_blocking(move || consumer::find(&brokers, &topic));
            found.await.context("the search for the topic panicked")??;
        }
        let child = self.serve(place)?;
        let target = Target { server: wire::address(&child.address)?, pid: Some(child.pid()) };
        let (mut herald, mut consumer) = (Vec::new(), Vec::new());
        // In turn, so that a noisy minute hits both alike.
        for _ in 0..self.rounds {
            herald.push(subscribe(&target).await?);
            if let Some((brokers, topic, _)) = bare.cloned() {
                let counted = tokio::task::spawn_blocking(move || count(&brokers, &topic));
                consumer.push(counted.await.context("the bare consumer panicked")??);
            }
        }
        let mut readers = vec![Reader::new("herald", herald)];
        if bare.is_some() {
            readers.push(Reader::new("bare consumer", consumer));
        }
        Ok(readers)
    }

    fn place(&self) -> anyhow::Result<Place> {
        let Some(brokers) = self.kafka_brokers.clone() else {
            return Ok(Place::Embedded(Directory::create()?));
        };
        let made = self.topic.is_none();
        let topic =
            self.topic.clone().unwrap_or_else(|| format!("herald-bench-{}", Uuid::new_v4()));
        Ok(Place::Topic { brokers, topic, made })
    }

    async fn fill(&self, place: &Place) -> anyhow::Result<()> {
        let log = match place {
            Place::Embedded(directory) => fill::embedded(directory.path().to_owned())?,
            Place::Topic { brokers, topic, .. } => {
                fill::topic_of(brokers.clone(), topic.clone()).await?
            }
        };
        let events = fill::Events { count: self.events, bytes: self.bytes, players: PLAYERS };
        fill::fill_and_close(log, &events).await
    }

    fn serve(&self, place: Place) -> anyhow::Result<Child> {
        match place {
            Place::Embedded(directory) => Child::serve_from(directory, &self.serve_arg),
            Place::Topic { brokers, topic, .. } => {
                let mut arguments =
                    vec![format!("--kafka-brokers={brokers}"), format!("--topic={topic}")];
                arguments.extend(self.serve_arg.iter().cloned());
                Child::serve(&arguments)
            }
        }
    }
}

/// Reads everything as a subscriber, which only counts.
async fn subscribe(target: &Target) -> anyhow::Result<Round> {
    let drivers = Tasks::new();
    let read = read(target, &drivers).await;
    drivers.stop();
    drivers.ended().await;
    read.context("cannot read as a subscriber")
}

async fn read(target: &Target, drivers: &Tasks) -> anyhow::Result<Round> {
    let request = StreamEventsRequest {
        start: Some(Start::StartPosition(StartPosition::Earliest.into())),
        stop_when_caught_up: true,
        ..Default::default()
    };
    let mut connection = wire::connect(&target.server, WINDOW_BYTES, drivers).await?;
    let head = wire::head(&target.server, stream::PATH)?;
    let cpu = || target.pid.map(cpu_time).transpose();
    let (cpu_before, began) = (cpu()?, Instant::now());
    let opening = wire::open(&mut connection, head, stream::frame(&request));
    let mut body = timeout(SILENCE_LIMIT, opening).await.context("the stream does not open")??;
    let (mut frames, mut events, mut complete) = (Frames::default(), 0, false);
    while let Some(chunk) = timeout(SILENCE_LIMIT, wire::next_chunk(&mut body))
        .await
        .with_context(|| format!("nothing came for {SILENCE_LIMIT:?}"))??
    {
        frames.take(&chunk, |message| {
            match stream::message(message)? {
                Message::Batch(batch) => {
                    for event in stream::events(batch) {
                        event?;
                        events += 1;
                    }
                }
                Message::CaughtUp => complete = true,
                _ => {}
            }
            Ok(())
        })?;
    }
    let time = began.elapsed();
    let cpu = cpu_before.zip(cpu()?).map(|(before, after)| after.saturating_sub(before));
    if !complete {
        bail!("the stream ended before all had come");
    }
    Ok(Round::new(events, time, cpu))
}

/// Reads everything as a bare consumer. Blocks.
fn count(brokers: &str, topic: &str) -> anyhow::Result<Round> {
    let own = std::process::id();
    let before = cpu_time(own)?;
    let (records, time) = consumer::count(brokers, topic).context("the bare consumer fails")?;
    Ok(Round::new(records, time, Some(cpu_time(own)?.saturating_sub(before))))
}

impl Round {
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn new(events: u64, time: Duration, cpu: Option<Duration>) -> Self {
        let seconds = time.as_secs_f64();
        Self {
            events,
            seconds,
            events_per_second: events as f64 / seconds.max(f64::MIN_POSITIVE),
            cpu_micros_per_event: cpu
                // Less than a tick of the kernel's clock cannot be told from nothing.
                .filter(|cpu| events > 0 && !cpu.is_zero())
                .map(|cpu| cpu.as_secs_f64() * 1e6 / events as f64),
        }
    }
}

impl Reader {
    fn new(name: &'static str, rounds: Vec<Round>) -> Self {
        let rate = median(rounds.iter().map(|round| round.events_per_second));
        let cpu = median(rounds.iter().filter_map(|round| round.cpu_micros_per_event));
        Self {
            name,
            rounds,
            median_events_per_second: rate.unwrap_or(0.0),
            median_cpu_micros_per_event: cpu,
        }
    }
}

impl Report {
    fn table(&self, output: &mut Output) -> Result<(), StdoutError> {
        let cpu = |micros: Option<f64>| {
            micros.map_or_else(|| "-".to_owned(), |micros| format!("{micros:.3}"))
        };
        output.line(format_args!(
            "{:<22} {:>10} {:>9} {:>11} {:>12}",
            "", "events", "seconds", "events/s", "CPU µs/event"
        ))?;
        for target in &self.targets {
            for (index, round) in target.rounds.iter().enumerate() {
                output.line(format_args!(
                    "{:<22} {:>10} {:>9.3} {:>11.0} {:>12}",
                    format!("{} {}", target.name, index + 1),
                    round.events,
                    round.seconds,
                    round.events_per_second,
                    cpu(round.cpu_micros_per_event),
                ))?;
            }
            output.line(format_args!(
                "{:<22} {:>32.0} {:>12}",
                format!("{} median", target.name),
                target.median_events_per_second,
                cpu(target.median_cpu_micros_per_event),
            ))?;
        }
        if let Some(ratio) = self.ratio {
            output.line(format_args!(
                "a subscriber gets {ratio:.2} of the events/s of a bare consumer"
            ))?;
        }
        Ok(())
    }

    /// Whether everybody got everything, every time.
    fn check(&self) -> anyhow::Result<()> {
        let mut counts = self.targets.iter().flat_map(|target| &target.rounds);
        let expected = match &self.load.topic {
            None => Some(self.load.events),
            Some(_) => counts.next().map(|round| round.events),
        };
        for target in &self.targets {
            for round in &target.rounds {
                ensure!(
                    Some(round.events) == expected,
                    "{} got {} events, not {}",
                    target.name,
                    round.events,
                    expected.unwrap_or(0)
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_counted_by_second_and_by_event() {
        let round = Round::new(4_000, Duration::from_millis(500), Some(Duration::from_millis(20)));
        assert_eq!((round.events_per_second, round.cpu_micros_per_event), (8_000.0, Some(5.0)));
        assert_eq!(Round::new(0, Duration::ZERO, None).events_per_second, 0.0);
        let reader = Reader::new("herald", vec![round; 3]);
        assert_eq!(reader.median_events_per_second, 8_000.0);
        assert_eq!(reader.median_cpu_micros_per_event, Some(5.0));
    }
}
