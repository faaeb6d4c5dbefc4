//! How the feed is written down: as server-sent events, or as lines of JSON.
//!
//! Server-sent events hold an event each, without a name, so that `onmessage` gets it, and what
//! else the feed says under its name in the schema. The cursor is the id: browsers keep that of
//! the last block, and come back with it. Lines have the cursor beside what they say.
//!
//! Sources: <https://html.spec.whatwg.org/multipage/server-sent-events.html>, and
//! <https://github.com/ndjson/ndjson-spec>.

use std::fmt::Write as _;
use std::time::Duration;

use prost_reflect::DynamicMessage;
use serde::Serialize;
use serde_json::{Error, json, to_string};

use crate::feed::reconnect_delay;
use crate::http::status::RetryInfo;
use crate::http::{Status, problem};
use crate::proto::Closing;

/// The shortest time after which a browser comes back, which does so as often as it is told, for
/// as long as nobody is there.
const LEAST_RETRY: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    ServerSent,
    Lines,
}

/// An event in a line of its own.
#[derive(Serialize)]
struct Line<'a> {
    cursor: &'a str,
    #[serde(flatten)]
    event: &'a DynamicMessage,
}

impl Form {
    /// Writes an event, a `DeliveredEvent`, and the cursor behind it.
    ///
    /// # Errors
    ///
    /// JSON has no form for what is in it, such as a time before the year 1. Nothing is written.
    pub fn event(self, cursor: &str, event: &DynamicMessage, to: &mut String) -> Result<(), Error> {
        match self {
            Self::ServerSent => block(None, Some(cursor), &to_string(event)?, to),
            Self::Lines => line(&to_string(&Line { cursor, event })?, to),
        }
        Ok(())
    }

    /// Writes any other message of the feed, a `StreamEventsResponse`, with its cursor.
    ///
    /// # Errors
    ///
    /// As for an event.
    pub fn news(
        self,
        cursor: &str,
        message: &DynamicMessage,
        to: &mut String,
    ) -> Result<(), Error> {
        if self == Self::Lines {
            line(&to_string(message)?, to);
            return Ok(());
        }
        let said = message.fields().find_map(|(field, value)| Some((field, value.as_message()?)));
        let Some((field, said)) = said else { return Ok(()) };
        match field.name() {
            // Nobody has to see it, and yet the id moves on.
            "heartbeat" => {
                to.push_str(": heartbeat\n");
                id(cursor, to);
                return Ok(());
            }
            "opened" => retry(reconnect_delay(), to),
            "closing" => {
                let delay = said.transcode_to::<Closing>().ok().and_then(|it| it.reconnect_delay);
                retry_after(delay, to);
            }
            _ => {}
        }
        block(Some(field.name()), Some(cursor), &to_string(said)?, to);
        Ok(())
    }

    /// Writes why the feed does not go on. No event is called `error`, which is what browsers
    /// call a lost connection.
    pub fn failure(self, status: &Status, to: &mut String) {
        let problem = json!(problem::json(status));
        match self {
            Self::ServerSent => {
                retry_after(status.detail::<RetryInfo>().and_then(|info| info.retry_delay), to);
                block(Some("problem"), None, &problem.to_string(), to);
            }
            Self::Lines => line(&json!({ "error": problem }).to_string(), to),
        }
    }

    /// Writes that everything has come that was asked for. A browser would come back for more,
    /// unless the page closes its `EventSource` at this; who reads lines sees that there are no
    /// more.
    pub fn end(self, to: &mut String) {
        if self == Self::ServerSent {
            block(Some("end"), None, "{}", to);
        }
    }
}

fn line(json: &str, to: &mut String) {
    to.push_str(json);
    to.push('\n');
}

/// What a browser takes as one. JSON is a single line, as its strings escape line breaks.
fn block(name: Option<&str>, cursor: Option<&str>, data: &str, to: &mut String) {
    if let Some(name) = name {
        let _ = writeln!(to, "event: {name}");
    }
    let _ = writeln!(to, "data: {data}");
    match cursor {
        Some(cursor) => id(cursor, to),
        None => to.push('\n'),
    }
}

/// The id of a block, and its end.
fn id(cursor: &str, to: &mut String) {
    let _ = writeln!(to, "id: {cursor}\n");
}

fn retry_after(delay: Option<prost_types::Duration>, to: &mut String) {
    let delay = delay.and_then(|delay| Duration::try_from(delay).ok());
    if let Some(delay) = delay {
        retry(delay.max(LEAST_RETRY), to);
    }
}

/// After how long a browser comes back by itself, from now on.
fn retry(delay: Duration, to: &mut String) {
    let _ = writeln!(to, "retry: {}", delay.as_millis());
}
