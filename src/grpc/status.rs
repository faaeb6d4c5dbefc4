//! From errors to statuses: the only place that knows gRPC's codes.
//!
//! Each status carries one `google.rpc.ErrorInfo` with the domain "herald" and a
//! stable reason, and what else helps: BadRequest, RetryInfo, cursors that are still
//! valid. `proto/game.proto` says which call returns which.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::commands::CommandError;
use crate::domain::Violations;
use crate::event_log::{AppendError, ReadError};
use crate::feed::{FeedError, ValidCursors};
use crate::players::PlayersError;

/// The domain of every reason.
const DOMAIN: &str = "herald";

/// When to come back after the queue was full.
const OVERLOADED_RETRY: Duration = Duration::from_millis(100);

/// When to come back after the log could not be reached.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(2);

/// When to come back after an earlier call was still under way.
const IN_PROGRESS_RETRY: Duration = Duration::from_millis(250);
/// When to go on waiting for what is being read.
const BEHIND_RETRY: Duration = Duration::from_millis(100);

/// The most characters of a reason's text that come from a library or the system.
const MAX_FOREIGN_TEXT: usize = 500;

fn reason(reason: &str) -> ErrorDetails {
    reason_with(reason, [])
}

fn reason_with<const N: usize>(reason: &str, metadata: [(&str, String); N]) -> ErrorDetails {
    let metadata: HashMap<String, String> =
        metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

fn status(code: Code, message: impl Into<String>, details: ErrorDetails) -> Status {
    Status::with_error_details(code, message, details)
}

/// The bytes are no message.
pub(super) fn malformed(why: &str) -> Status {
    let why: String = why.chars().take(MAX_FOREIGN_TEXT).collect();
    let message = format!("the request is not a valid message: {why}");
    status(Code::InvalidArgument, message, reason("MESSAGE_MALFORMED"))
}

/// The message is over the limit.
pub(super) fn too_large(bytes: usize, limit: usize) -> Status {
    let message = format!("the message has {bytes} bytes, over the limit of {limit}");
    status(Code::ResourceExhausted, message, reason("MESSAGE_TOO_LARGE"))
}

/// The deadline of a stream has come.
pub(super) fn stream_deadline() -> Status {
    let message = "the deadline of the stream has come; resume with the newest cursor";
    status(Code::DeadlineExceeded, message, reason("STREAM_DEADLINE"))
}

/// How a body says its status: the frame behind all others.
pub(super) fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = http::HeaderMap::new();
    status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))
}

/// How an answer without an error ends.
pub(super) fn ok_trailers() -> http::HeaderMap {
    let mut trailers = http::HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    trailers
}

/// The message is compressed.
pub(super) fn compressed() -> Status {
    let message = "compressed messages are not accepted; send them as they are";
    status(Code::Unimplemented, message, reason("COMPRESSION_UNSUPPORTED"))
}

/// There is no such method.
pub(super) fn unknown_method() -> Status {
    let message = "there is no such method; reflection lists those that there are";
    status(Code::Unimplemented, message, reason("METHOD_UNKNOWN"))
}

/// Whether an answer is UNIMPLEMENTED without any details.
pub(super) fn is_bare_unimplemented(headers: &http::HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|code| code == "12")
        && headers.get("grpc-message").is_none_or(|message| message.is_empty())
        && !headers.contains_key("grpc-status-details-bin")
}

fn invalid(violations: Violations) -> Status {
    let violations = violations.into_vec();
    let summary: Vec<_> =
        violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
    let mut details = reason("VALIDATION_FAILED");
    details.set_bad_request(
        violations
            .into_iter()
            .map(|v| FieldViolation::new(v.field, v.description))
            .collect::<Vec<_>>(),
    );
    status(Code::InvalidArgument, summary.join("; "), details)
}

fn not_written(error: &AppendError) -> Status {
    let message = error.to_string();
    match error {
        AppendError::Overloaded => {
            let mut details = reason("OVERLOADED");
            details.set_retry_info(Some(OVERLOADED_RETRY));
            status(Code::ResourceExhausted, message, details)
        }
        AppendError::Unavailable(reason) => {
            tracing::debug!(%reason, "a write is refused");
            log_unavailable("the log takes no writes now; nothing was written")
        }
        AppendError::TooLarge(_) => {
            status(Code::ResourceExhausted, message, reason("MESSAGE_TOO_LARGE"))
        }
        // The write path answers these with the ids to retry with.
        AppendError::OutcomeUnknown(_) => {
            status(Code::DeadlineExceeded, message, reason("WRITE_OUTCOME_UNKNOWN"))
        }
    }
}

/// Why it is so is for the operator's eyes: it may name folders and hosts.
fn log_unavailable(message: &str) -> Status {
    let mut details = reason("LOG_UNAVAILABLE");
    details.set_retry_info(Some(UNAVAILABLE_RETRY));
    status(Code::Unavailable, message, details)
}

impl From<CommandError> for Status {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Rejected(violations) => invalid(violations),
            CommandError::NotWritten(error) => not_written(&error),
            CommandError::OutcomeUnknown { event_id, request_id } => status(
                Code::DeadlineExceeded,
                error.to_string(),
                reason_with(
                    "WRITE_OUTCOME_UNKNOWN",
                    [("event_id", event_id.to_string()), ("request_id", request_id.to_string())],
                ),
            ),
            CommandError::InProgress => {
                let mut details = reason("REQUEST_IN_PROGRESS");
                details.set_retry_info(Some(IN_PROGRESS_RETRY));
                status(Code::Aborted, error.to_string(), details)
            }
            CommandError::Conflict => {
                status(Code::AlreadyExists, error.to_string(), reason("REQUEST_ID_CONFLICT"))
            }
            CommandError::ReceiptUnknown { request_id, since } => {
                let mut details =
                    reason_with("RECEIPT_UNKNOWN", [("horizon_start", since.to_string())]);
                let description = "it may have been accepted before horizon_start";
                details.set_resource_info("receipt", request_id.to_string(), "", description);
                status(Code::NotFound, error.to_string(), details)
            }
        }
    }
}

impl From<FeedError> for Status {
    fn from(error: FeedError) -> Self {
        let message = error.to_string();
        let out_of_range = |name: &str, valid: ValidCursors, message: String| {
            status(
                Code::OutOfRange,
                message,
                reason_with(
                    name,
                    [("earliest_cursor", valid.earliest), ("latest_cursor", valid.latest)],
                ),
            )
        };
        match error {
            FeedError::Invalid(violations) => invalid(violations),
            FeedError::CursorMalformed(_) => {
                status(Code::InvalidArgument, message, reason("CURSOR_MALFORMED"))
            }
            FeedError::CursorExpired(valid) => out_of_range("CURSOR_EXPIRED", valid, message),
            FeedError::CursorAhead(valid) => out_of_range("CURSOR_AHEAD", valid, message),
            FeedError::EpochChanged | FeedError::Log(ReadError::Replaced) => {
                status(Code::FailedPrecondition, message, reason("FEED_EPOCH_CHANGED"))
            }
            FeedError::OriginDenied => {
                status(Code::PermissionDenied, message, reason("SCOPE_DENIED"))
            }
            FeedError::SubscriberLimit(_) => {
                let mut details = reason("SUBSCRIBER_LIMIT");
                details.set_retry_info(Some(UNAVAILABLE_RETRY));
                status(Code::ResourceExhausted, message, details)
            }
            FeedError::Log(ReadError::Unavailable(why)) => {
                tracing::warn!(%why, "the log cannot be read");
                log_unavailable("the log cannot be read now")
            }
            FeedError::Log(ReadError::Damaged(why)) => {
                tracing::error!(%why, "the log is damaged");
                let message = "records are missing from the log; its operator has to restore it";
                status(Code::DataLoss, message, reason("LOG_DAMAGED"))
            }
        }
    }
}

impl From<PlayersError> for Status {
    fn from(error: PlayersError) -> Self {
        let message = error.to_string();
        match error {
            PlayersError::Invalid(violations) => invalid(violations),
            PlayersError::CursorMalformed(_) => {
                status(Code::InvalidArgument, message, reason("CURSOR_MALFORMED"))
            }
            PlayersError::EpochChanged => {
                status(Code::FailedPrecondition, message, reason("FEED_EPOCH_CHANGED"))
            }
            PlayersError::Unknown(player_id) => {
                let mut details = reason("PLAYER_UNKNOWN");
                details.set_resource_info("player", player_id.as_str(), "", &*message);
                status(Code::NotFound, message, details)
            }
            PlayersError::NotRead => log_unavailable(&message),
            PlayersError::Behind => {
                let mut details = reason("STATE_BEHIND");
                details.set_retry_info(Some(BEHIND_RETRY));
                status(Code::DeadlineExceeded, message, details)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::domain::{PlayerId, RequestId};

    /// Code, reason, and whether there is a RetryInfo: what clients decide on.
    fn seen(status: &Status) -> (Code, String, bool) {
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.domain, "herald");
        assert!(!status.message().is_empty());
        assert!(status.details().len() < 4096, "details have to fit into the trailers");
        (status.code(), info.reason.clone(), details.retry_info().is_some())
    }

    #[test]
    fn each_error_has_its_code_its_reason_and_a_retry_where_that_helps() {
        let valid = ValidCursors { earliest: "e".into(), latest: "l".into() };
        let unavailable = ReadError::Unavailable("x".into());
        let mut violations = Violations::default();
        violations.add("player_id", "missing");
        let not_written = |error| Status::from(CommandError::NotWritten(error));
        let unknown = CommandError::OutcomeUnknown {
            event_id: uuid::Uuid::from_u128(1),
            request_id: RequestId::random(),
        };
        let receipt_unknown = CommandError::ReceiptUnknown {
            request_id: RequestId::random(),
            since: Timestamp::default(),
        };
        for (status, code, reason, retry) in [
            (malformed("x"), Code::InvalidArgument, "MESSAGE_MALFORMED", false),
            (too_large(2, 1), Code::ResourceExhausted, "MESSAGE_TOO_LARGE", false),
            (unknown_method(), Code::Unimplemented, "METHOD_UNKNOWN", false),
            (stream_deadline(), Code::DeadlineExceeded, "STREAM_DEADLINE", false),
            (
                CommandError::Rejected(violations).into(),
                Code::InvalidArgument,
                "VALIDATION_FAILED",
                false,
            ),
            (not_written(AppendError::Overloaded), Code::ResourceExhausted, "OVERLOADED", true),
            (
                not_written(AppendError::Unavailable("full".into())),
                Code::Unavailable,
                "LOG_UNAVAILABLE",
                true,
            ),
            (
                not_written(AppendError::TooLarge(2_000_000)),
                Code::ResourceExhausted,
                "MESSAGE_TOO_LARGE",
                false,
            ),
            (unknown.into(), Code::DeadlineExceeded, "WRITE_OUTCOME_UNKNOWN", false),
            (CommandError::InProgress.into(), Code::Aborted, "REQUEST_IN_PROGRESS", true),
            (CommandError::Conflict.into(), Code::AlreadyExists, "REQUEST_ID_CONFLICT", false),
            (receipt_unknown.into(), Code::NotFound, "RECEIPT_UNKNOWN", false),
            (
                FeedError::CursorExpired(valid.clone()).into(),
                Code::OutOfRange,
                "CURSOR_EXPIRED",
                false,
            ),
            (FeedError::CursorAhead(valid).into(), Code::OutOfRange, "CURSOR_AHEAD", false),
            (FeedError::EpochChanged.into(), Code::FailedPrecondition, "FEED_EPOCH_CHANGED", false),
            (
                FeedError::Log(ReadError::Replaced).into(),
                Code::FailedPrecondition,
                "FEED_EPOCH_CHANGED",
                false,
            ),
            (FeedError::OriginDenied.into(), Code::PermissionDenied, "SCOPE_DENIED", false),
            (
                FeedError::SubscriberLimit(1).into(),
                Code::ResourceExhausted,
                "SUBSCRIBER_LIMIT",
                true,
            ),
            (FeedError::Log(unavailable).into(), Code::Unavailable, "LOG_UNAVAILABLE", true),
            (
                FeedError::Log(ReadError::Damaged("x".into())).into(),
                Code::DataLoss,
                "LOG_DAMAGED",
                false,
            ),
            (
                PlayersError::Unknown(PlayerId::parse("x".repeat(128)).unwrap()).into(),
                Code::NotFound,
                "PLAYER_UNKNOWN",
                false,
            ),
            (PlayersError::NotRead.into(), Code::Unavailable, "LOG_UNAVAILABLE", true),
            (PlayersError::Behind.into(), Code::DeadlineExceeded, "STATE_BEHIND", true),
            (
                PlayersError::EpochChanged.into(),
                Code::FailedPrecondition,
                "FEED_EPOCH_CHANGED",
                false,
            ),
            (compressed(), Code::Unimplemented, "COMPRESSION_UNSUPPORTED", false),
        ] {
            assert_eq!(seen(&status), (code, reason.to_owned(), retry));
        }
    }

    #[test]
    fn what_is_for_the_operator_stays_with_the_operator() {
        let path = "free space under /srv/secret";
        for status in [
            Status::from(CommandError::NotWritten(AppendError::Unavailable(path.into()))),
            FeedError::Log(ReadError::Unavailable(path.into())).into(),
            FeedError::Log(ReadError::Damaged(path.into())).into(),
        ] {
            assert!(!format!("{status:?}").contains("/srv"), "{status:?}");
        }
    }

    #[test]
    fn an_unknown_outcome_names_what_to_retry_with() {
        let request_id = RequestId::random();
        let event_id = uuid::Uuid::from_u128(1);
        let status: Status = CommandError::OutcomeUnknown { event_id, request_id }.into();
        let details = status.get_error_details();
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(metadata["request_id"], request_id.to_string());
        assert_eq!(metadata["event_id"], event_id.to_string());
    }

    #[test]
    fn an_unknown_receipt_says_how_far_back_that_is_sure() {
        let request_id = RequestId::random();
        let since = Timestamp::from_millis(1_700_000_000_000);
        let status: Status = CommandError::ReceiptUnknown { request_id, since }.into();
        let details = status.get_error_details();
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(metadata["horizon_start"], "2023-11-14T22:13:20.000Z");
        let resource = details.resource_info().unwrap();
        assert_eq!(resource.resource_name, request_id.to_string());
    }

    #[test]
    fn twenty_violations_fit_into_the_trailers() {
        let mut violations = Violations::default();
        for _ in 0..100 {
            violations.add("client_context.build_version", "contains a control character, or more");
        }
        let status: Status = CommandError::Rejected(violations).into();
        assert_eq!(status.get_error_details().bad_request().unwrap().field_violations.len(), 20);
        seen(&status);
    }
}
