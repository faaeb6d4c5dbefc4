//! What a failed call says: `google.rpc.Status`, and the details that are read or made here.
//!
//! What the rooms refuse comes with its status. What is refused before it gets there has the
//! reasons that gRPC has for the same.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::Any;

/// The domain of every reason, as over gRPC.
const DOMAIN: &str = "herald";

/// The most characters of a text that comes from a library, which may repeat what was sent.
const MAX_FOREIGN_TEXT: usize = 500;

// Source: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto.
const INVALID_ARGUMENT: i32 = 3;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// gRPC's code; never OK.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// For programs.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// A message of google.rpc.
pub(super) trait Detail: Message + Default {
    const NAME: &'static str;
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ErrorInfo {
    #[prost(string, tag = "1")]
    pub reason: String,
    #[prost(string, tag = "2")]
    pub domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub metadata: BTreeMap<String, String>,
}

impl Detail for ErrorInfo {
    const NAME: &'static str = "google.rpc.ErrorInfo";
}

/// `google.rpc.BadRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    pub field_violations: Vec<FieldViolation>,
}

impl Detail for BadRequest {
    const NAME: &'static str = "google.rpc.BadRequest";
}

/// `google.rpc.BadRequest.FieldViolation`.
#[derive(Clone, PartialEq, Message, serde::Serialize)]
pub(super) struct FieldViolation {
    #[prost(string, tag = "1")]
    pub field: String,
    #[prost(string, tag = "2")]
    pub description: String,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<prost_types::Duration>,
}

impl Detail for RetryInfo {
    const NAME: &'static str = "google.rpc.RetryInfo";
}

fn packed<D: Detail>(detail: &D) -> Any {
    let type_url = format!("type.googleapis.com/{}", D::NAME);
    Any { type_url, value: detail.encode_to_vec() }
}

/// The name of a detail's type.
pub(super) fn type_name(detail: &Any) -> &str {
    detail.type_url.rsplit('/').next().unwrap_or_default()
}

impl Status {
    /// One with a reason.
    pub(super) fn of(code: i32, reason: &str, message: impl Into<String>) -> Self {
        let info = ErrorInfo {
            reason: reason.to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: BTreeMap::new(),
        };
        Self { code, message: message.into(), details: vec![packed(&info)] }
    }

    /// What was sent is no message.
    pub(super) fn malformed(why: &str) -> Self {
        let why: String = why.chars().take(MAX_FOREIGN_TEXT).collect();
        let message = format!("the request is not a valid message: {why}");
        Self::of(INVALID_ARGUMENT, "MESSAGE_MALFORMED", message)
    }

    /// A field of what was sent is none, or is not of its type.
    pub(super) fn malformed_field(field: &str, why: &str) -> Self {
        let cut = |text: &str| text.chars().take(MAX_FOREIGN_TEXT).collect::<String>();
        let violation = FieldViolation { field: cut(field), description: cut(why) };
        let mut status = Self::malformed(&format!("{}: {}", violation.field, why));
        status.details.push(packed(&BadRequest { field_violations: vec![violation] }));
        status
    }

    /// The message is over the limit.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the message is over the limit of {limit} bytes");
        Self::of(RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", message)
    }

    /// The message is compressed.
    pub(super) fn compressed() -> Self {
        let message = "compressed messages are not accepted; send them as they are";
        Self::of(UNIMPLEMENTED, "COMPRESSION_UNSUPPORTED", message)
    }

    /// The body is of a type that is not read.
    pub(super) fn wrong_type(named: &str, known: &str) -> Self {
        let named: String = named.chars().take(MAX_FOREIGN_TEXT).collect();
        let message = format!("the content type has to be {known}, but is {named:?}");
        Self::of(INVALID_ARGUMENT, "CONTENT_TYPE_UNSUPPORTED", message)
    }

    /// The caller accepts none of the types that there are.
    pub(super) fn not_acceptable(known: &[&str]) -> Self {
        let message = format!("the header accept takes none of {}", known.join(", "));
        Self::of(INVALID_ARGUMENT, "ACCEPT_UNSUPPORTED", message)
    }

    /// HTTP's method is none of those that are allowed.
    pub(super) fn wrong_method(allowed: &str) -> Self {
        let message = format!("this is asked for by {allowed}");
        Self::of(UNIMPLEMENTED, "HTTP_METHOD_UNSUPPORTED", message)
    }

    /// There is no such method of a service, or not in this way.
    pub(super) fn unknown_method(message: impl Into<String>) -> Self {
        Self::of(UNIMPLEMENTED, "METHOD_UNKNOWN", message)
    }

    /// It comes from a page that may not call.
    pub(super) fn origin_denied() -> Self {
        let message = "pages of this origin may not call: --cors lists those that may, \
                       --allowed-hosts the names of this server";
        Self::of(PERMISSION_DENIED, "ORIGIN_DENIED", message)
    }

    /// Nobody has said that the host it names is this server.
    pub(super) fn host_unknown() -> Self {
        let message = "this host is not known; call an address or localhost, or list its name: \
                       --allowed-hosts NAME";
        Self::of(PERMISSION_DENIED, "HOST_UNKNOWN", message)
    }

    /// What the rooms answered cannot be written down, which is no fault of the caller's.
    pub(super) fn unreadable() -> Self {
        let message = "the answer does not fit the schema".to_owned();
        Self { code: INTERNAL, message, details: Vec::new() }
    }

    /// The first detail of a type.
    pub(super) fn detail<D: Detail>(&self) -> Option<D> {
        let detail = self.details.iter().find(|detail| type_name(detail) == D::NAME)?;
        D::decode(&*detail.value).ok()
    }

    /// The stable reason; empty when there is none.
    pub(super) fn reason(&self) -> String {
        self.detail::<ErrorInfo>().map(|info| info.reason).unwrap_or_default()
    }
}
