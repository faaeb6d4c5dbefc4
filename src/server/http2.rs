//! One HTTP/2 connection, with its calls, as one future.
//!
//! The protocol is the `h2` crate's. What hyper adds to it has a task for each call, and
//! asks a stream several times about each message that it sends; for one event to ten
//! thousand subscribers that is most of the work. Here the calls of a connection are
//! children of its one future: whoever was woken writes what it has, and then the
//! connection sends everything at once.

use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::server::SendResponse;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::lane::MAX_HEADER_BYTES;
use crate::grpc::ServedBody;

/// Calls and streams open at once on one connection; a client that wants more opens
/// another connection or waits. Bounds what one connection can make the server hold: so
/// many requests that have not come whole, so many responses that are not read.
const MAX_CONCURRENT_STREAMS: u32 = 512;

/// The most bytes of one response that `h2` takes while its reader is slow.
const MAX_SEND_BUFFER_BYTES: usize = 32 * 1024;

/// How many bytes of a response are handed over before a question whether its reader
/// takes them: each question costs as much as a small message. So one response holds at
/// most the buffer, this, and one message.
const UNASKED_BYTES: usize = 16 * 1024;

/// How much a client may send before the server has taken it: on one stream as much as
/// the largest default message, on a connection sixteen times that.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// When a peer is asked for a sign of life, and how long it has to give one: a half-open
/// connection is gone after 40 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves a connection until its peer leaves it or, once `stopping`, until the calls on it
/// have ended.
///
/// # Errors
///
/// What broke the connection, also when the peer gave no sign of life.
pub(super) async fn serve<T, S, F>(
    io: T,
    service: S,
    stopping: CancellationToken,
) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Fn(http::Request<RequestBody>) -> F,
    F: Future<Output = http::Response<ServedBody>>,
{
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buffer_size(MAX_SEND_BUFFER_BYTES)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(io)
        .await?;
    let mut keepalive = connection.ping_pong().map(Keepalive::new);
    let mut stopped = pin!(stopping.cancelled().fuse());
    // The stream of a call that panics is reset; the others go on. A response that is not
    // sent at once needs far less memory than what made it, and has it for hours, perhaps.
    let mut calls = FuturesUnordered::new();
    let mut responses = FuturesUnordered::new();
    std::future::poll_fn(|cx| {
        if stopped.as_mut().poll(cx).is_ready() {
            connection.graceful_shutdown();
        }
        if keepalive.as_mut().is_some_and(|keepalive| keepalive.poll_dead(cx).is_ready()) {
            return Poll::Ready(Err(h2::Error::from(Reason::NO_ERROR)));
        }
        loop {
            // Before the connection, which then sends all that they have written.
            while let Poll::Ready(Some(answered)) = calls.poll_next_unpin(cx) {
                if let Ok(Some(response)) = answered {
                    responses.push(AssertUnwindSafe::<Response>(response).catch_unwind());
                }
            }
            while let Poll::Ready(Some(_)) = responses.poll_next_unpin(cx) {}
            let mut arrived = false;
            while let Poll::Ready(accepted) = connection.poll_accept(cx) {
                let Some(accepted) = accepted else { return Poll::Ready(Ok(())) };
                let (request, respond) = accepted?;
                let head_only = request.method() == http::Method::HEAD;
                let request = request.map(|stream| RequestBody { stream });
                let call = Call { serving: service(request), respond, head_only };
                calls.push(AssertUnwindSafe(call).catch_unwind());
                arrived = true;
            }
            if !arrived {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Asks a peer for signs of life.
struct Keepalive {
    ping: PingPong,
    timer: Pin<Box<Sleep>>,
    /// Whether an answer is due when the timer rings.
    asked: bool,
}

impl Keepalive {
    fn new(ping: PingPong) -> Self {
        Self { ping, timer: Box::pin(sleep(KEEPALIVE_INTERVAL)), asked: false }
    }

    /// Ready when the peer has not answered in time.
    fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.asked && self.ping.poll_pong(cx).is_ready() {
                self.wait(false, KEEPALIVE_INTERVAL);
            }
            ready!(self.timer.as_mut().poll(cx));
            // A ping that cannot be sent is as good as one that is not answered.
            if self.asked || self.ping.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.wait(true, KEEPALIVE_TIMEOUT);
        }
    }

    fn wait(&mut self, asked: bool, how_long: Duration) {
        self.asked = asked;
        self.timer.as_mut().reset(Instant::now() + how_long);
    }
}

/// The body of a request.
pub(super) struct RequestBody {
    stream: RecvStream,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let stream = &mut self.stream;
        match ready!(stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // It is in memory either way; whoever reads a body bounds what is kept.
                stream.flow_control().release_capacity(data.len())?;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                let trailers = ready!(stream.poll_trailers(cx)).transpose();
                Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

pin_project! {
    /// A request on its way to its response; ends with the response, or with none when that
    /// has been sent whole or nobody waits for it.
    struct Call<F> {
        #[pin]
        serving: F,
        respond: SendResponse<Bytes>,
        head_only: bool,
    }
}

impl<F: Future<Output = http::Response<ServedBody>>> Future for Call<F> {
    type Output = Option<Response>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Response>> {
        let this = self.project();
        let Poll::Ready(response) = this.serving.poll(cx) else {
            // Ready when the peer has given the call up.
            return this.respond.poll_reset(cx).map(|_| None);
        };
        let mut response = Response::begin(this.respond, response, *this.head_only);
        // Most have all they will ever have. Who has not, is polled anew as a response.
        if response.as_mut().is_some_and(|response| response.hand_over(cx).is_ready()) {
            response = None;
        }
        Poll::Ready(response)
    }
}

/// The body of a response on its way.
struct Response {
    body: ServedBody,
    stream: SendStream<Bytes>,
    /// Bytes given to `stream` since it was last known to take more.
    given: usize,
}

impl Response {
    /// Sends the head; none when that was all, or nobody waits for it.
    fn begin(
        respond: &mut SendResponse<Bytes>,
        response: http::Response<ServedBody>,
        head_only: bool,
    ) -> Option<Self> {
        let (mut head, body) = response.into_parts();
        if let Some(length) = body.size_hint().exact() {
            head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
        }
        let is_whole = head_only || body.is_end_stream();
        let stream = respond.send_response(http::Response::from_parts(head, ()), is_whole).ok()?;
        (!is_whole).then_some(Self { body, stream, given: 0 })
    }

    /// Hands over what there is; ready when that was all, or nobody waits for more.
    fn hand_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.given < UNASKED_BYTES || ready!(self.poll_takes_more(cx)) {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                // Ready when the peer has given the response up.
                return self.stream.poll_reset(cx).map(drop);
            };
            let (data, is_last) = match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => (data, self.body.is_end_stream()),
                Some(Ok(Err(frame))) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let _ = self.stream.send_trailers(trailers);
                    break;
                }
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    break;
                }
                None => (Bytes::new(), true),
            };
            self.given += data.len();
            if self.stream.send_data(data, is_last).is_err() || is_last {
                break;
            }
        }
        Poll::Ready(())
    }

    /// Whether the stream takes more, when that is known; false when nobody waits for it.
    fn poll_takes_more(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        // There is room for one byte more once the peer's windows and the buffer have room
        // for all before it. The room is given back, as other streams may need it.
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            if !matches!(ready!(self.stream.poll_capacity(cx)), Some(Ok(_))) {
                return Poll::Ready(false);
            }
        }
        self.stream.reserve_capacity(0);
        self.given = 0;
        Poll::Ready(true)
    }
}

impl Future for Response {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.hand_over(cx)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "each end of a connection is a task of its own")]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use futures_util::future::BoxFuture;
    use http_body_util::{Full, StreamBody};
    use tokio::io::DuplexStream;
    use tokio::sync::{mpsc, oneshot};
    use tokio::time::timeout;
    use tonic::body::Body;

    use super::*;

    type Answer = BoxFuture<'static, http::Response<ServedBody>>;
    type Client = h2::client::SendRequest<Bytes>;

    /// As much as lies between the two ends of a socket.
    const SOCKET_BYTES: usize = 4 * 1024;

    fn served(body: Body) -> http::Response<ServedBody> {
        http::Response::new(ServedBody::unwatched(body.into()))
    }

    struct Running {
        client: Client,
        /// The client's end; nothing comes or goes while it is not polled.
        wire: tokio::task::JoinHandle<Result<(), h2::Error>>,
        server: tokio::task::JoinHandle<Result<(), h2::Error>>,
        stopping: CancellationToken,
    }

    /// A client of a server that answers requests with these, in turn.
    async fn run<A>(answers: A) -> Running
    where
        A: IntoIterator<Item = Answer>,
    {
        let (near, far) = tokio::io::duplex(SOCKET_BYTES);
        let stopping = CancellationToken::new();
        let server = tokio::spawn(serve_answers(far, answers, stopping.clone()));
        // With room for one stream beside another that is not read, as gRPC's clients have.
        let (client, connection) = h2::client::Builder::new()
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(near)
            .await
            .unwrap();
        Running { client, wire: tokio::spawn(connection), server, stopping }
    }

    fn serve_answers<A>(
        io: DuplexStream,
        answers: A,
        stopping: CancellationToken,
    ) -> impl Future<Output = Result<(), h2::Error>> + Send + 'static
    where
        A: IntoIterator<Item = Answer>,
    {
        let answers = Mutex::new(answers.into_iter().collect::<VecDeque<_>>());
        let service = move |_| answers.lock().unwrap().pop_front().expect("one answer a request");
        serve(io, service, stopping)
    }

    fn ask(client: &mut Client, method: http::Method) -> h2::client::ResponseFuture {
        let mut request = http::Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = "http://herald/".parse().unwrap();
        client.send_request(request, true).unwrap().0
    }

    async fn read(answer: h2::client::ResponseFuture) -> Result<Vec<u8>, h2::Error> {
        let mut body = answer.await?.into_body();
        let mut read = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            read.extend_from_slice(&data);
        }
        Ok(read)
    }

    /// A body that says what it is sent, and counts what it was asked for.
    fn counted(bytes: usize, messages: usize, asked: &Arc<AtomicUsize>) -> Answer {
        let asked = Arc::clone(asked);
        let frames = futures_util::stream::iter(0..messages).map(move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; bytes])))
        });
        Box::pin(async move { served(Body::new(StreamBody::new(frames))) })
    }

    fn never() -> Answer {
        Box::pin(std::future::pending())
    }

    fn broken() -> Body {
        panic!("on purpose")
    }

    /// Tells when it is dropped.
    struct Held(Option<mpsc::Sender<()>>);

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = self.0.take().map(|told| told.try_send(()));
        }
    }

    #[tokio::test]
    async fn a_reader_that_stops_reading_bounds_what_is_written_for_it_and_gets_all_of_it_later() {
        const MESSAGES: usize = 10_000;
        const MESSAGE_BYTES: usize = 1_000;
        let (asked, other) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut running =
            run([counted(MESSAGE_BYTES, MESSAGES, &asked), counted(10, 3, &other)]).await;
        let slow = ask(&mut running.client, http::Method::GET);
        let mut slow = slow.await.unwrap().into_body();
        // Another stream of the connection is not held up.
        let quick = ask(&mut running.client, http::Method::GET);
        assert_eq!(read(quick).await.unwrap().len(), 30);
        // The window of a stream that HTTP/2 begins with, and the server's own bounds.
        let bound = 65_535 + MAX_SEND_BUFFER_BYTES + UNASKED_BYTES + MESSAGE_BYTES;
        let written = asked.load(Ordering::Relaxed) * MESSAGE_BYTES;
        assert!(written <= bound, "{written} bytes were written for a reader that reads none");

        let mut read = 0;
        while let Some(data) = slow.data().await {
            let data = data.unwrap();
            slow.flow_control().release_capacity(data.len()).unwrap();
            read += data.len();
        }
        assert_eq!(read, MESSAGES * MESSAGE_BYTES);
    }

    #[tokio::test]
    async fn a_response_that_pauses_leaves_the_connections_window_to_others() {
        const WINDOW: usize = 65_535;
        let first = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(
            vec![0; UNASKED_BYTES],
        )))]);
        let pauses = first.chain(futures_util::stream::pending());
        let pauses: Answer = Box::pin(async { served(Body::new(StreamBody::new(pauses))) });
        let rest = WINDOW - UNASKED_BYTES;
        let asked = Arc::default();
        let (near, far) = tokio::io::duplex(SOCKET_BYTES);
        let answers = [pauses, counted(rest, 1, &asked)];
        let _server = tokio::spawn(serve_answers(far, answers, CancellationToken::new()));
        let (mut client, connection) = h2::client::handshake(near).await.unwrap();
        let _wire = tokio::spawn(connection);
        // Neither gives any of the window back.
        for bytes in [UNASKED_BYTES, rest] {
            let mut body = ask(&mut client, http::Method::GET).await.unwrap().into_body();
            let mut read = 0;
            while read < bytes {
                let data = timeout(Duration::from_secs(60), body.data()).await;
                read += data.expect("the window has room").unwrap().unwrap().len();
            }
            std::mem::forget(body);
        }
    }

    #[tokio::test]
    async fn a_call_that_its_peer_gives_up_is_dropped_at_once() {
        let (tell, mut told) = mpsc::channel(2);
        let held = [Held(Some(tell.clone())), Held(Some(tell))];
        let [waiting, streaming] = held;
        let answers: [Answer; 2] = [
            Box::pin(async move {
                let _held = waiting;
                std::future::pending().await
            }),
            Box::pin(async move {
                let frames = futures_util::stream::pending::<Result<_, Infallible>>();
                let frames = frames.inspect(move |_: &Result<Frame<Bytes>, _>| {
                    let _ = &streaming;
                });
                served(Body::new(StreamBody::new(frames)))
            }),
        ];
        let mut running = run(answers).await;
        let in_time = Duration::from_secs(60);
        drop(ask(&mut running.client, http::Method::POST));
        timeout(in_time, told.recv()).await.expect("it is dropped").unwrap();
        let streaming = ask(&mut running.client, http::Method::POST).await.unwrap();
        drop(streaming);
        timeout(in_time, told.recv()).await.expect("it is dropped").unwrap();
    }

    #[tokio::test]
    async fn a_call_that_panics_ends_and_the_others_go_on() {
        let mut running = run([
            Box::pin(async { served(broken()) }) as Answer,
            Box::pin(async { served(Body::new(Full::from("fine"))) }),
        ])
        .await;
        let broken = ask(&mut running.client, http::Method::POST);
        assert!(broken.await.unwrap_err().is_reset());
        let fine = ask(&mut running.client, http::Method::POST);
        assert_eq!(read(fine).await.unwrap(), b"fine");
    }

    #[tokio::test]
    async fn a_body_that_fails_resets_its_stream() {
        let frames = futures_util::stream::iter([
            Ok(Frame::data(Bytes::from_static(b"part"))),
            Err(std::io::Error::other("broken")),
        ]);
        let answer: Answer = Box::pin(async { served(Body::new(StreamBody::new(frames))) });
        let mut running = run([answer]).await;
        let answer = ask(&mut running.client, http::Method::POST);
        assert_eq!(read(answer).await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    }

    #[tokio::test]
    async fn head_is_answered_without_a_body_and_with_its_length() {
        let answer = || Box::pin(async { served(Body::new(Full::from("page"))) }) as Answer;
        let mut running = run([answer(), answer()]).await;
        for (method, bytes) in [(http::Method::HEAD, &b""[..]), (http::Method::GET, b"page")] {
            let response = ask(&mut running.client, method).await.unwrap();
            assert_eq!(response.headers()[CONTENT_LENGTH], "4");
            let mut body = response.into_body();
            let data = body.data().await.transpose().unwrap().unwrap_or_default();
            assert_eq!(data, bytes);
        }
    }

    #[tokio::test]
    async fn stopping_lets_calls_finish_takes_no_more_and_ends() {
        let (finish, finishing) = oneshot::channel::<()>();
        let (arrive, arrived) = oneshot::channel();
        let answer: Answer = Box::pin(async move {
            arrive.send(()).unwrap();
            finishing.await.unwrap();
            served(Body::new(Full::from("last")))
        });
        let mut running = run([answer]).await;
        let last = ask(&mut running.client, http::Method::POST);
        arrived.await.unwrap();
        running.stopping.cancel();
        let refused = async {
            while let Ok(client) = running.client.clone().ready().await {
                running.client = client;
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), refused).await.expect("no more calls are taken");
        finish.send(()).unwrap();
        assert_eq!(read(last).await.unwrap(), b"last");
        running.server.await.unwrap().unwrap();
        running.wire.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_is_kept_and_one_that_does_not_is_given_up() {
        let mut running = run([never()]).await;
        let _waiting = ask(&mut running.client, http::Method::POST);
        tokio::time::sleep(20 * (KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT)).await;
        assert!(!running.server.is_finished());

        // Nobody polls the client's end any longer, so that it stays open and silent.
        let (near, far) = tokio::io::duplex(SOCKET_BYTES);
        let server = tokio::spawn(serve_answers(far, [never()], CancellationToken::new()));
        let (mut client, mut connection) = h2::client::handshake(near).await.unwrap();
        let _waiting = ask(&mut client, http::Method::POST);
        let begun = Instant::now();
        let _ = futures_util::poll!(&mut connection);
        assert!(server.await.unwrap().is_err());
        assert!(begun.elapsed() <= KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT);
    }
}
