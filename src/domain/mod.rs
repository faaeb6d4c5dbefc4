//! The rules of the game service: identifiers, validation, the catalogue, what an
//! event looks like.
//!
//! Pure: no I/O, no clock, no transport, no log. Everything comes in as a value
//! and goes out as a value, so that two transports given the same request produce
//! the same event. Preconditions are types: `PlayerId::parse` is the only way to
//! get a [`PlayerId`].

mod action;
mod caller;
mod catalog;
mod event;
mod fields;
mod ids;
mod keys;
mod origin;
mod possessions;
mod violation;

pub use action::{Action, Refusal, Request, Submission};
pub use caller::Caller;
pub use catalog::{Catalog, CatalogError, Item, MAX_CATALOG_ENTRIES};
pub use event::{
    EVENT_ID_NAMESPACE, EVENT_TYPES, Envelope, cloud_event_type, event_id, event_type,
};
pub use fields::{FieldRule, Form, field_rule};
pub use ids::{
    GuildId, ItemId, MAX_ENTITY_BYTES, MAX_TEXT_BYTES, PlayerId, RequestId, TEXT_PATTERN, uuid_text,
};
pub use keys::EventKeys;
pub use origin::{
    AddressPolicy, HeaderPolicy, MAX_RECORDED_HEADER_BYTES, MAX_RECORDED_HEADERS, Source,
    client_address,
};
pub use possessions::{Nothing, Possessions, Price, Purchase, Terms, item_change};
pub use violation::{MAX_VIOLATIONS, Violations};
