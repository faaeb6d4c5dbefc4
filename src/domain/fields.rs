//! What fields of requests have to be, for those who describe the interface to others.
//!
//! The checks are where the fields are read; a test asks the server about both sides of each
//! bound that is told here.

use super::action::MAX_QUANTITY;
use super::ids::{MAX_ENTITY_BYTES, MAX_TEXT_BYTES};

/// What a field has to be, beyond being of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldRule {
    /// Whether it has to be there. Else one that is empty is as good as absent.
    pub is_required: bool,
    /// What it has to be when it is there.
    pub form: Form,
}

/// What the value of a field has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A text as [`super::TEXT_PATTERN`] has it.
    Text {
        /// Its most bytes.
        max_bytes: usize,
    },
    /// A UUID.
    Uuid,
    /// A number.
    Number {
        /// The least.
        min: i32,
        /// The most, where it is less than what the type can hold.
        max: Option<i32>,
    },
    /// Several texts, none of them empty.
    List {
        /// How many at the most.
        max_values: usize,
        /// What each is one of; anything, when there are none.
        one_of: &'static [&'static str],
    },
}

impl FieldRule {
    /// Of a field that has to be there.
    pub const fn required(form: Form) -> Option<Self> {
        Some(Self { is_required: true, form })
    }

    /// Of a field that may be left out.
    pub const fn optional(form: Form) -> Option<Self> {
        Some(Self { is_required: false, form })
    }
}

/// What a field of a request has to be, by the names of message and field; `None` where being
/// of its type is enough, and for what other rooms check.
pub fn field_rule(message: &str, field: &str) -> Option<FieldRule> {
    let text = Form::Text { max_bytes: MAX_TEXT_BYTES };
    match (message, field) {
        (_, "player_id") => FieldRule::required(text),
        (_, "item_id" | "guild_id") => {
            FieldRule::required(Form::Text { max_bytes: MAX_ENTITY_BYTES })
        }
        (_, "quantity") => FieldRule::optional(Form::Number { min: 1, max: Some(MAX_QUANTITY) }),
        (_, "purchase_event_id") | ("GetReceiptRequest", "request_id") => {
            FieldRule::required(Form::Uuid)
        }
        (_, "request_id") => FieldRule::optional(Form::Uuid),
        ("GrantItemRequest", "reason")
        | ("ClientContext", "session_id" | "build_version" | "platform") => {
            FieldRule::optional(text)
        }
        _ => None,
    }
}
