//! What a failed call tells, and what can be done about it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use tonic::{Code, ConnectError, Status};
use tonic_types::StatusExt as _;

/// The reasons of Herald's errors that a client decides on; see
/// `proto/game.proto`.
#[allow(missing_docs, reason = "each name is its own documentation, the schema has the rest")]
pub mod reason {
    pub const CURSOR_AHEAD: &str = "CURSOR_AHEAD";
    pub const CURSOR_EXPIRED: &str = "CURSOR_EXPIRED";
    pub const CURSOR_MALFORMED: &str = "CURSOR_MALFORMED";
    pub const FEED_EPOCH_CHANGED: &str = "FEED_EPOCH_CHANGED";
    pub const LOG_UNAVAILABLE: &str = "LOG_UNAVAILABLE";
    pub const OVERLOADED: &str = "OVERLOADED";
    pub const PLAYER_UNKNOWN: &str = "PLAYER_UNKNOWN";
    pub const RECEIPT_UNKNOWN: &str = "RECEIPT_UNKNOWN";
    pub const REQUEST_IN_PROGRESS: &str = "REQUEST_IN_PROGRESS";
    pub const REQUEST_ID_CONFLICT: &str = "REQUEST_ID_CONFLICT";
    pub const STATE_BEHIND: &str = "STATE_BEHIND";
    pub const STREAM_DEADLINE: &str = "STREAM_DEADLINE";
    pub const SUBSCRIBER_LIMIT: &str = "SUBSCRIBER_LIMIT";
    pub const VALIDATION_FAILED: &str = "VALIDATION_FAILED";
    pub const WRITE_OUTCOME_UNKNOWN: &str = "WRITE_OUTCOME_UNKNOWN";
}

/// The `ErrorInfo.domain` of Herald's own errors; an ErrorInfo of another domain
/// is a proxy's and says nothing about the action.
const DOMAIN: &str = "herald";

/// One field that the server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its path in the request, as in `proto/game.proto`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// Why a call failed. Its texts are the server's and may hold anything.
#[derive(Clone, Debug)]
pub struct ClientError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: Code,
    reason: Option<String>,
    message: String,
    violations: Vec<Violation>,
    retry_delay: Option<Duration>,
    metadata: BTreeMap<String, String>,
    origin: Origin,
    /// That of the action, where it is known here.
    request_id: Option<String>,
    /// Nobody knows what became of an earlier attempt.
    in_doubt: bool,
}

/// Where an error arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// No connection was made: the server has seen nothing of the call.
    Unreached,
    /// The connection broke or fell silent; the server may have seen the call.
    Connection,
    /// Something answered: the server, or a proxy in front of it.
    Answer,
    /// The call was wrong before it left.
    Caller,
}

impl ClientError {
    /// The status code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Herald's own reason, such as `VALIDATION_FAILED`; none where the error is
    /// not from a Herald server but from this library or a proxy.
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// The text of the error.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// All fields that were refused.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// How long the server asks to wait before trying again.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_delay
    }

    /// The metadata of the error's ErrorInfo.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    /// The request id of an action that was called by [`Retry`](super::Retry), to try it
    /// again with; none for all other calls.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// Whether the same call may succeed later. A write is retried safely only
    /// with the same request id.
    pub fn is_retryable(&self) -> bool {
        match self.reason() {
            Some(
                reason::LOG_UNAVAILABLE
                | reason::OVERLOADED
                | reason::REQUEST_IN_PROGRESS
                | reason::STATE_BEHIND
                | reason::STREAM_DEADLINE
                | reason::SUBSCRIBER_LIMIT
                | reason::WRITE_OUTCOME_UNKNOWN,
            ) => true,
            // A reason that this build does not know.
            Some(_) => self.0.retry_delay.is_some() || self.0.code == Code::Unavailable,
            None => match self.0.origin {
                Origin::Unreached | Origin::Connection => true,
                // A proxy's, which seldom finds better words for a server that is away.
                Origin::Answer => matches!(
                    self.0.code,
                    Code::Unavailable
                        | Code::DeadlineExceeded
                        | Code::Internal
                        | Code::Unknown
                        | Code::Cancelled
                ),
                Origin::Caller => false,
            },
        }
    }

    /// Whether the server was not reached or says that it cannot do its work now;
    /// in either case a write has not happened.
    pub fn is_unavailable(&self) -> bool {
        let is_definite = self.0.origin == Origin::Unreached || self.reason().is_some();
        is_definite && self.is_retryable() && !self.outcome_unknown()
    }

    /// Whether a write that failed so may have happened all the same. Only a
    /// retry with the same request id finds out.
    pub fn outcome_unknown(&self) -> bool {
        // What a later attempt is told says nothing of those before: their event may reach the
        // log yet.
        if self.0.in_doubt {
            return true;
        }
        match self.reason() {
            Some(reason) => {
                matches!(reason, reason::WRITE_OUTCOME_UNKNOWN | reason::REQUEST_IN_PROGRESS)
            }
            None => match self.0.origin {
                Origin::Unreached | Origin::Caller => false,
                Origin::Connection => true,
                // A server that does not know the method has done nothing. All
                // else without a reason is a proxy's, which cannot know.
                Origin::Answer => self.0.code != Code::Unimplemented,
            },
        }
    }

    /// Whether the call was wrong before it left, so that no server has seen it.
    pub fn is_callers_own(&self) -> bool {
        self.0.origin == Origin::Caller
    }

    /// An error that this library found: `InvalidArgument` in what it was given,
    /// `FailedPrecondition` in what the server said, all others on the way.
    pub(crate) fn local(code: Code, message: impl Into<String>) -> Self {
        let origin = match code {
            Code::InvalidArgument => Origin::Caller,
            Code::FailedPrecondition => Origin::Answer,
            _ => Origin::Connection,
        };
        Self::bare(code, message.into(), origin)
    }

    /// No connection to `address` came about.
    pub(crate) fn unreached(address: &str, cause: &(dyn Error + 'static)) -> Self {
        let message = format!("cannot reach {address}: {}", root(cause));
        Self::bare(Code::Unavailable, message, Origin::Unreached)
    }

    /// The error of an action with this request id, behind other attempts at it, or not.
    pub(super) fn of_action(mut self, request_id: &str, in_doubt: bool) -> Self {
        self.0.request_id = Some(request_id.to_owned());
        self.0.in_doubt = in_doubt;
        self
    }

    fn bare(code: Code, message: String, origin: Origin) -> Self {
        Self(Box::new(Inner {
            code,
            reason: None,
            message,
            violations: Vec::new(),
            retry_delay: None,
            metadata: BTreeMap::new(),
            origin,
            request_id: None,
            in_doubt: false,
        }))
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let cause = status.source();
        let origin = match cause {
            None => Origin::Answer,
            Some(cause) if chain(cause).any(|error| error.is::<ConnectError>()) => {
                Origin::Unreached
            }
            Some(_) => Origin::Connection,
        };
        let message = match cause {
            None => status.message().to_owned(),
            Some(cause) => root(cause),
        };
        let mut error = Self::bare(status.code(), message, origin);
        let details = status.get_error_details();
        if let Some(info) = details.error_info().filter(|info| info.domain == DOMAIN) {
            error.0.reason = Some(info.reason.clone());
            error.0.metadata =
                info.metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        }
        if let Some(request) = details.bad_request() {
            let violations = request.field_violations.iter().map(|violation| Violation {
                field: violation.field.clone(),
                description: violation.description.clone(),
            });
            error.0.violations = violations.collect();
        }
        error.0.retry_delay = details.retry_info().and_then(|info| info.retry_delay);
        error
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{} ({reason})", self.message())?,
            None if self.0.origin == Origin::Answer => {
                write!(f, "{} ({:?})", self.message(), self.code())?;
            }
            None => f.write_str(self.message())?,
        }
        match self.request_id() {
            Some(request_id) if self.outcome_unknown() => write!(
                f,
                "; the action may have been carried out all the same: try again with request id \
                 {request_id}"
            ),
            _ => Ok(()),
        }
    }
}

impl Error for ClientError {}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The text of the innermost cause: the layers above it say "transport error".
fn root(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    pub(crate) fn herald(code: Code, reason: &str) -> ClientError {
        let info = ErrorDetails::with_error_info(reason, DOMAIN, [] as [(String, String); 0]);
        Status::with_error_details(code, "told by a test", info).into()
    }

    #[test]
    fn an_answer_with_details_is_read_in_full() {
        let mut details = ErrorDetails::with_bad_request_violation("item_id", "not sold here");
        details.add_bad_request_violation("quantity", "less than 1");
        details.set_error_info("OVERLOADED", DOMAIN, [("queue".to_owned(), "full".to_owned())]);
        details.set_retry_info(Some(Duration::from_millis(70)));
        let error: ClientError =
            Status::with_error_details(Code::ResourceExhausted, "busy", details).into();
        assert_eq!(error.reason(), Some(reason::OVERLOADED));
        assert_eq!(error.violations().len(), 2);
        assert_eq!(error.violations()[1].field, "quantity");
        assert_eq!(error.retry_delay(), Some(Duration::from_millis(70)));
        assert_eq!(error.metadata()["queue"], "full");
        assert!(error.is_retryable() && error.is_unavailable() && !error.outcome_unknown());
    }

    #[test]
    fn only_what_the_server_itself_says_is_a_definite_answer_to_a_write() {
        assert!(!herald(Code::InvalidArgument, reason::VALIDATION_FAILED).outcome_unknown());
        assert!(!herald(Code::Unavailable, reason::LOG_UNAVAILABLE).outcome_unknown());
        assert!(herald(Code::DeadlineExceeded, reason::WRITE_OUTCOME_UNKNOWN).outcome_unknown());
        assert!(herald(Code::Aborted, reason::REQUEST_IN_PROGRESS).outcome_unknown());
        assert!(!herald(Code::AlreadyExists, reason::REQUEST_ID_CONFLICT).outcome_unknown());
        let away = [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Internal,
            Code::Unknown,
            Code::Cancelled,
        ];
        for bare in away {
            let error = ClientError::from(Status::new(bare, "a proxy"));
            assert!(error.outcome_unknown() && error.is_retryable(), "{bare:?}");
        }
        for bare in [Code::PermissionDenied, Code::ResourceExhausted, Code::Unimplemented] {
            assert!(!ClientError::from(Status::new(bare, "a proxy")).is_retryable(), "{bare:?}");
        }
        let foreign = ErrorDetails::with_error_info("X", "other", [] as [(String, String); 0]);
        let foreign = Status::with_error_details(Code::Unavailable, "a mesh", foreign);
        assert!(ClientError::from(foreign).outcome_unknown());
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_has_written_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        for lazy in [false, true] {
            let options = crate::client::ConnectOptions { lazy, ..Default::default() };
            let call = async {
                crate::client::Client::connect(&address.to_string(), options).await?.catalog().await
            };
            let error = call.await.unwrap_err();
            assert!(error.is_unavailable() && !error.outcome_unknown(), "{error:?}");
        }
    }
}
