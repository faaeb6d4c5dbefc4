//! Lines of JSON: an event each, as `herald tail --json --include-origin` prints it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use super::columns::Malformed;
use super::rows::{Origins, event_descriptor};
use crate::event_log::Record;
use crate::history::Origin;
use crate::proto;

/// The number of a field. Source: `proto/game.proto`.
const DELIVERED_EVENT: u32 = 1;

/// The name of what a line has when the schema of this build does not know all of the event:
/// the bytes in the log, in base64.
const RAW_VALUE: &str = "rawValue";

/// Writes lines.
#[derive(Debug)]
pub(super) struct Lines {
    delivered: MessageDescriptor,
    origins: Origins,
    text: Vec<u8>,
    rows: usize,
}

impl Lines {
    pub fn new(origins: Origins) -> Self {
        let pool = event_descriptor().parent_pool().clone();
        let delivered =
            pool.get_message_by_name("game.v1.DeliveredEvent").expect("it is in the schema");
        Self { delivered, origins, text: Vec::new(), rows: 0 }
    }

    /// Adds an event.
    pub fn append(&mut self, record: &Record, origin: &Origin) -> Result<(), Malformed> {
        let without;
        let event = match self.origins {
            Origins::Kept => &record.value[..],
            Origins::LeftOut => {
                without = origin.cut_out_of(&record.value).collect::<Vec<_>>().concat();
                &without
            }
        };
        let mut bytes = proto::DeliveredEvent {
            event: None,
            partition: record.partition.try_into().unwrap_or(i32::MAX),
            offset: record.offset.try_into().unwrap_or(i64::MAX),
            append_time: Some(record.append_time.into()),
        }
        .encode_to_vec();
        encode_key(DELIVERED_EVENT, WireType::LengthDelimited, &mut bytes);
        encode_varint(event.len() as u64, &mut bytes);
        bytes.extend_from_slice(event);
        let message = DynamicMessage::decode(self.delivered.clone(), &bytes[..])?;
        serde_json::to_writer(&mut self.text, &message).map_err(|_| Malformed)?;
        if holds_unknown(&message) {
            self.text.pop();
            let raw = STANDARD.encode(event);
            self.text.extend_from_slice(format!(",\"{RAW_VALUE}\":\"{raw}\"}}").as_bytes());
        }
        self.text.push(b'\n');
        self.rows += 1;
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The lines, and none from now on.
    pub fn finish(&mut self) -> (usize, Vec<u8>) {
        (std::mem::take(&mut self.rows), std::mem::take(&mut self.text))
    }
}

/// Whether there are fields that the schema does not know, at any depth.
pub(super) fn holds_unknown(message: &DynamicMessage) -> bool {
    message.unknown_fields().next().is_some()
        || message.fields().any(|(_, value)| match value {
            Value::Message(message) => holds_unknown(message),
            Value::List(items) => {
                items.iter().any(|item| item.as_message().is_some_and(holds_unknown))
            }
            _ => false,
        })
}
