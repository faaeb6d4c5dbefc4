//! The checks that use a server as any client does.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::report::{self, Finding};
use super::settings;
use crate::client::resume::{ClientStream, Source as _};
use crate::client::{Client, ClientError, Code, ConnectOptions, reason};
use crate::clock::{Clock, Timestamp};
use crate::event_log::LogId;
use crate::proto::stream_events_request::Start;
use crate::proto::stream_events_response::Response;
use crate::proto::{
    DeliveredEvent, EventFilter, EventReceipt, StartPosition, StartSessionRequest,
    StreamEventsRequest,
};

/// Who starts the session that is written.
pub const PLAYER: &str = "herald-doctor";

/// How long one answer may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a server that is starting is asked whether it serves.
const SERVING_INTERVAL: Duration = Duration::from_millis(20);

/// A log whose clock is further from this machine's gives events times that surprise people.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(1);

/// A server, and until when it may be asked.
pub struct Calls {
    client: Client,
    deadline: Instant,
}

impl Calls {
    /// Connects.
    pub async fn connect(url: &str, deadline: Instant) -> Result<Self, Finding> {
        if url.contains('@') {
            let advice = "herald sends none; leave them out";
            return Err(Finding::fail("server", "--server holds a name or a password", [advice]));
        }
        let options = ConnectOptions {
            connect_timeout: CALL_TIMEOUT,
            call_timeout: CALL_TIMEOUT,
            lazy: false,
        };
        let client = Client::connect(url, options).await;
        let client = client.map_err(|error| failed("server", &error))?;
        Ok(Self { client, deadline })
    }

    /// Whether the server says that it does its work, at the latest after `patience`.
    pub async fn serving(&self, patience: Duration) -> Finding {
        const CHECK: &str = "serving";
        let begun = Instant::now();
        loop {
            let asked = async {
                let actions = self.client.is_serving("game.v1.GameService").await?;
                Ok((actions, self.client.is_serving("game.v1.EventFeedService").await?))
            };
            let serving = match self.in_time(CHECK, asked).await {
                Ok(serving) => serving,
                Err(finding) => return finding.took(begun.elapsed()),
            };
            let found = match serving {
                (true, true) => {
                    let found = "takes actions and streams events";
                    return Finding::ok(CHECK, found).took(begun.elapsed());
                }
                (false, true) => "takes no actions",
                (true, false) => "streams no events",
                (false, false) => "takes no actions and streams no events",
            };
            if begun.elapsed() >= patience || Instant::now() + SERVING_INTERVAL >= self.deadline {
                let advice = "the server's own lines say why; it goes on by itself once it can";
                return Finding::fail(CHECK, found, [advice]).took(begun.elapsed());
            }
            sleep(SERVING_INTERVAL).await;
        }
    }

    /// What can be bought and joined.
    pub async fn catalogue(&self) -> Finding {
        let begun = Instant::now();
        match self.in_time("catalogue", self.client.catalog()).await {
            Ok(catalogue) => settings::catalogue(&catalogue),
            Err(finding) => finding,
        }
        .took(begun.elapsed())
    }

    /// The bounds of the feed, and whether it is that of the topic that was looked at.
    pub async fn feed(&self, epoch: Option<LogId>) -> Finding {
        const CHECK: &str = "feed";
        let begun = Instant::now();
        let feed = match self.in_time(CHECK, self.client.feed()).await {
            Ok(feed) => feed,
            Err(finding) => return finding.took(begun.elapsed()),
        };
        let took = begun.elapsed();
        let records =
            feed.partitions.iter().map(|at| at.end_offset.saturating_sub(at.start_offset));
        let found = format!(
            "epoch {}, {}, {}",
            feed.feed_epoch,
            report::count(feed.partitions.len() as u64, "partition"),
            report::count(records.sum::<i64>().unsigned_abs(), "record"),
        );
        match epoch {
            Some(epoch) if epoch.to_string() != feed.feed_epoch => {
                let advice = format!(
                    "that is not the topic looked at above, whose epoch is {epoch}; check --topic \
                     and --kafka-brokers, here and on the server"
                );
                Finding::fail(CHECK, found, [advice])
            }
            _ => Finding::ok(CHECK, found),
        }
        .took(took)
    }

    /// Writes an event, reads it back, and compares clocks: what came of each.
    pub async fn round_trip(&self) -> [Finding; 3] {
        // Opened before, so that the event comes as to any live subscriber.
        let stream = self.in_time("read", self.open()).await;
        let (begun, sent) = (Instant::now(), Clock::System.now());
        let request = StartSessionRequest {
            request_id: Uuid::new_v4().to_string(),
            player_id: PLAYER.to_owned(),
            ..Default::default()
        };
        let answered = self.in_time("write", self.client.start_session(request)).await;
        let received = Clock::System.now();
        let took = begun.elapsed();
        let receipt = match answered {
            Ok(answer) => answer.receipt.unwrap_or_default(),
            Err(finding) => {
                return [
                    finding.took(took),
                    Finding::skipped("read", "write failed"),
                    Finding::skipped("log clock", "write failed"),
                ];
            }
        };
        let written = format!(
            "a session of player {PLAYER}, a real event: partition {} offset {}",
            receipt.partition, receipt.offset
        );
        let written = Finding::ok("write", written).took(took);
        let event = match stream {
            Ok(stream) => self.in_time("read", find(stream, &receipt)).await,
            Err(finding) => Err(finding),
        };
        match event {
            Ok(event) => {
                let read = Finding::ok("read", "came through the feed, counted from its sending");
                let append_time = event.append_time.map_or(sent, Timestamp::from);
                let clock = log_clock(append_time, sent, received);
                [written, read.took(begun.elapsed()), clock]
            }
            Err(finding) => [
                written,
                finding.took(begun.elapsed()),
                Finding::skipped("log clock", "read failed"),
            ],
        }
    }

    /// A live stream of what the doctor does, whose start is fixed.
    async fn open(&self) -> Result<ClientStream, ClientError> {
        let filter = EventFilter { player_ids: vec![PLAYER.to_owned()], ..Default::default() };
        let request = StreamEventsRequest {
            start: Some(Start::StartPosition(StartPosition::Latest.into())),
            filter: Some(filter),
            ..Default::default()
        };
        let mut stream = self.client.clone().open(request).await?;
        match stream.next().await {
            Some(Ok(_opened)) => Ok(stream),
            Some(Err(error)) => Err(error),
            None => Err(ended()),
        }
    }

    /// The answer, or what to say where there is none in time.
    async fn in_time<T>(
        &self,
        check: &'static str,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, Finding> {
        let deadline = self.deadline.min(Instant::now() + CALL_TIMEOUT);
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(check, &error)),
            Err(_) => Err(report::late(check)),
        }
    }
}

/// Waits for the event of a receipt.
async fn find(
    mut stream: ClientStream,
    receipt: &EventReceipt,
) -> Result<DeliveredEvent, ClientError> {
    while let Some(message) = stream.next().await {
        let Some(Response::Batch(batch)) = message?.response else { continue };
        let ours = |delivered: &DeliveredEvent| {
            (delivered.partition, delivered.offset) == (receipt.partition, receipt.offset)
        };
        if let Some(event) = batch.events.into_iter().find(ours) {
            return Ok(event);
        }
    }
    Err(ended())
}

fn ended() -> ClientError {
    ClientError::local(Code::Unavailable, "the server ended the stream")
}

/// How far the log's clock is from this machine's: its time of the event, and when that was
/// sent and its receipt received here.
fn log_clock(append_time: Timestamp, sent: Timestamp, received: Timestamp) -> Finding {
    const CHECK: &str = "log clock";
    let (at, sent, received) = (append_time.as_millis(), sent.as_millis(), received.as_millis());
    let (away, side) = if at < sent {
        (sent.abs_diff(at), "behind")
    } else {
        (at.saturating_sub(received).max(0).unsigned_abs(), "ahead of")
    };
    if away == 0 {
        return Finding::ok(CHECK, "agrees with this machine's");
    }
    let away = Duration::from_millis(away);
    let found = format!("{} {side} this machine's", report::latency(away));
    if away > MAX_CLOCK_DIFFERENCE {
        let advice = "keep the clocks right with NTP, of the brokers or the server's machine and \
                      of this one";
        Finding::warn(CHECK, found, [advice])
    } else {
        Finding::ok(CHECK, found)
    }
}

/// A call that failed, and what can be done about that.
fn failed(check: &'static str, error: &ClientError) -> Finding {
    if error.reason().is_none() && matches!(error.code(), Code::Cancelled | Code::DeadlineExceeded)
    {
        return report::late(check);
    }
    let advice = match error.reason() {
        Some(reason::LOG_UNAVAILABLE | reason::WRITE_OUTCOME_UNKNOWN) => {
            "look at the log: the brokers, or the disk of the embedded log"
        }
        Some(reason::OVERLOADED | reason::SUBSCRIBER_LIMIT) => {
            "the server has too much to do; see its limits, or use more servers"
        }
        Some(_) => "see the server's own lines",
        None if error.is_callers_own() => "check --server",
        None if error.code() == Code::Unimplemented => {
            "is it a Herald server? its admin address is another one"
        }
        None if error.is_unavailable() => "start the server, or check --server",
        None => "is it a Herald server, and does it run? see its own lines",
    };
    Finding::fail(check, error.to_string(), [advice])
}

#[cfg(test)]
mod tests {
    use super::super::report::Outcome;
    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_time_between_sending_and_receiving() {
        for (append_time, outcome, found) in [
            (10_000, Outcome::Ok, "agrees with this machine's"),
            (10_050, Outcome::Ok, "agrees with this machine's"),
            (9_993, Outcome::Ok, "7.0 ms behind this machine's"),
            (11_050, Outcome::Ok, "1.0 s ahead of this machine's"),
            (12_050, Outcome::Warn, "2.0 s ahead of this machine's"),
            (0, Outcome::Warn, "10.0 s behind this machine's"),
        ] {
            let at = Timestamp::from_millis;
            let finding = log_clock(at(append_time), at(10_000), at(10_050));
            assert_eq!((finding.outcome, finding.found.as_str()), (outcome, found));
        }
    }

    #[tokio::test]
    async fn a_password_in_the_address_is_not_repeated() {
        let refused = Calls::connect("http://me:hunter2@127.0.0.1:1", Instant::now()).await;
        let finding = refused.err().unwrap();
        assert!(!format!("{finding:?}").contains("hunter2"), "{finding:?}");
    }
}
