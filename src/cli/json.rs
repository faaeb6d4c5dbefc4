//! Canonical proto3 JSON of any message of the schema.

use std::sync::LazyLock;

use anyhow::Context as _;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};

use crate::proto;

static POOL: LazyLock<Result<DescriptorPool, String>> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).map_err(|e| e.to_string()));

/// The JSON of a message of type `name` (such as `DeliveredEvent`) in one line.
/// Control characters are escaped, also those that JSON would allow: the line may
/// reach a terminal.
pub fn canonical(name: &str, message: &impl Message) -> anyhow::Result<String> {
    let pool = POOL.as_ref().map_err(|error| anyhow::anyhow!("the built-in schema: {error}"))?;
    let descriptor = pool
        .get_message_by_name(&format!("game.v1.{name}"))
        .with_context(|| format!("the schema has no message {name}"))?;
    let message = DynamicMessage::decode(descriptor, &*message.encode_to_vec())
        .with_context(|| format!("a {name} that is none"))?;
    Ok(without_controls(serde_json::to_string(&message)?))
}

/// Outside of its strings, JSON in one line has no such characters; inside them
/// an escape means the same.
pub fn without_controls(json: String) -> String {
    if !json.chars().any(super::words::is_unsafe) {
        return json;
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if super::words::is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{EventReceipt, PurchaseItemResponse};

    #[test]
    fn json_is_canonical_and_safe_for_a_terminal() {
        let receipt = EventReceipt {
            event_id: "x\u{9b}2J\u{1b}\u{202e}".to_owned(),
            accept_time: Some(prost_types::Timestamp { seconds: 1, nanos: 5_000_000 }),
            offset: 7,
            ..Default::default()
        };
        let response =
            PurchaseItemResponse { receipt: Some(receipt), purchase: None, owned_quantity: 0 };
        let json = canonical("PurchaseItemResponse", &response).unwrap();
        assert_eq!(
            json,
            r#"{"receipt":{"eventId":"x\u009b2J\u001b\u202e","acceptTime":"1970-01-01T00:00:01.005Z","offset":"7"}}"#
        );
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    }
}
