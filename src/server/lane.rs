//! A lane: one thread with a single-threaded runtime that owns connections.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Place, StartError, front};
use crate::commands::CommandsBuilder;
use crate::event_log::{Appender, EventLog};
use crate::feed::Feed;
use crate::grpc::{self, Health, Peer, Rooms, Transport};
use crate::tasks::{Death, Tasks};
use crate::telemetry::{ACCESS_FLUSH_INTERVAL, AccessLog};

/// Connections that wait for a lane to take them.
const ARRIVALS: usize = 64;

/// Calls and streams open at once on one connection; a client that wants more opens
/// another connection or waits.
const MAX_CONCURRENT_STREAMS: u32 = 2_048;

/// The most bytes of the headers of one request; the answer to more is the status 431,
/// or, far beyond it, the end of the connection.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// The most bytes buffered for one stream whose reader is slow. hyper's default is
/// 400 KiB, too much for thousands of them.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How much a client may send unasked: on one stream as much as the largest default
/// message, on a connection sixteen times that.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// When a silent peer is asked for a sign of life, and how long it has to give one:
/// a half-open connection is gone after 40 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a new connection may take to send its first byte, and an HTTP/1.1 request
/// the rest of its headers.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on its way to a lane.
pub(super) struct Arrival {
    pub stream: StdTcpStream,
    pub peer: SocketAddr,
    pub place: Place,
}

/// What a lane is made of.
pub(super) struct Setup {
    pub number: usize,
    pub log: Arc<dyn EventLog>,
    pub feed: Feed,
    pub commands: CommandsBuilder,
    pub health: Health,
    pub options: Arc<grpc::Options>,
    pub calls: Arc<grpc::Metrics>,
    pub access_log: AccessLog,
}

/// A running lane.
pub(super) struct Lane {
    arrivals: mpsc::Sender<Arrival>,
    stop: oneshot::Sender<Instant>,
    ended: oneshot::Receiver<()>,
}

impl Lane {
    /// Starts the thread.
    pub fn start(setup: Setup) -> Result<Self, StartError> {
        let (arrivals, arriving) = mpsc::channel(ARRIVALS);
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let (appender, acks) = Appender::new(Arc::clone(&setup.log));
        let (feed, relay) = setup.feed.lane();
        let rooms = Rooms { commands: setup.commands.on(appender), feed };
        let access_log = setup.access_log;
        let transport =
            Transport::build(setup.options, rooms, setup.health, setup.calls, access_log.clone())
                .map_err(|error| StartError::Reflection(error.to_string()))?;
        thread::Builder::new()
            .name(format!("lane-{}", setup.number))
            .spawn(move || {
                runtime.block_on(async {
                    let tasks = Tasks::new();
                    tasks.spawn("acknowledgements", Death::Fatal, acks.run());
                    tasks.spawn("feed relay", Death::Fatal, relay.run());
                    tasks.spawn("access log", Death::Fatal, flush(access_log.clone()));
                    serve(&tasks, transport, arriving, stopped).await;
                    tasks.stop();
                    access_log.flush();
                });
                // Whatever is left on the runtime, the deadline has given up.
                runtime.shutdown_background();
                // The server no longer waits when it is being dropped itself.
                let _ = end.send(());
            })
            .map_err(StartError::Thread)?;
        Ok(Self { arrivals, stop, ended })
    }

    /// Hands over a connection; waits while the lane is behind with taking them.
    pub async fn send(&self, arrival: Arrival) {
        // Fails only when the lane has ended, and the connection is closed with it.
        let _ = self.arrivals.send(arrival).await;
    }

    /// Lets calls in flight finish until `deadline`, and ends the thread.
    pub async fn stop(self, deadline: Instant) {
        let _ = self.stop.send(deadline);
        let _ = self.ended.await;
    }
}

async fn flush(log: AccessLog) {
    let mut ticks = tokio::time::interval(ACCESS_FLUSH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        log.flush();
    }
}

/// Takes connections until told to stop, then lets them finish.
async fn serve(
    tasks: &Tasks,
    transport: Transport,
    mut arriving: mpsc::Receiver<Arrival>,
    stopped: oneshot::Receiver<Instant>,
) {
    let graceful = GracefulShutdown::new();
    let http = http();
    let mut stopped = std::pin::pin!(stopped);
    let deadline = loop {
        tokio::select! {
            deadline = &mut stopped => break deadline,
            Some(arrival) = arriving.recv() => {
                let connection =
                    connection(arrival, transport.clone(), http.clone(), graceful.watcher());
                tasks.spawn("connection", Death::Expected, connection);
            }
        }
    };
    // Connections that have not been taken yet are closed with the channel.
    drop(arriving);
    if let Ok(deadline) = deadline
        && timeout_at(deadline, graceful.shutdown()).await.is_err()
    {
        tracing::warn!("calls were still in flight at the deadline and are cut off");
    }
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(FIRST_BYTE_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    http
}

async fn connection(
    arrival: Arrival,
    transport: Transport,
    http: auto::Builder<TokioExecutor>,
    watcher: Watcher,
) {
    let Arrival { stream, peer, place } = arrival;
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    // Answers are small and each is awaited.
    let _ = stream.set_nodelay(true);
    if timeout(FIRST_BYTE_TIMEOUT, stream.peek(&mut [0])).await.is_err() {
        return;
    }
    let whom = Peer::new(peer);
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(whom.clone());
        let transport = transport.clone();
        async move {
            Ok::<_, Infallible>(match front::answer(&request) {
                Some(answer) => answer,
                None => transport.serve(request).await,
            })
        }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%peer, %error, "a connection ended with an error");
    }
    drop(place);
}
