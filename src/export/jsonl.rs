//! Lines of JSON: an event each, as `herald tail --json --include-origin` prints it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage as _, Value};

use super::columns::Malformed;
use super::rows::{Origins, event_descriptor};
use crate::event_log::Record;
use crate::history::Origin;
use crate::proto;

/// The number of a field. Source: `proto/game.proto`.
const DELIVERED_EVENT: u32 = 1;

/// The name of what a line has when the schema of this build does not know all of the event, or
/// JSON cannot say it: the bytes in the log, in base64.
const RAW_VALUE: &str = "rawValue";

/// The message of times.
const TIMESTAMP: &str = "google.protobuf.Timestamp";

/// From the start of year 1 to the end of year 9999, in seconds since 1970.
const SAYABLE_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

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
        let mut message = DynamicMessage::decode(self.delivered.clone(), &bytes[..])?;
        let is_unsaid = leave_out_unsayable(&mut message);
        serde_json::to_writer(&mut self.text, &message).map_err(|_| Malformed)?;
        if is_unsaid || holds_unknown(&message) {
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

/// Clears the times that JSON has no form for, at any depth, and says whether there were any.
/// Source: `google/protobuf/timestamp.proto`: years 1 to 9999.
fn leave_out_unsayable(message: &mut DynamicMessage) -> bool {
    let mut unsayable = Vec::new();
    let mut found = false;
    for (field, value) in message.fields_mut() {
        match value {
            Value::Message(time) if is_unsayable(time) => unsayable.push(field),
            Value::Message(message) => found |= leave_out_unsayable(message),
            Value::List(items) => {
                for item in items.iter_mut().filter_map(Value::as_message_mut) {
                    found |= leave_out_unsayable(item);
                }
            }
            _ => {}
        }
    }
    unsayable.iter().for_each(|field| message.clear_field(field));
    found || !unsayable.is_empty()
}

fn is_unsayable(message: &DynamicMessage) -> bool {
    if message.descriptor().full_name() != TIMESTAMP {
        return false;
    }
    let time = message.transcode_to::<prost_types::Timestamp>();
    !time.is_ok_and(|time| {
        SAYABLE_SECONDS.contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos)
    })
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
