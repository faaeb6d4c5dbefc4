//! The schemas of messages, as protobuf has them in JSON.
//!
//! What is sent has bounds, and no fields beyond those that are known; what is answered may get
//! more of them, and leaves out those with their default.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::comments;
use crate::domain::{self, FieldRule, Form, TEXT_PATTERN};
use crate::http::rest::is_one_value;
use crate::{feed, players};

/// A duration; those of this schema are never negative.
const DURATION: &str = r"^[0-9]{1,11}(\.[0-9]{1,9})?s$";

/// A number of 64 bits, as a text.
const WHOLE_NUMBER: &str = "^-?[0-9]{1,19}$";

/// The schemas that the document names, each once.
pub(super) struct Messages {
    /// Where in the document they are, as a reference begins.
    place: &'static str,
    /// The full names of messages that are sent, and of those in them.
    sent: BTreeSet<String>,
    schemas: BTreeMap<String, Value>,
}

impl Messages {
    /// None yet; `sent` are the messages of requests.
    pub fn new(place: &'static str, sent: impl Iterator<Item = MessageDescriptor>) -> Self {
        let mut messages = Self { place, sent: BTreeSet::new(), schemas: BTreeMap::new() };
        sent.for_each(|message| messages.note_sent(&message));
        messages
    }

    fn note_sent(&mut self, message: &MessageDescriptor) {
        if self.sent.insert(message.full_name().to_owned()) {
            let kinds = message.fields().map(|field| field.kind());
            kinds.filter_map(|kind| kind.as_message().cloned()).for_each(|it| self.note_sent(&it));
        }
    }

    /// All that were named.
    pub fn into_schemas(self) -> BTreeMap<String, Value> {
        self.schemas
    }

    /// A reference to a schema of this name, which is made when it is not there yet.
    pub fn named(&mut self, name: &str, make: impl FnOnce(&mut Self) -> Value) -> Value {
        if !self.schemas.contains_key(name) {
            // Holds the place, should it contain itself.
            self.schemas.insert(name.to_owned(), Value::Null);
            let made = make(self);
            self.schemas.insert(name.to_owned(), made);
        }
        json!({ "$ref": format!("{}{name}", self.place) })
    }

    /// A reference to the schema of a message.
    pub fn message(&mut self, of: &MessageDescriptor) -> Value {
        self.named(short_name(of.full_name(), of.package_name()), |messages| {
            let fields: Vec<_> = of.fields().collect();
            let required = fields.iter().filter(|field| messages.must_be_sent(field));
            let required: Vec<_> = required.map(FieldDescriptor::json_name).collect();
            let mut object = messages.object(of, &fields);
            if !required.is_empty() {
                object["required"] = json!(required);
            }
            object
        })
    }

    /// A reference to the schema of a body with the fields of a message that are not in `path`.
    /// None has to be in the body, as each may be in the query instead.
    pub fn body(&mut self, name: &str, of: &MessageDescriptor, path: &[String]) -> Value {
        self.named(name, |messages| {
            let fields = of.fields().filter(|field| !path.contains(&field.name().to_owned()));
            let fields: Vec<_> = fields.collect();
            messages.object(of, &fields)
        })
    }

    fn object(&mut self, of: &MessageDescriptor, fields: &[FieldDescriptor]) -> Value {
        let mut properties = Map::new();
        for field in fields {
            properties.insert(field.json_name().to_owned(), self.property(field));
        }
        let mut object = json!({
            "type": "object",
            "description": comments::of_message(of),
            "properties": properties,
        });
        if self.sent.contains(of.full_name()) {
            object["additionalProperties"] = json!(false);
        }
        object
    }

    fn property(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = self.field(field);
        let mut description = comments::of_field(field);
        if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
            let names = oneof.fields().map(|field| format!("`{}`", field.json_name()));
            let names = names.collect::<Vec<_>>().join(", ");
            description += &format!("\n\nAt most one of {names}.");
        }
        if schema.get("$ref").is_some() {
            // Beside a reference nothing else is read.
            schema = json!({ "allOf": [schema] });
        }
        schema["description"] = json!(description);
        schema
    }

    /// The schema of a field in JSON.
    pub fn field(&mut self, field: &FieldDescriptor) -> Value {
        if field.is_map() {
            let value = field.kind().as_message().map(MessageDescriptor::map_entry_value_field);
            let value = value.map_or_else(|| json!({}), |value| self.field(&value));
            return json!({ "type": "object", "additionalProperties": value });
        }
        let one = self.kind(&field.kind());
        let schema = if field.is_list() { json!({ "type": "array", "items": one }) } else { one };
        match self.rule(field) {
            Some(rule) => bounded(schema, rule),
            None => schema,
        }
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "format": "byte" }),
            Kind::Double => json!({ "type": "number", "format": "double" }),
            Kind::Float => json!({ "type": "number", "format": "float" }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({ "type": "integer", "format": "int32" })
            }
            Kind::Uint32 | Kind::Fixed32 => json!({ "type": "integer", "format": "int64" }),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => {
                json!({ "type": "string", "format": "int64", "pattern": WHOLE_NUMBER })
            }
            Kind::Enum(of) => self.enumeration(of),
            Kind::Message(of) => match of.full_name() {
                "google.protobuf.Timestamp" => json!({ "type": "string", "format": "date-time" }),
                "google.protobuf.Duration" => json!({ "type": "string", "pattern": DURATION }),
                // The others of Google's are not in the schema.
                _ if is_one_value(of) => json!({}),
                _ => self.message(of),
            },
        }
    }

    fn enumeration(&mut self, of: &EnumDescriptor) -> Value {
        self.named(short_name(of.full_name(), of.package_name()), |_| {
            let values: Vec<_> = of.values().map(|value| value.name().to_owned()).collect();
            json!({ "type": "string", "enum": values, "description": comments::of_enum(of) })
        })
    }

    fn must_be_sent(&self, field: &FieldDescriptor) -> bool {
        self.rule(field).is_some_and(|rule| rule.is_required)
    }

    /// What a field that is sent has to be.
    fn rule(&self, field: &FieldDescriptor) -> Option<FieldRule> {
        let message = field.parent_message();
        let (message, field) = match self.sent.contains(message.full_name()) {
            true => (message.name(), field.name()),
            false => return None,
        };
        domain::field_rule(message, field)
            .or_else(|| feed::field_rule(message, field))
            .or_else(|| players::field_rule(message, field))
    }

    /// The fields of a message as parameters, those of messages in it with a dot.
    pub fn parameters(&mut self, of: &MessageDescriptor) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        for field in of.fields() {
            let kind = field.kind();
            match kind.as_message().filter(|of| !is_one_value(of)) {
                Some(of) if !field.is_list() && !field.is_map() => {
                    let inner = self.parameters(of);
                    parameters.extend(inner.into_iter().map(|parameter| Parameter {
                        name: format!("{}.{}", field.name(), parameter.name),
                        ..parameter
                    }));
                }
                Some(_) => {}
                None => parameters.push(Parameter {
                    name: field.name().to_owned(),
                    description: comments::of_field(&field),
                    schema: self.field(&field),
                    must_be_sent: self.must_be_sent(&field),
                }),
            }
        }
        parameters
    }
}

/// A field as a parameter of a request.
pub(super) struct Parameter {
    pub name: String,
    pub description: String,
    pub schema: Value,
    /// Whether the call needs it.
    pub must_be_sent: bool,
}

/// The name of a message or an enum in the document: without its package.
fn short_name<'a>(full_name: &'a str, package: &str) -> &'a str {
    let short = full_name.strip_prefix(package);
    short.and_then(|short| short.strip_prefix('.')).unwrap_or(full_name)
}

/// A schema with the bounds of a rule.
fn bounded(mut schema: Value, rule: FieldRule) -> Value {
    match rule.form {
        // Bytes are bounded, and characters are counted: no text is longer than this.
        Form::Text { max_bytes } => {
            let empty = if rule.is_required { "" } else { "?" };
            schema["maxLength"] = json!(max_bytes);
            schema["pattern"] = json!(format!("^({TEXT_PATTERN}){empty}$"));
            if rule.is_required {
                schema["minLength"] = json!(1);
            }
        }
        Form::Uuid => schema["format"] = json!("uuid"),
        Form::Number { min, max } => {
            schema["minimum"] = json!(min);
            if let Some(max) = max {
                schema["maximum"] = json!(max);
            }
        }
        Form::List { max_values, one_of } => {
            schema["maxItems"] = json!(max_values);
            schema["items"]["minLength"] = json!(1);
            if !one_of.is_empty() {
                schema["items"]["enum"] = json!(one_of);
            }
        }
    }
    schema
}
