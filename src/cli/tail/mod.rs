//! `herald tail`: the feed, one line an event.
//!
//! Events go to stdout; what happened to the stream (the end reached, gaps,
//! reconnects) and the cursor to go on from go to stderr.

mod from;
mod place;
mod sorted;

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};

pub use self::from::{FORMS, From};
use self::place::Place;
use self::sorted::Sorted;
use super::exit::Exit;
use super::output::{Color, Output, StdoutError, reader_gone};
use super::remote::{Remote, duration};
use super::{json, words};
use crate::client::tail::{self, Cause, News};
use crate::client::{ClientError, CursorFile, reason};
use crate::clock::Clock;
use crate::proto::stream_events_request::Start;
use crate::proto::{
    CaughtUp, Closing, ClosingReason, DeliveredEvent, EventFilter, ExpiredCursorPolicy, GameEvent,
    Gap, GapReason, StreamEventsRequest,
};

const TIME: Style = Style::new().dimmed();
const PLACE: Style = AnsiColor::Blue.on_default();
const TYPE: Style = AnsiColor::Cyan.on_default();
const REFUSED: Style = AnsiColor::Red.on_default();
const PLAYER: Style = Style::new().bold();

/// Arguments of `herald tail`.
#[derive(Debug, Args)]
pub struct Tail {
    /// Where to start: earliest, latest, behind a cursor, at a time such as
    /// 2026-11-21T10:00:00Z, or so long ago, such as 15m, 2h or 7d (by this machine's clock).
    #[arg(long, value_name = "earliest|latest|CURSOR|TIME", default_value = "latest")]
    from: From,
    /// What to do when retention has removed events behind the cursor, at the start or
    /// after a reconnect: give up, or tell the gap and go on from the oldest event there
    /// is, or from the end.
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    if_expired: IfExpired,
    /// Start behind the cursor in this file, at --from when there is no file yet, and keep
    /// in it the cursor behind what was written to stdout: about once a second, and at the
    /// end. A crash may repeat events and loses none. What goes into a pipe counts as
    /// written; when the reader of the pipe goes away the file stays as it was.
    #[arg(long, value_name = "PATH")]
    cursor_file: Option<PathBuf>,
    /// End once everything has come that the log held at the start.
    #[arg(long)]
    until_caught_up: bool,
    /// Print all events at the end, by the time that the log took them, over all
    /// partitions (then by partition and offset). At most 256 MiB of them are kept.
    #[arg(long, requires = "until_caught_up", conflicts_with = "max_events")]
    sorted: bool,
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

/// What becomes of a tail whose place retention has removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IfExpired {
    /// It ends.
    Fail,
    /// It goes on from the oldest event.
    Earliest,
    /// It goes on from the end.
    Latest,
}

impl Tail {
    fn request(&self, stored: Option<String>) -> StreamEventsRequest {
        let filter = EventFilter {
            event_types: self.types.clone(),
            player_ids: self.players.clone(),
            guild_ids: self.guilds.clone(),
        };
        let expired_cursor_policy = match self.if_expired {
            IfExpired::Fail => ExpiredCursorPolicy::Fail,
            IfExpired::Earliest => ExpiredCursorPolicy::Earliest,
            IfExpired::Latest => ExpiredCursorPolicy::Latest,
        };
        StreamEventsRequest {
            start: Some(match stored {
                Some(cursor) => Start::AfterCursor(cursor),
                None => self.from.start(Clock::System.now()),
            }),
            filter: (filter != EventFilter::default()).then_some(filter),
            heartbeat_interval: self.heartbeat.and_then(|interval| interval.try_into().ok()),
            max_events: self.max_events.unwrap_or(0),
            stop_when_caught_up: self.until_caught_up,
            expired_cursor_policy: expired_cursor_policy.into(),
            include_origin: self.include_origin,
        }
    }

    /// Shows events until there are no more or a signal comes.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        output.color(self.color);
        let file = self.cursor_file.as_ref().map(CursorFile::open).transpose()?;
        let mut place = Place::new(file);
        let request = self.request(place.stored()?);
        if let Some(Start::AfterCursor(cursor)) = &request.start {
            place.starts_behind(cursor.clone());
        }
        let client = self.remote.connect().await?;
        let mut tail = tail::Tail::new(client, request);
        let result = self.show(&mut tail, &mut place, output).await;
        // When nobody reads the events any more it is not known which of them were read.
        if result.as_ref().is_err_and(|error| error.is::<StdoutError>()) {
            return result;
        }
        let saved = place.save(output);
        self.say_how_to_go_on(&result, &place, output);
        result.and_then(|exit| saved.map(|()| exit))
    }

    /// Also after an error, so that nobody has to start over.
    fn say_how_to_go_on(&self, result: &anyhow::Result<Exit>, place: &Place, output: &mut Output) {
        let error = result.as_ref().err().and_then(|error| error.downcast_ref::<ClientError>());
        let refused = error.is_some_and(|error| {
            error.reason() == Some(reason::CURSOR_MALFORMED)
                || result.as_ref().is_err_and(|error| Exit::of(error) == Exit::PositionLost)
        });
        match (place.file(), place.cursor()) {
            (Some(file), Some(_)) if refused => output.note(&format!(
                "the server does not take the cursor in {}; to start anew at --from, remove the \
                 file",
                words::printable(&file.path().display().to_string())
            )),
            (None, Some(cursor)) if !refused => {
                output.note(&format!("resume with: --from {}", words::printable(cursor)));
            }
            _ => {}
        }
    }

    async fn show(
        &self,
        tail: &mut tail::Tail,
        place: &mut Place,
        output: &mut Output,
    ) -> anyhow::Result<Exit> {
        let mut interrupted = signal(SignalKind::interrupt()).context("cannot await signals")?;
        let mut terminated = signal(SignalKind::terminate()).context("cannot await signals")?;
        let mut reader_gone = pin!(reader_gone());
        let mut sorted = self.sorted.then(Sorted::default);
        let mut newest = None;
        loop {
            let mut item = tokio::select! {
                () = &mut reader_gone => return Err(StdoutError::reader_is_gone_now().into()),
                () = place.due() => {
                    place.save(output)?;
                    continue;
                }
                item = tail.next() => item,
                _ = interrupted.recv() => return Ok(Exit::Interrupted),
                _ = terminated.recv() => return Ok(Exit::Terminated),
            };
            // All events that came together, without a look at the signals: they are there
            // already, and only behind the last of them is there a cursor.
            let cursor = loop {
                let Some(next) = item else {
                    for line in sorted.into_iter().flat_map(Sorted::into_lines) {
                        output.line(line)?;
                    }
                    output.flush()?;
                    newest.into_iter().for_each(|cursor| place.reached(cursor));
                    return Ok(Exit::Done);
                };
                let tail::Item { news, cursor } = next?;
                let more = cursor.is_none() && matches!(news, News::Event(_));
                self.tell(news, &mut sorted, output)?;
                if !more {
                    break cursor;
                }
                item = tail.next().await;
            };
            if sorted.is_some() {
                newest = cursor.or(newest);
            } else if let Some(cursor) = cursor {
                output.flush()?;
                place.reached(cursor);
            }
        }
    }

    fn tell(
        &self,
        news: News,
        sorted: &mut Option<Sorted>,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        match news {
            News::Event(event) => {
                let line = if self.remote.json {
                    json::canonical("DeliveredEvent", &event)?
                } else {
                    line(&event, output)
                };
                match sorted {
                    Some(sorted) => {
                        let time = event.append_time.unwrap_or_default();
                        let place = (time.seconds, time.nanos, event.partition, event.offset);
                        sorted.push(place, line)?;
                    }
                    None => output.line(line)?,
                }
            }
            News::CaughtUp(CaughtUp { end_offsets }) => {
                for end in &end_offsets {
                    output.note(&format!(
                        "caught up: partition {} at offset {}",
                        end.partition, end.offset
                    ));
                }
            }
            News::FellBehind => output.note("fell behind, reading on from the log"),
            News::Gap(gap) => output.note(&gap_in_words(&gap)),
            News::Closing(closing) => output.note(&closing_in_words(&closing)),
            News::Reconnecting { delay, cause } => output.note(&reconnecting(delay, &cause)),
            _ => {}
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
}
