//! `herald tail`: the feed, one line an event.
//!
//! Events go to stdout; what happened to the stream (the end reached, gaps,
//! reconnects) and the cursor to go on from go to stderr.

use std::convert::Infallible;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::Exit;
use super::output::{Color, Output, StdoutError, reader_gone};
use super::remote::{Remote, duration};
use super::{json, words};
use crate::client::Client;
use crate::client::tail::{self, Cause, Item};
use crate::proto::stream_events_request::Start;
use crate::proto::stream_events_response::Response;
use crate::proto::{
    Closing, ClosingReason, DeliveredEvent, EventFilter, ExpiredCursorPolicy, GameEvent, Gap,
    GapReason, StartPosition, StreamEventsRequest,
};

const TIME: Style = Style::new().dimmed();
const PLACE: Style = AnsiColor::Blue.on_default();
const TYPE: Style = AnsiColor::Cyan.on_default();
const REFUSED: Style = AnsiColor::Red.on_default();
const PLAYER: Style = Style::new().bold();

/// Arguments of `herald tail`.
#[derive(Debug, Args)]
pub struct Tail {
    /// Where to start: earliest, latest, or a cursor.
    #[arg(long, value_name = "earliest|latest|CURSOR", default_value = "latest")]
    from: From,
    /// End once everything has come that the log held at the start.
    #[arg(long)]
    until_caught_up: bool,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    max_events: Option<i64>,
    /// Only events of this type, such as item_purchased; can be repeated.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only events of this player; can be repeated.
    #[arg(long = "player", value_name = "ID")]
    players: Vec<String>,
    /// Only events that name this guild; can be repeated.
    #[arg(long = "guild", value_name = "ID")]
    guilds: Vec<String>,
    /// Ask for the private origin of the events too (shown with --json).
    #[arg(long)]
    include_origin: bool,
    /// How often the server shows that it is there: 1s to 60s; 15s when absent.
    #[arg(long, value_name = "TIME", value_parser = heartbeat)]
    heartbeat: Option<Duration>,
    /// When to use colours.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: Color,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Clone, Debug, PartialEq)]
enum From {
    Earliest,
    Latest,
    Cursor(String),
}

impl FromStr for From {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "earliest" => Self::Earliest,
            "latest" => Self::Latest,
            cursor => Self::Cursor(cursor.to_owned()),
        })
    }
}

impl Tail {
    fn request(&self) -> StreamEventsRequest {
        let filter = EventFilter {
            event_types: self.types.clone(),
            player_ids: self.players.clone(),
            guild_ids: self.guilds.clone(),
        };
        StreamEventsRequest {
            start: Some(match &self.from {
                From::Earliest => Start::StartPosition(StartPosition::Earliest.into()),
                From::Latest => Start::StartPosition(StartPosition::Latest.into()),
                From::Cursor(cursor) => Start::AfterCursor(cursor.clone()),
            }),
            filter: (filter != EventFilter::default()).then_some(filter),
            heartbeat_interval: self.heartbeat.and_then(|interval| interval.try_into().ok()),
            max_events: self.max_events.unwrap_or(0),
            stop_when_caught_up: self.until_caught_up,
            expired_cursor_policy: ExpiredCursorPolicy::Fail.into(),
            include_origin: self.include_origin,
        }
    }

    /// Shows events until there are no more or a signal comes.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        output.color(self.color);
        let client = self.remote.connect().await?;
        let mut tail = tail::Tail::new(client, self.request());
        let result = self.show(&mut tail, output).await;
        // Told also after an error, so that nobody has to start over; but not when
        // the position is lost, nor when nobody reads the events, as it is not
        // known which of them were read.
        let useless = |error| matches!(Exit::of(error), Exit::Done | Exit::PositionLost);
        let useless = result.as_ref().is_err_and(useless);
        if let Some(cursor) = tail.cursor().filter(|_| !useless) {
            output.note(&format!("resume with: --from {}", words::printable(cursor)));
        }
        result
    }

    async fn show(
        &self,
        tail: &mut tail::Tail<Client>,
        output: &mut Output,
    ) -> anyhow::Result<Exit> {
        let mut interrupted = signal(SignalKind::interrupt()).context("cannot await signals")?;
        let mut terminated = signal(SignalKind::terminate()).context("cannot await signals")?;
        let mut reader_gone = pin!(reader_gone());
        loop {
            let item = tokio::select! {
                () = &mut reader_gone => return Err(StdoutError::reader_is_gone_now().into()),
                item = tail.next() => item,
                _ = interrupted.recv() => return Ok(Exit::Interrupted),
                _ = terminated.recv() => return Ok(Exit::Terminated),
            };
            match item {
                None => return Ok(Exit::Done),
                Some(Ok(Item::Message(response))) => self.message(response, output)?,
                Some(Ok(Item::Reconnecting { delay, cause })) => {
                    output.note(&reconnecting(delay, &cause));
                }
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    fn message(&self, response: Response, output: &mut Output) -> anyhow::Result<()> {
        match response {
            Response::Batch(batch) => {
                for event in &batch.events {
                    if self.remote.json {
                        output.line(json::canonical("DeliveredEvent", event)?)?;
                    } else {
                        let line = line(event, output);
                        output.line(line)?;
                    }
                }
                output.flush()?;
            }
            Response::CaughtUp(caught_up) => {
                for end in &caught_up.end_offsets {
                    output.note(&format!(
                        "caught up: partition {} at offset {}",
                        end.partition, end.offset
                    ));
                }
            }
            Response::FellBehind(_) => output.note("fell behind, reading on from the log"),
            Response::Gap(gap) => output.note(&gap_in_words(&gap)),
            Response::Closing(closing) => output.note(&closing_in_words(&closing)),
            Response::Opened(_) | Response::Heartbeat(_) => {}
        }
        Ok(())
    }
}

fn heartbeat(text: &str) -> anyhow::Result<Duration> {
    let interval = duration(text)?;
    let range = Duration::from_secs(1)..=Duration::from_secs(60);
    anyhow::ensure!(range.contains(&interval), "must be from 1s to 60s");
    Ok(interval)
}

fn line(delivered: &DeliveredEvent, output: &Output) -> String {
    let none = GameEvent::default();
    let event = delivered.event.as_ref().unwrap_or(&none);
    let refused = event.event_type == "request_rejected";
    format!(
        "{}  {}  {}  {}  {}",
        output.styled(TIME, words::time(delivered.append_time.as_ref())),
        output.styled(PLACE, format_args!("{}@{}", delivered.partition, delivered.offset)),
        output.styled(if refused { REFUSED } else { TYPE }, words::name(&event.event_type)),
        output.styled(PLAYER, words::name(&event.player_id)),
        words::payload(event),
    )
}

fn reconnecting(delay: Duration, cause: &Cause) -> String {
    let why = match cause {
        Cause::Failed(error) => words::printable(&error.to_string()).into_owned(),
        Cause::Silent(time) => format!("nothing came for {time:?}"),
        Cause::Closed => "the server ended the stream".to_owned(),
    };
    format!("{why}; reconnecting in {:.1} s", delay.as_secs_f64())
}

fn gap_in_words(gap: &Gap) -> String {
    let missed = match gap.missed_records {
        0 => "events".to_owned(),
        1 => "1 record".to_owned(),
        count => format!("{count} records"),
    };
    let why = match gap.reason() {
        GapReason::Retention => "removed by retention before they were read",
        GapReason::Undecodable => "not events of this service",
        GapReason::Skipped => "passed over to go on from the end",
        GapReason::Unspecified => "for a reason not given",
    };
    format!("gap: {missed} missing in partition {}, {why}", gap.partition)
}

fn closing_in_words(closing: &Closing) -> String {
    let why = match closing.reason() {
        ClosingReason::Shutdown => "the server is stopping",
        ClosingReason::MaxAge => "the stream has reached its greatest age",
        ClosingReason::Unspecified => "the server closes the stream",
    };
    let delay = closing.reconnect_delay.and_then(|delay| Duration::try_from(delay).ok());
    match delay.filter(|_| closing.resumable) {
        Some(delay) => format!("{why}; reconnecting in {:.1} s", delay.as_secs_f64()),
        None => why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::GuildJoined;
    use crate::proto::game_event::Payload;

    #[test]
    fn an_event_is_one_line() {
        let event = GameEvent {
            event_type: "guild_joined".to_owned(),
            player_id: "eve\n0@9 fake".to_owned(),
            payload: Some(Payload::GuildJoined(GuildJoined { guild_id: "mascots".to_owned() })),
            ..Default::default()
        };
        let delivered = DeliveredEvent {
            event: Some(event),
            partition: 3,
            offset: 42,
            append_time: Some(prost_types::Timestamp { seconds: 0, nanos: 9_000_000 }),
        };
        let mut output = Output::new();
        assert_eq!(
            line(&delivered, &output),
            r#"1970-01-01T00:00:00.009Z  3@42  guild_joined  "eve\u{a}0@9 fake"  joined mascots"#
        );
        output.color(Color::Always);
        assert!(line(&delivered, &output).contains("\u{1b}[1m\"eve"));
    }

    #[test]
    fn a_start_is_an_end_of_the_log_or_a_cursor() {
        for (text, from) in [
            ("earliest", From::Earliest),
            ("latest", From::Latest),
            ("AbC", From::Cursor("AbC".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(from));
        }
    }
}
