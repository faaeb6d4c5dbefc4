//! The running server: what starts after what, and what stops before what.
//!
//! Starting: bind → open the log → lanes → tail, catch-up, players, admin → ready.
//!
//! Stopping: not ready → subscribers get `closing` → no new connections → calls in
//! flight finish → the log is flushed → what players have is written down → the readers of the
//! log stop. At the deadline whatever is left is given up, and [`StopError`] says what.
//!
//! Connections are owned by [`lane`]s, threads with a single-threaded runtime each:
//! a call is served from its first byte to its last on one thread, which saves most of
//! the wake-ups that a shared runtime would need.

mod admin;
mod calls;
mod catalog;
mod front;
mod http2;
mod lane;
mod page;
mod projection;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::commands::CommandsBuilder;
use crate::config::{CatalogFile, Config, LogOptions, ServerOptions};
use crate::domain::Catalog;
use crate::event_log::kafka::{self, KafkaLog};
use crate::event_log::local::{self, LocalLog};
use crate::event_log::{EventLog, Health as LogHealth};
use crate::feed::Feed;
use crate::grpc::{self, Health, Serving};
use crate::players::Players;
use crate::tasks::{Death, Tasks};
use crate::telemetry::Telemetry;

pub use catalog::CatalogReload;
use lane::{Arrival, Lane};
use projection::Projection;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// The part of the time for stopping that is kept for flushing the log.
const FLUSH_PART: u32 = 5;

/// How long nothing is accepted after accepting has failed, as when the process has no
/// file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The embedded log cannot be opened.
    #[error(transparent)]
    Local(#[from] local::OpenError),
    /// The log in Kafka cannot be opened.
    #[error(transparent)]
    Kafka(#[from] kafka::OpenError),
    /// An address cannot be bound.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// A thread or a runtime cannot be had.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The descriptor sets are not readable.
    #[error("reflection: {0}")]
    Reflection(String),
}

/// What went wrong while running or stopping.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// The log had not confirmed every event at the deadline.
    #[error("stopped at the deadline before the log had confirmed every event")]
    NotFlushed,
    /// A part without which nothing works has ended.
    #[error("{0} ended unexpectedly")]
    Died(&'static str),
}

/// A server that is bound and not yet running.
pub struct Server {
    options: ServerOptions,
    listener: TcpListener,
    admin: Option<TcpListener>,
    log: Arc<dyn EventLog>,
    feed: Feed,
    players: Players,
    health: Health,
    lanes: Vec<Lane>,
    catalog: Arc<ArcSwap<Catalog>>,
    catalog_file: Option<CatalogFile>,
    catalog_reload: CatalogReload,
    catalog_metrics: catalog::Metrics,
    metrics: Metrics,
    registry: Arc<Registry>,
    tasks: Tasks,
}

/// What the server counts.
#[derive(Clone, Default)]
struct Metrics {
    connections: Gauge,
    refused: Counter,
    writable: Gauge,
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What is running", build);
        registry.register("connections", "Connections that are open", self.connections.clone());
        registry.register(
            "refused_connections",
            "Connections closed at once because too many were open",
            self.refused.clone(),
        );
        registry.register("log_writable", "1 while the log takes writes", self.writable.clone());
    }
}

impl Server {
    /// Opens the log and binds the addresses. Nothing is served before
    /// [`Server::run`].
    pub async fn bind(config: Config, telemetry: Option<&Telemetry>) -> Result<Self, StartError> {
        // The addresses first: a start that fails on them leaves no folder behind.
        let listener = listen(config.server.listen)?;
        let admin = config.server.admin_listen.map(listen).transpose()?;
        let mut registry = Registry::with_prefix("herald");
        let log: Arc<dyn EventLog> = match config.log {
            LogOptions::Local(options) => LocalLog::open(options)?,
            LogOptions::Kafka(options) => KafkaLog::open(options, &mut registry).await?,
        };
        if let Some(telemetry) = telemetry {
            telemetry.register(&mut registry);
        }
        let metrics = Metrics::default();
        metrics.register(&mut registry);
        let feed = Feed::build(Arc::clone(&log), config.feed, config.clock.clone(), &mut registry);
        let catalog = Arc::new(ArcSwap::from_pointee(config.catalog));
        let catalog_metrics = catalog::Metrics::default();
        catalog_metrics.register(&catalog, &mut registry);
        let players = Players::build(
            config.players,
            log.key_partitions(),
            config.clock.clone(),
            &mut registry,
        );
        let commands = CommandsBuilder::build(
            config.commands,
            Arc::clone(&catalog),
            config.clock,
            feed.clone(),
            players.clone(),
            &mut registry,
        );
        let calls = grpc::register_metrics(&mut registry);
        let health = Health::new().await;
        let tasks = Tasks::new();
        let grpc_options = Arc::new(config.grpc);
        let pages = Arc::new(config.pages);
        let lanes = (0..config.server.worker_threads.get())
            .map(|number| {
                Lane::start(lane::Setup {
                    number,
                    log: Arc::clone(&log),
                    feed: feed.clone(),
                    players: players.clone(),
                    commands: commands.clone(),
                    health: health.clone(),
                    options: Arc::clone(&grpc_options),
                    pages: Arc::clone(&pages),
                    calls: Arc::clone(&calls),
                    access_log: telemetry.map(Telemetry::access_log).unwrap_or_default(),
                    tasks: tasks.child(),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            options: config.server,
            listener,
            admin,
            log,
            feed,
            players,
            health,
            lanes,
            catalog,
            catalog_file: config.catalog_file,
            catalog_reload: CatalogReload::default(),
            catalog_metrics,
            metrics,
            registry: Arc::new(registry),
            tasks,
        })
    }

    /// Where calls are served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Where the operator looks.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Has the catalogue read again; `None` when it comes from no file.
    pub fn catalog_reload(&self) -> Option<CatalogReload> {
        self.catalog_file.as_ref().map(|_| self.catalog_reload.clone())
    }

    /// Serves until `shutdown` ends or a vital part dies, then stops in order.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), StopError> {
        let tasks = &self.tasks;
        let feed = self.feed.clone();
        tasks.spawn("feed tail", Death::Fatal, async move { feed.run_tail().await });
        let feed = self.feed.clone();
        tasks.spawn("feed catch-up", Death::Fatal, async move { feed.run_catch_up().await });

        if let Some(file) = self.catalog_file {
            let (asked, metrics) = (self.catalog_reload, self.catalog_metrics);
            let follow = catalog::follow(file, self.catalog, asked, metrics);
            tasks.spawn("catalogue", Death::Fatal, follow);
        }
        let players = self.players.clone();
        tasks.spawn("snapshot", Death::Fatal, async move { players.keep_snapshot().await });

        let stopping = watch::Sender::new(false);
        let (log, feed, players) = (self.log.clone(), self.feed.clone(), self.players.clone());
        let projection = Projection::new(log, feed, players, stopping.subscribe());
        tasks.spawn("players", Death::Fatal, projection.run());

        let (serving_tx, serving) = watch::channel(Serving { writes: false, feed: false });
        tasks.spawn(
            "health",
            Death::Fatal,
            watch_health(
                self.log.health(),
                self.feed.live(),
                self.players.ready(),
                stopping.subscribe(),
                self.health.clone(),
                serving_tx,
                self.metrics.writable.clone(),
            ),
        );
        if let Some(listener) = self.admin {
            tasks.spawn(
                "admin",
                Death::Fatal,
                admin::serve(listener, Arc::clone(&self.registry), serving.clone()),
            );
        }

        let died = tokio::select! {
            () = shutdown => None,
            name = tasks.died() => Some(name),
            never = accept(&self.listener, &self.lanes, &self.options, &self.metrics) => match never {},
        };

        tracing::info!("stopping");
        let deadline = Instant::now() + self.options.stop_timeout;
        // Calls that do not finish must not use up the time of the log.
        let calls_deadline = deadline - self.options.stop_timeout / FLUSH_PART;
        stopping.send_replace(true);
        let mut not_ready = serving;
        // Ends also when the health task has died, which is why it may be stopping.
        let _ = timeout_at(deadline, not_ready.wait_for(|s| !s.writes && !s.feed)).await;
        self.feed.close();
        self.health.close();
        drop(self.listener);
        join_all(self.lanes.into_iter().map(|lane| lane.stop(calls_deadline))).await;
        let flushed = timeout_at(deadline, self.log.close()).await.is_ok();
        let _ = timeout_at(deadline, self.players.save()).await;
        tasks.stop();
        let _ = timeout_at(deadline, tasks.ended()).await;
        match died {
            Some(name) => Err(StopError::Died(name)),
            None if !flushed => Err(StopError::NotFlushed),
            None => Ok(()),
        }
    }
}

/// A listener that a restarted server can have again at once.
fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|error| StartError::Bind(address, error))
}

/// Deals connections to the lanes, one after the other.
async fn accept(
    listener: &TcpListener,
    lanes: &[Lane],
    options: &ServerOptions,
    metrics: &Metrics,
) -> std::convert::Infallible {
    let open = Arc::new(AtomicUsize::new(0));
    let mut next = 0;
    let mut failing = false;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Once for all the failures in a row.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "connections cannot be accepted; trying on");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failing = false;
        if open.load(Ordering::Relaxed) >= options.max_connections {
            metrics.refused.inc();
            tracing::debug!(%peer, "a connection is closed because too many are open");
            continue;
        }
        // From here on the lane's runtime owns it.
        let Ok(stream) = stream.into_std() else { continue };
        let place = Place::new(Arc::clone(&open), metrics.connections.clone());
        next = (next + 1) % lanes.len();
        // A lane that is behind with taking them is passed over.
        let mut in_turn = lanes[next..].iter().chain(&lanes[..next]);
        let arrival = Arrival { stream, peer, place };
        let left = in_turn.try_fold(arrival, |arrival, lane| lane.try_send(arrival));
        if let Some(arrival) = left {
            lanes[next].send(arrival).await;
        }
    }
}

/// One of the places for connections; given back when dropped.
struct Place {
    open: Arc<AtomicUsize>,
    gauge: Gauge,
}

impl Place {
    fn new(open: Arc<AtomicUsize>, gauge: Gauge) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        gauge.inc();
        Self { open, gauge }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}

/// Keeps the health service and readiness in step with the log, the feed and the players: a
/// request that was carried out before is recognised only once they are known.
async fn watch_health(
    mut log: watch::Receiver<LogHealth>,
    mut live: watch::Receiver<bool>,
    mut players: watch::Receiver<bool>,
    mut stopping: watch::Receiver<bool>,
    health: Health,
    serving: watch::Sender<Serving>,
    writable: Gauge,
) {
    let mut told = None;
    loop {
        let stops = *stopping.borrow_and_update();
        let writes = match &*log.borrow_and_update() {
            LogHealth::Writable => {
                told = None;
                true
            }
            LogHealth::Unwritable(reason) => {
                if !stops && told.as_ref() != Some(reason) {
                    tracing::error!(%reason, "the log takes no writes");
                    told = Some(Arc::clone(reason));
                }
                false
            }
        };
        let takes_writes = writes && *players.borrow_and_update() && !stops;
        let now = Serving { writes: takes_writes, feed: *live.borrow_and_update() && !stops };
        writable.set(writes.into());
        if now != *serving.borrow() {
            tracing::info!(writes = now.writes, feed = now.feed, "serving");
        }
        health.set(now).await;
        serving.send_replace(now);
        if stops {
            // What the log says while it is being closed is no news.
            return std::future::pending().await;
        }
        let changed = tokio::select! {
            changed = log.changed() => changed,
            changed = live.changed() => changed,
            changed = players.changed() => changed,
            changed = stopping.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
