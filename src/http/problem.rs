//! From a status to HTTP: the only place that knows HTTP's codes.

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use serde_json::json;

use super::status::{RetryInfo, type_name};
use super::{Answer, Schema, Status, answer};

const JSON: &str = "application/json";

/// Connect's names of gRPC's codes, by number, each with its code of HTTP.
/// Source: <https://connectrpc.com/docs/protocol/#error-codes>.
const CODES: [(&str, u16); 17] = [
    ("unknown", 500),
    ("canceled", 499),
    ("unknown", 500),
    ("invalid_argument", 400),
    ("deadline_exceeded", 504),
    ("not_found", 404),
    ("already_exists", 409),
    ("permission_denied", 403),
    ("resource_exhausted", 429),
    ("failed_precondition", 400),
    ("aborted", 409),
    ("out_of_range", 400),
    ("unimplemented", 501),
    ("internal", 500),
    ("unavailable", 503),
    ("data_loss", 500),
    ("unauthenticated", 401),
];

/// Reasons for which HTTP has a code of its own. Programs that know only HTTP would come again
/// with what can never succeed, or hold the server to be broken.
const OWN_CODES: [(&str, StatusCode); 3] = [
    ("MESSAGE_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE),
    ("METHOD_UNKNOWN", StatusCode::NOT_FOUND),
    ("COMPRESSION_UNSUPPORTED", StatusCode::UNSUPPORTED_MEDIA_TYPE),
];

fn of_number(code: i32) -> (&'static str, u16) {
    let known = usize::try_from(code).ok().and_then(|code| CODES.get(code));
    known.copied().unwrap_or(CODES[0])
}

/// HTTP's code for a failed call.
fn http_code(status: &Status) -> StatusCode {
    let reason = status.reason();
    let own = OWN_CODES.iter().find(|(name, _)| *name == reason);
    own.map_or_else(
        || StatusCode::from_u16(of_number(status.code).1).unwrap_or_default(),
        |(_, code)| *code,
    )
}

/// The answer to a call that has succeeded.
pub(super) fn success(content_type: &'static str, body: impl Into<bytes::Bytes>) -> Answer {
    answer(StatusCode::OK, content_type, body)
}

/// An answer where HTTP itself says what is wrong: the request is not of a type that is read.
pub(super) fn wrong_type(mut refusal: Answer) -> Answer {
    *refusal.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    refusal
}

/// The same: the method is none of those that are `allowed`.
pub(super) fn wrong_method(mut refusal: Answer, allowed: &str) -> Answer {
    *refusal.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        refusal.headers_mut().insert(http::header::ALLOW, allowed);
    }
    refusal
}

/// What Connect's clients read of a failed call.
/// Source: <https://connectrpc.com/docs/protocol/#error-end-stream>.
pub(super) fn connect_error(schema: &Schema, status: &Status) -> serde_json::Value {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD_NO_PAD;
    let details: Vec<_> = status
        .details
        .iter()
        .map(|detail| {
            json!({
                "type": type_name(detail),
                "value": base64.encode(&detail.value),
                "debug": schema.detail(detail),
            })
        })
        .collect();
    json!({
        "code": of_number(status.code).0,
        "message": status.message,
        "details": details,
    })
}

/// A failed call, to a client of Connect.
pub(super) fn connect(schema: &Schema, status: &Status) -> Answer {
    let body = connect_error(schema, status).to_string();
    with_retry(answer(http_code(status), JSON, body), status)
}

/// Says after how many seconds it is worth trying again, where the status knows.
fn with_retry(mut answer: Answer, status: &Status) -> Answer {
    let delay = status.detail::<RetryInfo>().and_then(|info| info.retry_delay);
    if let Some(delay) = delay {
        let seconds = delay.seconds.saturating_add(i64::from(delay.nanos > 0));
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
