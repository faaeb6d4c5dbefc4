//! What the fields that are checked in this room have to be, for those who describe the
//! interface to others.

use super::filter::MAX_FILTER_VALUES;
use crate::domain::{EVENT_TYPES, FieldRule, Form};

/// What a field of a request has to be, by the names of message and field.
pub fn field_rule(message: &str, field: &str) -> Option<FieldRule> {
    let list = |one_of| FieldRule::optional(Form::List { max_values: MAX_FILTER_VALUES, one_of });
    match (message, field) {
        ("EventFilter", "event_types") => list(&EVENT_TYPES),
        ("EventFilter", _) => list(&[]),
        ("PollEventsRequest" | "StreamEventsRequest", "max_events") => {
            FieldRule::optional(Form::Number { min: 0, max: None })
        }
        _ => None,
    }
}
