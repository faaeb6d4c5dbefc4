//! Where a tail starts, as it is written on the command line.

use std::str::FromStr;
use std::time::Duration;

use crate::cli::remote::duration;
use crate::clock::Timestamp;
use crate::proto::StartPosition;
use crate::proto::stream_events_request::Start;

/// The forms, for `--help` and for those who wrote none of them.
pub const FORMS: &str = "earliest, latest, a cursor, a time such as 2026-11-21T10:00:00Z, \
                         or how long ago, such as 15m, 2h or 7d";

/// Where to start.
#[derive(Clone, Debug, PartialEq)]
pub enum From {
    /// At the oldest event.
    Earliest,
    /// Behind the newest event; also called now.
    Latest,
    /// Behind a cursor. Whether it is one the server tells.
    Cursor(String),
    /// At a time.
    At(jiff::Timestamp),
    /// So long before now.
    Ago(Duration),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let from = match text {
            "earliest" => Some(Self::Earliest),
            "latest" | "now" => Some(Self::Latest),
            // A cursor begins with its version, whose first digit in base64 is a letter.
            _ if text.starts_with(|c: char| c.is_ascii_digit()) => {
                text.parse().map(Self::At).ok().or_else(|| duration(text).map(Self::Ago).ok())
            }
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Some(Self::Cursor(text.to_owned()))
            }
            _ => None,
        };
        from.ok_or_else(|| format!("write {FORMS}"))
    }
}

impl From {
    /// The start of a request that is made `now`.
    pub fn start(&self, now: Timestamp) -> Start {
        let after_1970 = |seconds: i64, nanos: i32| match seconds {
            // No log is older.
            ..0 => prost_types::Timestamp::default(),
            seconds => prost_types::Timestamp { seconds, nanos },
        };
        match self {
            Self::Earliest => Start::StartPosition(StartPosition::Earliest.into()),
            Self::Latest => Start::StartPosition(StartPosition::Latest.into()),
            Self::Cursor(cursor) => Start::AfterCursor(cursor.clone()),
            Self::At(time) => {
                Start::StartTime(after_1970(time.as_second(), time.subsec_nanosecond().max(0)))
            }
            Self::Ago(age) => {
                let time = prost_types::Timestamp::from(now.minus(*age));
                Start::StartTime(after_1970(time.seconds, time.nanos))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_an_end_of_the_log_a_cursor_or_a_time() {
        let now = Timestamp::from_millis(7_200_250);
        let at = |seconds, nanos| Start::StartTime(prost_types::Timestamp { seconds, nanos });
        for (text, start) in [
            ("earliest", Start::StartPosition(StartPosition::Earliest.into())),
            ("latest", Start::StartPosition(StartPosition::Latest.into())),
            ("AbC", Start::AfterCursor("AbC".to_owned())),
            ("1970-01-01T00:00:09.5Z", at(9, 500_000_000)),
            ("1970-01-01T02:00:09+02:00", at(9, 0)),
            ("1969-12-31T23:59:59.5Z", at(0, 0)),
            ("2h", at(0, 250_000_000)),
            ("1h 30m", at(1800, 250_000_000)),
            ("3000000h", at(0, 0)),
            ("100d", at(0, 0)),
        ] {
            assert_eq!(text.parse::<From>().map(|from| from.start(now)), Ok(start), "{text}");
        }
    }

    #[test]
    fn an_age_may_have_days_and_weeks() {
        for (text, hours) in [("100d", 2400), ("2w", 336), ("1d 12h", 36), ("1w 1d", 192)] {
            let age = Duration::from_secs(hours * 3600);
            assert_eq!(text.parse::<From>(), Ok(From::Ago(age)), "{text}");
        }
    }

    #[test]
    fn what_is_no_start_is_told_all_forms() {
        for text in
            ["", "2026-11-21", "2026-13-01T00:00:00Z", "15 parsecs", "15", "0s", "1mo", "no way"]
        {
            assert_eq!(text.parse::<From>(), Err(format!("write {FORMS}")), "{text}");
        }
    }
}
