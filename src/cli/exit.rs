//! What a command ends with, and how an error is put into words.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; also when the reader of stdout went away |
//! | 1 | refused by the server, or failed: a definite answer |
//! | 2 | the command line is wrong |
//! | 3 | the server cannot be reached or cannot do its work now; nothing was written |
//! | 4 | outcome unknown: run it again with the request id that was printed |
//! | 5 | the position given to `tail` or `export` is no longer valid |
//! | 130, 143 | interrupted, terminated |

use std::process::ExitCode;

use super::actions::WriteError;
use super::output;
use super::words::printable;
use crate::client::{ClientError, Code, reason};

/// The codes, for `--help`.
pub const HELP: &str = "\
Exit codes:
  0    done (also when the reader of stdout went away)
  1    refused by the server, or failed: a definite answer
  2    wrong usage
  3    server not reached or unavailable; nothing was written, try again
  4    outcome unknown: run it again with the request id that was printed
  5    the position given to tail or export is no longer valid
  130  interrupted (Ctrl-C); 143 terminated";

/// What a command ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It is done.
    Done,
    /// It was refused, or it failed.
    Failed,
    /// The arguments are wrong in a way that the parser cannot see.
    Usage,
    /// The server was not reached, or cannot do its work now.
    Unavailable,
    /// A write may have happened or not.
    OutcomeUnknown,
    /// The position of a tail or an export is no longer valid.
    PositionLost,
    /// Ended by SIGINT.
    Interrupted,
    /// Ended by SIGTERM.
    Terminated,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unavailable => 3,
            Exit::OutcomeUnknown => 4,
            Exit::PositionLost => 5,
            Exit::Interrupted => 128 + 2,
            Exit::Terminated => 128 + 15,
        })
    }
}

/// The arguments are wrong in a way that the parser cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// No connection to a server or to a broker came about: what was tried, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreached(pub String);

impl Exit {
    /// What a command that failed so ends with.
    pub fn of(error: &anyhow::Error) -> Self {
        if let Some(error) = error.downcast_ref::<output::StdoutError>() {
            if error.reader_is_gone() { Self::Done } else { Self::Failed }
        } else if let Some(WriteError { error, .. }) = error.downcast_ref() {
            Self::of_write(error)
        } else if let Some(error) = error.downcast_ref() {
            Self::of_read(error)
        } else if let Some(exit) = super::export::exit(error) {
            exit
        } else if error.is::<UsageError>() {
            Self::Usage
        } else if error.is::<Unreached>() {
            Self::Unavailable
        } else {
            Self::Failed
        }
    }

    fn of_write(error: &ClientError) -> Self {
        if error.outcome_unknown() {
            Self::OutcomeUnknown
        } else if error.is_unavailable() {
            Self::Unavailable
        } else {
            Self::Failed
        }
    }

    fn of_read(error: &ClientError) -> Self {
        match error.reason() {
            Some(reason::CURSOR_AHEAD | reason::CURSOR_EXPIRED | reason::FEED_EPOCH_CHANGED) => {
                Self::PositionLost
            }
            // Never was a position.
            Some(reason::CURSOR_MALFORMED) => Self::Usage,
            _ if error.is_callers_own() => Self::Usage,
            _ if error.is_retryable() => Self::Unavailable,
            _ => Self::Failed,
        }
    }
}

/// An error in lines for stderr, with nothing in them that a terminal obeys.
pub fn describe(error: &anyhow::Error) -> Vec<String> {
    let (client, request_id) = match error.downcast_ref::<WriteError>() {
        Some(WriteError { error, request_id }) => (Some(error), Some(request_id)),
        None => (error.downcast_ref::<ClientError>(), None),
    };
    let Some(client) = client else {
        return format!("{error:#}").lines().map(|line| printable(line).into_owned()).collect();
    };
    let kind = match Exit::of(error) {
        Exit::OutcomeUnknown => "outcome unknown: ",
        Exit::Failed if client.reason().is_some() => "refused: ",
        _ => "",
    };
    let mut lines = Vec::new();
    if client.violations().is_empty() {
        lines.push(format!("{kind}{}", printable(&client.to_string())));
    } else {
        // The text of the error is the same as the list.
        lines.push(format!("{kind}{}", client.reason().unwrap_or("not valid")));
    }
    for violation in client.violations() {
        lines.push(format!(
            "  {}: {}",
            printable(&violation.field),
            printable(&violation.description)
        ));
    }
    if client.reason() == Some(reason::CURSOR_MALFORMED) {
        lines.push(format!("  --from takes {}", super::tail::FORMS));
    }
    if client.reason() == Some(reason::CURSOR_EXPIRED) {
        lines.push("  --if-expired earliest or latest goes on without what is gone".to_owned());
    }
    if client.reason().is_none() && client.code() == Code::Unimplemented {
        lines.push("  is it a Herald server? its admin address is another one".to_owned());
    }
    for name in ["earliest_cursor", "latest_cursor", "horizon_start"] {
        if let Some(cursor) = client.metadata().get(name) {
            lines.push(format!("  {name}: {}", printable(cursor)));
        }
    }
    if let Some(delay) = client.retry_delay() {
        lines.push(format!("try again in {delay:?}"));
    }
    if let Some(request_id) = request_id.filter(|_| client.outcome_unknown()) {
        let request_id = printable(request_id);
        lines.push(format!("run it again with: --request-id {request_id}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;
    use tonic_types::{ErrorDetails, StatusExt as _};

    fn error(code: Code, reason: &str, details: ErrorDetails) -> ClientError {
        let mut details = details;
        details.set_error_info(reason, "herald", [] as [(String, String); 0]);
        Status::with_error_details(code, "told by a test", details).into()
    }

    fn write(error: ClientError) -> anyhow::Error {
        WriteError { error, request_id: "the-id".to_owned() }.into()
    }

    #[test]
    fn a_refusal_lists_every_violation_without_control_characters() {
        let mut details = ErrorDetails::with_bad_request_violation("item_id", "not \u{1b}[2Jsold");
        details.add_bad_request_violation("quantity", "less than 1");
        let error = write(error(Code::InvalidArgument, reason::VALIDATION_FAILED, details));
        assert_eq!(Exit::of(&error), Exit::Failed);
        let lines = describe(&error);
        assert_eq!(lines[0], "refused: VALIDATION_FAILED");
        assert_eq!(lines[1], "  item_id: not \\u{1b}[2Jsold");
        assert_eq!(lines[2], "  quantity: less than 1");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn an_unknown_outcome_names_the_request_id() {
        for failure in [
            error(Code::DeadlineExceeded, reason::WRITE_OUTCOME_UNKNOWN, ErrorDetails::new()),
            Status::unavailable("a proxy").into(),
        ] {
            let error = write(failure);
            assert_eq!(Exit::of(&error), Exit::OutcomeUnknown);
            assert!(describe(&error).contains(&"run it again with: --request-id the-id".into()));
        }
    }

    #[test]
    fn the_code_says_whether_to_try_again() {
        let full = error(Code::Unavailable, reason::LOG_UNAVAILABLE, ErrorDetails::new());
        assert_eq!(Exit::of(&write(full.clone())), Exit::Unavailable);
        assert_eq!(Exit::of(&full.into()), Exit::Unavailable);
        let lost = error(Code::OutOfRange, reason::CURSOR_EXPIRED, ErrorDetails::new());
        assert_eq!(Exit::of(&lost.into()), Exit::PositionLost);
        let closed = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Exit::of(&output::StdoutError::from(closed).into()), Exit::Done);
        assert_eq!(Exit::of(&anyhow::anyhow!("a bug")), Exit::Failed);
    }
}
