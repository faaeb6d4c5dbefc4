//! A lane: one thread with a single-threaded runtime that owns connections.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::header::ORIGIN;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use super::calls::{self, InProcess};
use super::{Place, StartError, front, http2};
use crate::commands::CommandsBuilder;
use crate::domain::AddressPolicy;
use crate::event_log::{Appender, EventLog};
use crate::feed::Feed;
use crate::grpc::{self, Health, Peer, Rooms, ServedBody, Transport};
use crate::http::{Answer, Http, PagePolicy, Schema, open_to};
use crate::players::Players;
use crate::proto;
use crate::tasks::{Death, Tasks};
use crate::telemetry::{ACCESS_FLUSH_INTERVAL, AccessLog};

/// Connections that wait for a lane to take them.
const ARRIVALS: usize = 64;

/// The most bytes of the headers of one request; the answer to more is the status 431,
/// or, far beyond it, the end of the connection.
pub(super) const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// The same for HTTP/1.1, where the buffer holds the beginning of the body too.
const HTTP1_BUFFER_BYTES: usize = 2 * MAX_HEADER_BYTES as usize;

/// How long a new connection may take to show what it speaks, and an HTTP/1.1 request the
/// rest of its headers.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// What an HTTP/2 connection begins with. Source: RFC 9113, section 3.4.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The pause before a look for more of a preface that has begun. A client sends it in one
/// piece, so that hardly anybody ever waits for this.
const PREFACE_PAUSE: Duration = Duration::from_millis(50);

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
    pub players: Players,
    pub commands: CommandsBuilder,
    pub health: Health,
    pub options: Arc<grpc::Options>,
    pub pages: Arc<PagePolicy>,
    pub calls: Arc<grpc::Metrics>,
    pub access_log: AccessLog,
    /// The lane's own; their deaths are reported to the server.
    pub tasks: Tasks,
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
        let (commands, settler) = setup.commands.on(appender);
        let rooms = Rooms { commands, players: setup.players, feed };
        let (access_log, tasks) = (setup.access_log, setup.tasks);
        let options = setup.options;
        let addresses = options.addresses;
        let max_message_bytes = options.max_message_bytes;
        let transport =
            Transport::build(options, rooms, setup.health, setup.calls, access_log.clone())
                .map_err(|error| StartError::Reflection(error.to_string()))?;
        let door = Door::build(transport, setup.pages, max_message_bytes)?;
        thread::Builder::new()
            .name(format!("lane-{}", setup.number))
            .spawn(move || {
                runtime.block_on(async {
                    tasks.spawn("acknowledgements", Death::Fatal, acks.run());
                    tasks.spawn("settler", Death::Fatal, settler.run());
                    tasks.spawn("feed relay", Death::Fatal, relay.run());
                    tasks.spawn("access log", Death::Fatal, flush(access_log.clone()));
                    serve(&tasks, door, addresses, arriving, stopped).await;
                    tasks.stop();
                });
                // Whatever is left on the runtime, the deadline has given up.
                runtime.shutdown_background();
                access_log.flush();
                // The server no longer waits when it is being dropped itself.
                let _ = end.send(());
            })
            .map_err(StartError::Thread)?;
        Ok(Self { arrivals, stop, ended })
    }

    /// Hands over a connection, or gives it back when the lane is behind with taking them.
    pub fn try_send(&self, arrival: Arrival) -> Option<Arrival> {
        match self.arrivals.try_send(arrival) {
            Err(mpsc::error::TrySendError::Full(arrival)) => Some(arrival),
            // When the lane has ended, the connection is closed with it.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
        }
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
    door: Door,
    addresses: AddressPolicy,
    mut arriving: mpsc::Receiver<Arrival>,
    stopped: oneshot::Receiver<Instant>,
) {
    let stopping = CancellationToken::new();
    let connections = TaskTracker::new();
    let mut stopped = std::pin::pin!(stopped);
    let deadline = loop {
        tokio::select! {
            deadline = &mut stopped => break deadline,
            Some(arrival) = arriving.recv() => {
                let peer = Peer::new(arrival.peer, addresses);
                let connection = connection(arrival, peer, door.clone(), stopping.clone());
                let connection = connections.track_future(connection);
                tasks.spawn("connection", Death::Expected, connection);
            }
        }
    };
    // Connections that have not been taken yet are closed with the channel.
    drop(arriving);
    stopping.cancel();
    connections.close();
    if let Ok(deadline) = deadline
        && timeout_at(deadline, connections.wait()).await.is_err()
    {
        tracing::warn!("calls were still in flight at the deadline and are cut off");
    }
}

/// Serves an HTTP/1.1 connection until its peer leaves it or, once `stopping`, until the
/// call on it has ended.
async fn serve_http1<S>(
    stream: TcpStream,
    service: S,
    stopping: CancellationToken,
) -> hyper::Result<()>
where
    S: hyper::service::HttpService<Incoming, ResBody = ServedBody, Error = Infallible>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PREFACE_TIMEOUT)
        .max_buf_size(HTTP1_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    if let Some(ended) = stopping.run_until_cancelled(connection.as_mut()).await {
        return ended;
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// Waits until a connection has shown whether it speaks HTTP/2, and says so; one that never
/// does must not be kept for ever.
async fn speaks_http2(stream: &TcpStream) -> bool {
    let mut seen = [0; HTTP2_PREFACE.len()];
    loop {
        match stream.peek(&mut seen).await {
            Ok(0) | Err(_) => return false,
            Ok(count) if seen[..count] != HTTP2_PREFACE[..count] => return false,
            Ok(count) if count == HTTP2_PREFACE.len() => return true,
            // A further look would show the same at once.
            Ok(_) => sleep(PREFACE_PAUSE).await,
        }
    }
}

async fn connection(arrival: Arrival, whom: Peer, door: Door, stopping: CancellationToken) {
    let Arrival { stream, peer, place } = arrival;
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    // Answers are small and each is awaited.
    let _ = stream.set_nodelay(true);
    let Ok(is_http2) = timeout(PREFACE_TIMEOUT, speaks_http2(&stream)).await else { return };
    let error = if is_http2 {
        let service = move |request| door.serve(request, &whom);
        http2::serve(stream, service, stopping).await.err().map(|error| error.to_string())
    } else {
        let service = service_fn(move |request: http::Request<Incoming>| {
            door.serve(request.map(Body::new), &whom).map(Ok)
        });
        serve_http1(stream, service, stopping).await.err().map(|error| error.to_string())
    };
    if let Some(error) = error {
        tracing::debug!(%peer, %error, "a connection ended with an error");
    }
    drop(place);
}

/// What requests are served by. Cheap to clone.
#[derive(Clone)]
struct Door {
    transport: Transport,
    http: Http,
    pages: Arc<PagePolicy>,
}

impl Door {
    fn build(
        transport: Transport,
        pages: Arc<PagePolicy>,
        max_message_bytes: usize,
    ) -> Result<Self, StartError> {
        let others = [tonic_types::pb::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let schema = Schema::build(&others).map_err(StartError::Reflection)?;
        let http = Http::new(schema, InProcess(transport.clone()), max_message_bytes);
        Ok(Self { transport, http, pages })
    }

    /// Serves one request.
    fn serve<B>(
        &self,
        mut request: http::Request<B>,
        whom: &Peer,
    ) -> impl Future<Output = http::Response<ServedBody>> + Send + use<B>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        request.extensions_mut().insert(whom.clone());
        if grpc::is_plain_grpc(&request) {
            Either::Left(self.transport.serve(request, proto::Transport::Grpc))
        } else {
            Either::Right(self.clone().serve_web(request, whom.is_local()).boxed())
        }
    }

    /// Serves what a browser can send, if it comes from a page that may call.
    async fn serve_web<B>(
        self,
        request: http::Request<B>,
        is_local: bool,
    ) -> http::Response<ServedBody>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let plain =
            |answer: Answer| answer.map(|body| ServedBody::unwatched(Body::new(body).into()));
        if let Some(answer) = self.pages.preflight(&request) {
            return plain(answer);
        }
        let is_grpc_web = front::is_grpc_web(&request);
        if let Err(status) = self.pages.admit(&request, is_local) {
            return if is_grpc_web {
                self.transport.refuse_web(&request, &calls::status_of_grpc(&status))
            } else {
                plain(self.http.refuse(request, status).await)
            };
        }
        let origin = request.headers().get(ORIGIN).cloned();
        let mut answer = if is_grpc_web {
            self.transport.serve_web(request).await
        } else if self.http.takes(&request) {
            plain(self.http.serve(request).await)
        } else {
            front::answer(&request)
        };
        open_to(origin, answer.headers_mut());
        answer
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(sent: &[u8]) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(sent).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn whoever_shows_what_it_speaks_is_let_in() {
        for sent in [&HTTP2_PREFACE[..], b"POST / HTTP/1.1\r\n", b"\x16\x03\x01", b"PRx"] {
            let (_client, server) = pair(sent).await;
            assert_eq!(speaks_http2(&server).await, sent == HTTP2_PREFACE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_preface_that_stays_unfinished_is_not_waited_for_for_ever() {
        for sent in [&b""[..], b"P", &HTTP2_PREFACE[..23]] {
            let (_client, server) = pair(sent).await;
            assert!(timeout(PREFACE_TIMEOUT, speaks_http2(&server)).await.is_err(), "{sent:?}");
        }
    }
}
