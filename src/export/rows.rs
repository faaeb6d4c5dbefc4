//! Rows: records of the log, one behind the other, until they are a batch of Arrow.

use std::sync::{Arc, LazyLock};

use arrow_array::builder::{
    BinaryBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::columns::{Malformed, Message, time_builder, time_type};
use crate::domain::EventKeys;
use crate::event_log::Record;
use crate::history::Origin;
use crate::proto;

/// The columns beside those of the event's own fields, behind them.
const GUILD_ID: &str = "guild_id";
const RAW_VALUE: &str = "raw_value";
const PARTITION: &str = "partition";
const OFFSET: &str = "offset";
const APPEND_TIME: &str = "append_time";

/// The field of an event that is private.
const ORIGIN: &str = "origin";

/// The columns of every file: those of the event's fields, a struct for each message, and
/// `guild_id`, `raw_value`, `partition`, `offset`, `append_time`. All may be null.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| Rows::new(Origins::Kept).schema);
    Arc::clone(&SCHEMA)
}

/// The message of an event in the schema that this build was made with.
pub(super) fn event_descriptor() -> MessageDescriptor {
    static EVENT: LazyLock<MessageDescriptor> = LazyLock::new(|| {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS).expect("the build has made it");
        pool.get_message_by_name("game.v1.GameEvent").expect("it is in the schema")
    });
    EVENT.clone()
}

/// What becomes of the private origin of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origins {
    /// It is exported.
    Kept,
    /// Its column is null.
    LeftOut,
}

/// Rows that are gathered for one folder.
#[derive(Debug)]
pub(super) struct Rows {
    schema: SchemaRef,
    event: Message,
    /// The number of the field that is left out.
    left_out: Option<u32>,
    guild_id: StringBuilder,
    raw_value: BinaryBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
    append_time: TimestampMicrosecondBuilder,
    rows: usize,
    /// Of the records in them.
    bytes: usize,
}

impl Rows {
    pub fn new(origins: Origins) -> Self {
        let descriptor = event_descriptor();
        let event = Message::new(&descriptor).expect("a test makes the columns of the schema");
        let mut fields: Vec<_> = event.names().iter().cloned().collect();
        let own = [
            (GUILD_ID, DataType::Utf8),
            (RAW_VALUE, DataType::Binary),
            (PARTITION, DataType::Int32),
            (OFFSET, DataType::Int64),
            (APPEND_TIME, time_type()),
        ];
        fields.extend(own.map(|(name, kind)| Arc::new(Field::new(name, kind, true))));
        let origin = descriptor.get_field_by_name(ORIGIN).map(|field| field.number());
        Self {
            schema: Arc::new(Schema::new(fields)),
            event,
            left_out: origin.filter(|_| origins == Origins::LeftOut),
            guild_id: StringBuilder::with_capacity(0, 0),
            raw_value: BinaryBuilder::with_capacity(0, 0),
            partition: Int32Builder::with_capacity(0),
            offset: Int64Builder::with_capacity(0),
            append_time: time_builder(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Adds an event. Where the columns have no place for all of it, its bytes are kept too; so
    /// that they are whole, with the origin, unless that is left out.
    pub fn append(
        &mut self,
        record: &Record,
        origin: &Origin,
        keys: &EventKeys<'_>,
    ) -> Result<(), Malformed> {
        let complete = self.event.append(&record.value, self.left_out)?;
        self.guild_id.append_option(keys.guild_id);
        if complete {
            self.raw_value.append_null();
        } else if self.left_out.is_some() {
            let parts: Vec<_> = origin.cut_out_of(&record.value).collect();
            self.raw_value.append_value(parts.concat());
        } else {
            self.raw_value.append_value(&record.value);
        }
        self.partition.append_value(record.partition.try_into().unwrap_or(i32::MAX));
        self.offset.append_value(record.offset.try_into().unwrap_or(i64::MAX));
        self.append_time.append_value(record.append_time.as_millis().saturating_mul(1_000));
        self.rows += 1;
        self.bytes += record.value.len();
        Ok(())
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// How many bytes the records in them had.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows as a batch, and none from now on.
    pub fn finish(&mut self) -> Result<RecordBatch, Malformed> {
        let (_, mut columns, _) = self.event.finish()?.into_parts();
        let own: [ArrayRef; 5] = [
            Arc::new(self.guild_id.finish()),
            Arc::new(self.raw_value.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.append_time.finish()),
        ];
        columns.extend(own);
        self.rows = 0;
        self.bytes = 0;
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|_| Malformed)
    }
}
