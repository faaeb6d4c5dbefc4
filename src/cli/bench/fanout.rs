//! `herald bench fanout`: what it costs to deliver events, and how long it takes.
//!
//! Phases come one after the other: subscribers open, nothing happens, events come at a
//! steady rate, and events come all at once. The next one begins when everything of the
//! one before was delivered.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;
use http::Request;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::child::Child;
use super::deliveries::{Deliveries, Filter};
use super::fanout_report::{Idle, Measured, Phase, Report, Troubles};
use super::load::{Target, lock};
use super::machine::{cpu_time, memory};
use super::payload::{self, MOST_PLAYERS, Payload};
use super::subscribers::Subscribers;
use super::{until_signalled, wire};
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::cli::remote::Server;
use crate::tasks::{Death, Tasks};

/// Over how many players events are spread when nobody filters by them.
const PLAYERS: u64 = 1_000;

/// Over how many connections events are sent, so that a burst is limited by the server
/// rather than by how many calls it takes on one connection.
const SENDING_CONNECTIONS: usize = 8;

/// Calls under way at the most; further ones wait, and count from when they are made.
const MOST_CALLS_UNDER_WAY: usize = 4_096;

/// What has not come is lost when nothing was delivered or answered for so long.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked whether everything has come.
const TICK: Duration = Duration::from_millis(10);

/// How long the server may get over the opening of the streams before it counts as idle.
const SETTLE: Duration = Duration::from_secs(1);

/// How long a repeat of the last event may take to show.
const LINGER: Duration = Duration::from_millis(200);

/// Streams that are opened beforehand, each on a connection of its own, so that every thread
/// of the server has had one.
const PRIMING_STREAMS: u64 = 16;

/// Arguments of `herald bench fanout`.
#[derive(Debug, Args, Serialize)]
pub struct Fanout {
    #[command(flatten)]
    #[serde(skip)]
    server: Server,
    /// The server's process, to measure its CPU time and memory.
    #[arg(long, value_name = "PID", conflicts_with = "spawn")]
    #[serde(skip)]
    server_pid: Option<u32>,
    /// Measure a server started for this, with an empty log, instead of --server.
    #[arg(long)]
    #[serde(skip)]
    spawn: bool,
    /// An argument for that server, such as --serve-arg=--flag=value; can be
    /// repeated.
    #[arg(long, value_name = "ARG", requires = "spawn", allow_hyphen_values = true)]
    #[serde(skip)]
    serve_arg: Vec<String>,
    /// How many streams to open.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=MOST_PLAYERS))]
    subscribers: u64,
    /// Over how many connections; servers limit the streams of each.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    connections: u64,
    /// Which events the subscribers ask for: all, or each those of a player of its own.
    #[arg(long, value_name = "none|player", default_value = "none")]
    filter: Filter,
    /// So many subscribers besides that never read.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    stalled: u32,
    /// How many events to send a second.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long to measure.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// How long to send before measuring.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    warmup: u32,
    /// How long to measure what the server costs while nothing happens.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    idle: u32,
    /// At the end send so many events at once.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    burst: u32,
    /// What is bought.
    #[arg(long, value_name = "ID", default_value = "sword")]
    #[serde(skip)]
    item: String,
    /// Print JSON.
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

impl Fanout {
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
        match report.failures() {
            Some(failures) => anyhow::bail!("{failures}"),
            None => Ok(Exit::Done),
        }
    }

    async fn measure(self) -> anyhow::Result<Report<Self>> {
        let child = self.spawn.then(|| Child::serve(&self.serve_arg)).transpose()?;
        let target = match &child {
            Some(child) => {
                Target { server: wire::address(&child.address)?, pid: Some(child.pid()) }
            }
            None => Target { server: wire::address(&self.server.server)?, pid: self.server_pid },
        };
        let players = match self.filter {
            Filter::None => PLAYERS,
            Filter::Player => self.subscribers,
        };
        let payload = Arc::new(Payload::new(&self.item));
        let deliveries =
            Deliveries::new(Arc::clone(&payload), self.filter, players, self.subscribers)?;
        let deliveries = Arc::new(Mutex::new(deliveries));
        let subscribers = Subscribers::new(&target.server, &deliveries)?;

        prime(&target).await?;
        let memory_before = target.pid.map(memory).transpose()?;
        let began = Instant::now();
        let (count, connections) = (self.subscribers, self.connections);
        subscribers.open(&target.server, count, connections, self.filter, &payload).await?;
        let opening = began.elapsed();
        sleep(SETTLE).await;
        let cpu_before = target.pid.map(cpu_time).transpose()?;
        let idle_time = Duration::from_secs(self.idle.into());
        sleep(idle_time).await;
        let idle = Idle::new(
            self.subscribers,
            opening,
            memory_before.zip(target.pid.map(memory).transpose()?),
            cpu_before.zip(target.pid.map(cpu_time).transpose()?),
            idle_time,
        );
        subscribers.open_stalled(&target.server, self.stalled as usize).await?;

        let drivers = Tasks::new();
        let sender = Sender::connect(&target, payload, &deliveries, &drivers).await?;
        let mut phases = Vec::new();
        if self.warmup > 0 {
            phases.push(
                sender
                    .phase("warm-up", self.warmup.saturating_mul(self.rate), Some(self.rate))
                    .await?,
            );
        }
        phases.push(
            sender.phase("steady", self.seconds.saturating_mul(self.rate), Some(self.rate)).await?,
        );
        if self.burst > 0 {
            phases.push(sender.phase("burst", self.burst, None).await?);
        }
        sleep(LINGER).await;
        let memory_after = target.pid.map(memory).transpose()?;
        drivers.stop();
        drivers.ended().await;
        subscribers.close().await?;
        let troubles = Troubles::of(&lock(&deliveries));
        Ok(Report::new(self, idle, phases, memory_after, troubles))
    }
}

/// Opens a few streams and closes them, so that what the first ones cost the server once is
/// not taken for what each costs.
async fn prime(target: &Target) -> anyhow::Result<()> {
    let payload = Arc::new(Payload::new("sword"));
    let deliveries = Deliveries::new(Arc::clone(&payload), Filter::None, 1, PRIMING_STREAMS)?;
    let deliveries = Arc::new(Mutex::new(deliveries));
    let streams = Subscribers::new(&target.server, &deliveries)?;
    let (count, connections) = (PRIMING_STREAMS, PRIMING_STREAMS);
    streams.open(&target.server, count, connections, Filter::None, &payload).await?;
    streams.close().await
}

/// What sends events.
struct Sender {
    target: Target,
    payload: Arc<Payload>,
    deliveries: Arc<Mutex<Deliveries>>,
    connections: Vec<h2::client::SendRequest<bytes::Bytes>>,
    head: Request<()>,
    places: Arc<Semaphore>,
}

impl Sender {
    async fn connect(
        target: &Target,
        payload: Arc<Payload>,
        deliveries: &Arc<Mutex<Deliveries>>,
        drivers: &Tasks,
    ) -> anyhow::Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..SENDING_CONNECTIONS {
            let window = wire::STREAM_WINDOW_BYTES;
            connections.push(wire::connect(&target.server, window, drivers).await?);
        }
        Ok(Self {
            target: target.clone(),
            payload,
            deliveries: Arc::clone(deliveries),
            connections,
            head: wire::head(&target.server, payload::PATH)?,
            places: Arc::new(Semaphore::new(MOST_CALLS_UNDER_WAY)),
        })
    }

    /// Sends so many events, `rate` a second or all at once, and waits until all of them
    /// are delivered or lost.
    async fn phase(
        &self,
        name: &'static str,
        events: u32,
        rate: Option<u32>,
    ) -> anyhow::Result<Phase> {
        let cpu = || self.target.pid.map(cpu_time).transpose();
        let cpu_before = cpu()?;
        lock(&self.deliveries).begin();
        let calls = Tasks::new();
        let started = Instant::now();
        for event in 0..events {
            if let Some(rate) = rate {
                sleep_until(started + Duration::from_secs(1) * event / rate).await;
            }
            let place = Arc::clone(&self.places).acquire_owned();
            let Ok(place) = timeout(SILENCE_LIMIT, place).await else {
                self.unanswered();
                break;
            };
            let connection = self.connections[event as usize % SENDING_CONNECTIONS].clone();
            let call = self.call(connection);
            calls.spawn("bench event", Death::Expected, async move {
                call.await;
                drop(place);
            });
        }
        calls.stop();
        self.all_delivered(&calls).await;
        // A server that has died by now is reported by the streams it ended.
        let cpu = cpu_before.zip(cpu().ok().flatten());
        let deliveries = lock(&self.deliveries);
        let measured = Measured {
            counts: deliveries.counts(),
            time: deliveries.lasted(),
            cpu: cpu.map(|(before, after)| after.saturating_sub(before)),
            latency: deliveries.latency(),
            recovery: deliveries.recovery(),
        };
        Ok(Phase::new(name, &measured))
    }

    /// Makes one call; counts from when it is polled first.
    fn call(
        &self,
        mut connection: h2::client::SendRequest<bytes::Bytes>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (payload, head) = (Arc::clone(&self.payload), self.head.clone());
        let deliveries = Arc::clone(&self.deliveries);
        async move {
            let call = lock(&deliveries).send(std::time::Instant::now());
            let answer = wire::call(&mut connection, head, payload.frame(call)).await;
            let mut deliveries = lock(&deliveries);
            match answer {
                Ok(_receipt) => deliveries.acknowledge(call),
                Err(failure) => deliveries.call_failed(failure.to_string()),
            }
        }
    }

    /// Returns when all calls are answered and everything has come, or nothing comes.
    async fn all_delivered(&self, calls: &Tasks) {
        let mut newest = (0, Instant::now());
        let mut answered = false;
        loop {
            answered = answered || timeout(Duration::ZERO, calls.ended()).await.is_ok();
            {
                let deliveries = lock(&self.deliveries);
                if answered && deliveries.counts().lost() == 0 {
                    return;
                }
                if deliveries.all != newest.0 {
                    newest = (deliveries.all, Instant::now());
                }
            }
            if newest.1.elapsed() > SILENCE_LIMIT {
                if !answered {
                    self.unanswered();
                }
                return;
            }
            sleep(TICK).await;
        }
    }

    fn unanswered(&self) {
        let why = format!("a call was not answered for {SILENCE_LIMIT:?}");
        lock(&self.deliveries).call_failed(why);
    }
}
