//! What the schema says of calls and messages: JSON to messages and back, by descriptors.

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor,
};
use prost_types::FileDescriptorSet;
use prost_types::method_options::IdempotencyLevel;
use serde_json::Value;

use super::Status;
use super::status::type_name;
use crate::proto;

/// The services and messages that are known. Cheap to clone.
#[derive(Clone)]
pub struct Schema {
    pool: DescriptorPool,
}

impl Schema {
    /// Herald's own schema and what is in `others`, encoded descriptor sets: the services that
    /// are called beside Herald's, and the details of errors.
    ///
    /// # Errors
    ///
    /// A set cannot be read.
    pub fn build(others: &[&[u8]]) -> Result<Self, String> {
        let mut pool = DescriptorPool::decode(proto::DESCRIPTORS).map_err(|e| e.to_string())?;
        for other in others {
            let mut set = FileDescriptorSet::decode(*other).map_err(|e| e.to_string())?;
            // Google's own are in several.
            set.file.retain(|file| pool.get_file_by_name(file.name()).is_none());
            pool.add_file_descriptor_set(set).map_err(|e| e.to_string())?;
        }
        Ok(Self { pool })
    }

    /// Whether a path is one of a service that is known.
    pub(super) fn has_service(&self, path: &str) -> bool {
        split(path).is_some_and(|(service, _)| self.pool.get_service_by_name(service).is_some())
    }

    /// The method at `/package.Service/Method`.
    pub(super) fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, name) = split(path)?;
        self.pool.get_service_by_name(service)?.methods().find(|method| method.name() == name)
    }

    /// The message `package.Name`.
    pub(super) fn message(&self, name: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(name)
    }

    /// The services of a package.
    pub(super) fn services(&self, package: &str) -> impl Iterator<Item = ServiceDescriptor> {
        self.pool.services().filter(move |service| service.package_name() == package)
    }

    /// A detail of an error as JSON; null when its type is not known.
    pub(super) fn detail(&self, detail: &prost_types::Any) -> Value {
        let descriptor = self.pool.get_message_by_name(type_name(detail));
        let message = descriptor.and_then(|d| DynamicMessage::decode(d, &*detail.value).ok());
        message.and_then(|message| serde_json::to_value(message).ok()).unwrap_or_default()
    }
}

fn split(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.split_once('/')
}

/// Whether a method only reads.
pub(super) fn only_reads(method: &MethodDescriptor) -> bool {
    let options = method.method_descriptor_proto().options.as_ref();
    options.is_some_and(|it| it.idempotency_level() == IdempotencyLevel::NoSideEffects)
}

/// The message that a JSON text is.
///
/// # Errors
///
/// It is none; says in which field, and where in the text.
pub(super) fn from_json(of: MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, Status> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let message = read(of, &mut reader)?;
    reader.end().map_err(|error| Status::malformed(&error.to_string()))?;
    Ok(message)
}

/// The message that a JSON value is.
///
/// # Errors
///
/// It is none; says in which field.
pub(super) fn from_value(of: MessageDescriptor, value: Value) -> Result<DynamicMessage, Status> {
    read(of, value)
}

fn read<'de, D>(of: MessageDescriptor, reader: D) -> Result<DynamicMessage, Status>
where
    D: serde::Deserializer<'de, Error = serde_json::Error>,
{
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(reader, &mut track);
    DynamicMessage::deserialize(of, tracked).map_err(|error| {
        // What is wrong with a whole message is not in a field: a text that ends too early, a
        // field that is unknown, which the error names.
        let path = track.path().to_string();
        match path.trim_end_matches('?').trim_end_matches('.') {
            "" => Status::malformed(&error.to_string()),
            field => Status::malformed_field(field, &error.to_string()),
        }
    })
}

/// The JSON of an encoded message.
///
/// # Errors
///
/// It is none.
pub(super) fn to_json(of: MessageDescriptor, message: Bytes) -> Result<Vec<u8>, Status> {
    let message = DynamicMessage::decode(of, message).map_err(|_| Status::unreadable())?;
    serde_json::to_vec(&message).map_err(|_| Status::unreadable())
}

/// A field by either of its names.
pub(super) fn field(of: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    of.get_field_by_name(name).or_else(|| of.get_field_by_json_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::status::BadRequest;
    use crate::proto::PurchaseItemRequest;

    fn purchase(json: &str) -> Result<PurchaseItemRequest, Status> {
        let schema = Schema::build(&[]).unwrap();
        let method = schema.method("/game.v1.GameService/PurchaseItem").unwrap();
        from_json(method.input(), json.as_bytes())
            .map(|message| PurchaseItemRequest::decode(&*message.encode_to_vec()).unwrap())
    }

    #[test]
    fn json_has_either_name_of_a_field_and_numbers_as_text() {
        let expected = PurchaseItemRequest {
            player_id: "alice".into(),
            item_id: "sword".into(),
            quantity: Some(2),
            ..Default::default()
        };
        for json in [
            r#"{"playerId":"alice","itemId":"sword","quantity":2}"#,
            r#"{"player_id":"alice","item_id":"sword","quantity":"2","validateOnly":null}"#,
            r#" {"player_id":"alice","item_id":"sw\u006frd","quantity":2.0} "#,
        ] {
            assert_eq!(purchase(json).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn what_is_wrong_in_json_is_named() {
        for (json, field, says) in [
            ("", "", "EOF while parsing a value at line 1 column 0"),
            ("{\n\"playerId\": nope}", "playerId", "line 2 column 14"),
            ("[]", "", "expected a map"),
            ("{", "", "EOF while parsing an object at line 1 column 1"),
            (r#"{"clientContext":{"#, "clientContext", "EOF while parsing an object"),
            ("null", "", "expected a map"),
            (r#"{"playerId":"alice"}}"#, "", "trailing characters at line 1 column 21"),
            (r#"{"guild":"owls"}"#, "", "unrecognized field name 'guild' at line 1 column 8"),
            (r#"{"clientContext":{"x":1}}"#, "clientContext", "unrecognized field name 'x'"),
            (r#"{"playerId":7}"#, "playerId", "invalid type: integer `7`"),
            (r#"{"quantity":"two"}"#, "quantity", "invalid digit"),
            (r#"{"quantity":1.5}"#, "quantity", "expected integer value"),
            (r#"{"quantity":3000000000}"#, "quantity", "out of range"),
            (r#"{"quantity":1,"quantity":2}"#, "", "multiple fields"),
            (r#"{"clientContext":{"platform":[]}}"#, "clientContext.platform", "invalid type"),
            (r#"{"clientContext":{"clientTime":"noon"}}"#, "clientContext.clientTime", ""),
            ("{\"playerId\":\"\u{1}\"}", "playerId", "control character"),
            (&"[".repeat(10_000), "", ""),
            (&r#"{"clientContext":"#.repeat(10_000), "clientContext", "clientContext'"),
        ] {
            let status = purchase(json).unwrap_err();
            assert_eq!(status.reason(), "MESSAGE_MALFORMED", "{json}");
            assert!(status.message.contains(says), "{json}: {}", status.message);
            let bad = status.detail::<BadRequest>().map(|bad| bad.field_violations[0].clone());
            let named = bad.map(|violation| violation.field).unwrap_or_default();
            assert_eq!(named, field, "{json}: {}", status.message);
        }
    }

    #[test]
    fn a_text_that_was_sent_is_repeated_within_bounds() {
        let long = format!(r#"{{"{}":1}}"#, "x".repeat(50_000));
        let status = purchase(&long).unwrap_err();
        assert!(status.encode_to_vec().len() < 4096);
    }
}
