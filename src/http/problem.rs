//! From a status to HTTP: the only place that knows HTTP's codes.

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use serde::Serialize;
use serde_json::json;

use super::status::{BadRequest, ErrorInfo, FieldViolation, RetryInfo, type_name};
use super::{Answer, Schema, Status, answer};

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const TEXT: &str = "text/plain; charset=utf-8";

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
const OWN_CODES: [(&str, StatusCode); 6] = [
    ("ACCEPT_UNSUPPORTED", StatusCode::NOT_ACCEPTABLE),
    ("MESSAGE_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE),
    ("METHOD_UNKNOWN", StatusCode::NOT_FOUND),
    ("HTTP_METHOD_UNSUPPORTED", StatusCode::METHOD_NOT_ALLOWED),
    ("CONTENT_TYPE_UNSUPPORTED", StatusCode::UNSUPPORTED_MEDIA_TYPE),
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

/// HTTP's code for an error by the names that the schema's comments have for it: gRPC's code in
/// capitals, and the reason.
pub(super) fn code_of(code: &str, reason: &str) -> Option<StatusCode> {
    let code = code.to_ascii_lowercase();
    let number = CODES.iter().position(|(name, _)| *name == code)?;
    Some(http_code(&Status::of(i32::try_from(number).ok()?, reason, "")))
}

/// The answer to a call that has succeeded.
pub(super) fn success(content_type: &'static str, body: impl Into<bytes::Bytes>) -> Answer {
    answer(StatusCode::OK, content_type, body)
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

/// The schema of [`connect_error`].
pub(super) fn connect_schema() -> serde_json::Value {
    json!({
        "type": "object",
        "description": "A failed call, as the Connect protocol has it.",
        "required": ["code", "message", "details"],
        "properties": {
            "code": code_schema(),
            "message": { "type": "string", "description": "For people; may change." },
            "details": {
                "type": "array",
                "description": "Among them a `google.rpc.ErrorInfo`, which has the reason.",
                "items": {
                    "type": "object",
                    "required": ["type", "value"],
                    "properties": {
                        "type": { "type": "string", "description": "The name of its message." },
                        "value": {
                            "type": "string",
                            "description": "The message in protobuf, in base64 without padding.",
                        },
                        "debug": {
                            "type": "object",
                            "nullable": true,
                            "description": "The message in JSON.",
                        },
                    },
                },
            },
        },
    })
}

/// The schema of Connect's name of a code.
fn code_schema() -> serde_json::Value {
    let names: std::collections::BTreeSet<_> = CODES.iter().map(|(name, _)| name).collect();
    json!({ "type": "string", "enum": names, "description": "gRPC's code." })
}

/// A failed call, to a client of Connect.
pub(super) fn connect(schema: &Schema, status: &Status) -> Answer {
    let body = connect_error(schema, status).to_string();
    with_retry(answer(http_code(status), JSON, body), status)
}

/// A failed call in JSON, by RFC 9457. Members beyond it: `code` and `reason` as over gRPC,
/// and what the reason brings along.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Problem {
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<FieldViolation>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    metadata: std::collections::BTreeMap<String, String>,
}

/// The schema of [`Problem`].
pub(super) fn problem_schema() -> serde_json::Value {
    json!({
        "type": "object",
        "description": "A failed call, as RFC 9457 has it.",
        "required": ["title", "status", "detail", "code"],
        "properties": {
            "title": { "type": "string", "description": "HTTP's name of the status." },
            "status": { "type": "integer", "format": "int32", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string", "description": "For people; may change." },
            "code": code_schema(),
            "reason": {
                "type": "string",
                "description": "For programs, which decide on it; stays. Not there when the \
                    server itself has failed.",
            },
            "violations": {
                "type": "array",
                "description": "All that is wrong, by field.",
                "items": {
                    "type": "object",
                    "required": ["field", "description"],
                    "properties": {
                        "field": {
                            "type": "string",
                            "description": "The path of the field, such as `item_id`.",
                        },
                        "description": { "type": "string" },
                    },
                },
            },
            "metadata": {
                "type": "object",
                "description": "What the reason brings along.",
                "additionalProperties": { "type": "string" },
            },
        },
    })
}

/// A failed call, as JSON or as one sentence.
pub(super) fn problem(status: &Status, as_text: bool) -> Answer {
    let code = http_code(status);
    if as_text {
        return with_retry(answer(code, TEXT, sentence(&status.message)), status);
    }
    let body = serde_json::to_vec(&json(status)).unwrap_or_default();
    with_retry(answer(code, PROBLEM, body), status)
}

/// What is said of a failed call in JSON.
pub(super) fn json(status: &Status) -> Problem {
    let code = http_code(status);
    let info = status.detail::<ErrorInfo>().unwrap_or_default();
    Problem {
        title: code.canonical_reason().unwrap_or("Client Closed Request"),
        status: code.as_u16(),
        detail: status.message.clone(),
        code: of_number(status.code).0,
        reason: info.reason,
        violations: status.detail().map_or_else(Vec::new, |bad: BadRequest| bad.field_violations),
        metadata: info.metadata,
    }
}

/// What a call says that has succeeded, as one sentence.
pub(super) fn text(said: &str) -> Answer {
    answer(StatusCode::OK, TEXT, sentence(said))
}

/// An answer that says all in its headers.
pub(super) fn empty() -> Answer {
    answer(StatusCode::OK, TEXT, "")
}

/// A line of text; what was sent and is repeated in it stays in one line.
fn sentence(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).chain(['\n']).collect()
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use prost::Message as _;
    use prost_types::{Any, Duration};

    use super::*;

    fn busy(retry: Duration) -> Status {
        let info = RetryInfo { retry_delay: Some(retry) };
        let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
        let details = vec![Any { type_url, value: info.encode_to_vec() }];
        Status { code: 14, message: "busy\nhere".into(), details }
    }

    #[tokio::test]
    async fn who_can_come_again_is_told_when_in_whole_seconds() {
        for (seconds, nanos, header) in [(2, 0, "2"), (0, 100_000_000, "1"), (1, 1, "2")] {
            let status = busy(Duration { seconds, nanos });
            for as_text in [false, true] {
                let answer = problem(&status, as_text);
                assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
                assert_eq!(answer.headers()[RETRY_AFTER], header);
            }
        }
        let text = problem(&busy(Duration::default()), true).into_body();
        assert_eq!(text.collect().await.unwrap().to_bytes(), "busy here\n");
    }

    #[test]
    fn a_code_that_is_none_is_unknown() {
        for code in [-1, 0, 17] {
            let status = Status { code, ..Status::default() };
            assert_eq!(http_code(&status), StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(of_number(code).0, "unknown");
        }
    }

    #[test]
    fn details_of_every_kind_are_readable() {
        let schema = Schema::build(&[tonic_types::pb::FILE_DESCRIPTOR_SET]).unwrap();
        let error = connect_error(&schema, &busy(Duration { seconds: 2, nanos: 0 }));
        assert_eq!(error["code"], "unavailable");
        assert_eq!(error["details"][0]["type"], "google.rpc.RetryInfo");
        assert_eq!(error["details"][0]["debug"]["retryDelay"], "2s");
        assert_eq!(error["details"][0]["value"], "CgIIAg");
    }
}
