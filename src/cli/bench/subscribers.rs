//! The subscribers of a fan-out: streams over a few connections, read by one task each.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Uri};
use tokio::time::{Instant, sleep, timeout};

use super::deliveries::{Deliveries, Filter, Subscriber};
use super::load::lock;
use super::payload::Payload;
use super::stream::{self, Frames};
use super::wire::{self, Failure};
use crate::proto::{EventFilter, StreamEventsRequest};
use crate::tasks::{Death, Tasks};

/// Opening gives up when no stream has opened for so long: the server hangs, or takes no
/// more streams on a connection.
const OPEN_SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// How often the opening is looked at.
const OPEN_TICK: Duration = Duration::from_millis(5);

/// How many streams that are not read share a connection; fewer than servers allow.
const STALLED_PER_CONNECTION: usize = 100;

/// How long streams may take to end once their connections were cut.
const CUT_LIMIT: Duration = Duration::from_secs(5);

/// Open streams.
#[derive(Debug)]
pub struct Subscribers {
    deliveries: Arc<Mutex<Deliveries>>,
    head: Request<()>,
    connections: Tasks,
    readers: Tasks,
}

impl Subscribers {
    /// None yet, of the server.
    pub fn new(server: &Uri, deliveries: &Arc<Mutex<Deliveries>>) -> anyhow::Result<Self> {
        Ok(Self {
            deliveries: Arc::clone(deliveries),
            head: wire::head(server, stream::PATH)?,
            connections: Tasks::new(),
            readers: Tasks::new(),
        })
    }

    /// Opens `count` streams over so many connections, and returns when each has said that
    /// it has everything.
    pub async fn open(
        &self,
        server: &Uri,
        count: u64,
        connections: u64,
        filter: Filter,
        payload: &Payload,
    ) -> anyhow::Result<()> {
        let mut open = Vec::new();
        for _ in 0..connections.clamp(1, count.max(1)) {
            let window = wire::STREAM_WINDOW_BYTES;
            open.push(wire::connect(server, window, &self.connections).await?);
        }
        for (number, connection) in (0..count).zip(open.iter().cycle()) {
            let player_ids = match filter {
                Filter::None => None,
                Filter::Player => Some(vec![payload.player_id(number)]),
            };
            let request = StreamEventsRequest {
                filter: player_ids
                    .map(|player_ids| EventFilter { player_ids, ..Default::default() }),
                ..Default::default()
            };
            let reader = Reader {
                deliveries: Arc::clone(&self.deliveries),
                connection: connection.clone(),
                head: self.head.clone(),
                frame: stream::frame(&request),
            };
            let subscriber = Subscriber::new(number);
            self.readers.spawn("bench subscriber", Death::Expected, reader.run(subscriber));
        }
        self.all_caught_up(count).await
    }

    async fn all_caught_up(&self, count: u64) -> anyhow::Result<()> {
        let mut newest = (0, Instant::now());
        loop {
            {
                let deliveries = lock(&self.deliveries);
                if let Some(why) = &deliveries.first_failure {
                    bail!("not all streams can be opened: {why}");
                }
                if deliveries.caught_up != newest.0 {
                    newest = (deliveries.caught_up, Instant::now());
                }
            }
            if newest.0 >= count {
                return Ok(());
            }
            if newest.1.elapsed() > OPEN_SILENCE_LIMIT {
                bail!(
                    "{} of {count} streams are open, and no further one for \
                     {OPEN_SILENCE_LIMIT:?}; use more connections",
                    newest.0
                );
            }
            sleep(OPEN_TICK).await;
        }
    }

    /// Opens streams that let the server send nothing, on connections of their own, as what
    /// may be sent is agreed on for all streams of a connection. They want all events.
    pub async fn open_stalled(&self, server: &Uri, count: usize) -> anyhow::Result<()> {
        let frame = stream::frame(&StreamEventsRequest::default());
        let mut left = count;
        while left > 0 {
            let mut connection = wire::connect(server, 0, &self.connections).await?;
            let here = left.min(STALLED_PER_CONNECTION);
            for _ in 0..here {
                let opening = wire::open(&mut connection, self.head.clone(), frame.clone());
                let body = timeout(OPEN_SILENCE_LIMIT, opening)
                    .await
                    .context("a stream that is not read does not open")?;
                let body = body.map_err(|failure| anyhow::anyhow!("a stream fails: {failure}"))?;
                let stopping = self.connections.stopping();
                self.readers.spawn("bench stalled subscriber", Death::Expected, async move {
                    stopping.cancelled_owned().await;
                    drop(body);
                });
            }
            left -= here;
        }
        Ok(())
    }

    /// Ends all streams.
    pub async fn close(&self) -> anyhow::Result<()> {
        lock(&self.deliveries).closing = true;
        self.connections.stop();
        self.connections.ended().await;
        self.readers.stop();
        timeout(CUT_LIMIT, self.readers.ended()).await.context("streams that do not end")
    }
}

/// What reads one stream.
struct Reader {
    deliveries: Arc<Mutex<Deliveries>>,
    connection: SendRequest<Bytes>,
    head: Request<()>,
    frame: Bytes,
}

impl Reader {
    async fn run(mut self, mut subscriber: Subscriber) {
        let ended = self.read(&mut subscriber).await;
        lock(&self.deliveries).stream_ended(|| match ended {
            Ok(()) => "the server has ended a stream".to_owned(),
            Err(failure) => failure.to_string(),
        });
    }

    async fn read(&mut self, subscriber: &mut Subscriber) -> Result<(), Failure> {
        let frame = std::mem::take(&mut self.frame);
        let mut body = wire::open(&mut self.connection, self.head.clone(), frame).await?;
        let mut frames = Frames::default();
        while let Some(chunk) = wire::next_chunk(&mut body).await? {
            let mut deliveries = lock(&self.deliveries);
            frames
                .take(&chunk, |message| deliveries.take(message, subscriber))
                .map_err(|malformed| Failure::Broken(malformed.to_string()))?;
        }
        Ok(())
    }
}
