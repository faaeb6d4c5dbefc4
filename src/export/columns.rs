//! Columns: from the bytes of events to Arrow, in one pass that copies each value once.
//!
//! What columns there are is read off the descriptors of the schema, so that a new field or
//! payload has its column without a line of code. A value goes from the record into the buffer
//! of its column; no message is made in between.
//!
//! Field by field the columns say what decoding would say: absent fields without presence have
//! their default, of a field that came twice the last one counts, parts of a message are put
//! together, of a oneof the last member stands. What the columns have no place for (a field
//! that this build does not know, a fraction of a microsecond) is *left over*, and the caller
//! is told, so that it keeps the record's bytes.
//!
//! Source of the forms: <https://protobuf.dev/programming-guides/encoding/>.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Int32Builder, Int64Builder, TimestampMicrosecondBuilder,
};
use arrow_array::{Array as _, ArrayRef, ListArray, MapArray, StringArray, StructArray};
use arrow_buffer::{NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Fields, TimeUnit};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::{Cardinality, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

/// What a time is: a message in the schema, a value in a column.
const TIMESTAMP: &str = "google.protobuf.Timestamp";
const TIMESTAMP_SECONDS: u32 = 1;
const TIMESTAMP_NANOS: u32 = 2;

/// The numbers of the two fields that an entry of a map is made of.
const MAP_KEY: u32 = 1;
const MAP_VALUE: u32 = 2;

/// The time zone of all times.
const UTC: &str = "UTC";

/// The Arrow type of a time: microseconds, the finest that Spark reads.
pub(super) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

/// A builder for a column of that type.
pub(super) fn time_builder() -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::with_capacity(0).with_timezone(UTC)
}

/// Why bytes cannot be put into columns.
#[derive(Debug, thiserror::Error)]
#[error("it is no message of the schema")]
pub(super) struct Malformed;

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Self {
        Self
    }
}

/// The columns of a message's fields.
#[derive(Debug)]
pub(super) struct Message {
    names: Fields,
    fields: Vec<Column>,
    /// By the number of the field.
    by_number: Vec<Option<usize>>,
    /// By field: which oneof it is in.
    oneofs: Vec<Option<usize>>,
    validity: NullBufferBuilder,
    /// Rows without the message that the columns of its fields do not have yet: most payloads
    /// are absent most of the time.
    absent: usize,
    /// What was found of each field, in the message that is being read.
    slots: Vec<Slot>,
}

/// What was found of a field.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Absent,
    Number(u64),
    /// Where in the message.
    At(Range<usize>),
    /// Of a message that came in several parts.
    Joined(Vec<u8>),
}

#[derive(Debug)]
struct Column {
    values: Values,
    /// Whether absent and default are two things.
    has_presence: bool,
}

#[derive(Debug)]
enum Values {
    /// Checked for UTF-8 all at once.
    Text(BinaryBuilder),
    Bytes(BinaryBuilder),
    Enum(EnumDescriptor, BinaryBuilder),
    Bool(BooleanBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Time(TimestampMicrosecondBuilder),
    Message(Box<Message>),
    List {
        ends: Vec<i32>,
        items: Box<Message>,
        pending: i32,
    },
    Map(Box<Map>),
}

/// Where key and value of a map's entry are.
type Entry = (Range<usize>, Range<usize>);

/// A map from text to text.
#[derive(Debug, Default)]
struct Map {
    keys: BinaryBuilder,
    values: BinaryBuilder,
    ends: Vec<i32>,
    /// Where the entries of the message that is being read are in it: key, value.
    entries: Vec<Entry>,
}

impl Message {
    /// The columns of a message, in the order of its descriptor.
    ///
    /// # Errors
    ///
    /// The name of a field of a kind that no column is made for.
    pub fn new(descriptor: &MessageDescriptor) -> Result<Self, String> {
        let mut message = Self {
            names: Fields::empty(),
            fields: Vec::new(),
            by_number: Vec::new(),
            oneofs: Vec::new(),
            validity: NullBufferBuilder::new(0),
            absent: 0,
            slots: Vec::new(),
        };
        let mut names = Vec::new();
        let oneofs: Vec<_> = descriptor.oneofs().collect();
        for field in descriptor.fields() {
            let column = Column::new(&field)?;
            names.push(Field::new(field.name(), column.data_type(), true));
            let number = field.number() as usize;
            if message.by_number.len() <= number {
                message.by_number.resize(number + 1, None);
            }
            message.by_number[number] = Some(message.fields.len());
            let within = field.containing_oneof();
            message.oneofs.push(oneofs.iter().position(|oneof| Some(oneof) == within.as_ref()));
            message.fields.push(column);
        }
        message.names = names.into();
        message.slots.resize_with(message.fields.len(), Slot::default);
        Ok(message)
    }

    /// The names and types of the columns.
    pub fn names(&self) -> &Fields {
        &self.names
    }

    /// Adds a message. Returns whether all of it has a place in the columns.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for what does not decode; the columns are of no use from then on.
    pub fn append(&mut self, bytes: &[u8], skipped: Option<u32>) -> Result<bool, Malformed> {
        self.catch_up();
        let mut complete = self.find(bytes, skipped)?;
        for index in 0..self.fields.len() {
            let slot = std::mem::take(&mut self.slots[index]);
            complete &= self.fields[index].append(slot, bytes)?;
        }
        self.validity.append_non_null();
        Ok(complete)
    }

    /// Brings the columns of the fields up to the rows without the message.
    fn catch_up(&mut self) {
        let absent = std::mem::take(&mut self.absent);
        if absent > 0 {
            self.validity.append_n_nulls(absent);
            self.fields.iter_mut().for_each(|column| column.values.append_absent(absent));
        }
    }

    /// Finds each field, and reads those that may come several times.
    fn find(&mut self, bytes: &[u8], skipped: Option<u32>) -> Result<bool, Malformed> {
        let mut complete = true;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, wire_type) = decode_key(&mut rest)?;
            let known = self.by_number.get(number as usize).copied().flatten();
            let known = known.filter(|_| skipped != Some(number));
            let Some(index) = known else {
                skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
                complete &= skipped == Some(number);
                continue;
            };
            if let Some(oneof) = self.oneofs[index] {
                for (other, slot) in self.slots.iter_mut().enumerate() {
                    if other != index && self.oneofs[other] == Some(oneof) {
                        *slot = Slot::Absent;
                    }
                }
            }
            let slot = &mut self.slots[index];
            match wire_type {
                WireType::Varint => *slot = Slot::Number(decode_varint(&mut rest)?),
                WireType::LengthDelimited => {
                    let at = take(bytes, &mut rest)?;
                    match &mut self.fields[index].values {
                        Values::List { items, pending, .. } => {
                            complete &= items.append(&bytes[at], None)?;
                            *pending += 1;
                        }
                        Values::Map(map) => {
                            let (entry, is_all) = entry(bytes, at)?;
                            map.entries.push(entry);
                            complete &= is_all;
                        }
                        Values::Message(_) | Values::Time(_) => slot.join(at, bytes),
                        _ => *slot = Slot::At(at),
                    }
                }
                _ => return Err(Malformed),
            }
        }
        Ok(complete)
    }

    /// The rows that were added, and none from now on.
    pub fn finish(&mut self) -> Result<StructArray, Malformed> {
        self.catch_up();
        let rows = self.validity.len();
        let columns = self.fields.iter_mut().map(|column| column.finish(rows));
        let columns = columns.collect::<Result<_, _>>()?;
        let validity = self.validity.finish();
        StructArray::try_new(self.names.clone(), columns, validity).map_err(|_| Malformed)
    }
}

impl Slot {
    /// Another part of the same message.
    fn join(&mut self, at: Range<usize>, bytes: &[u8]) {
        *self = match std::mem::take(self) {
            Self::At(first) => Self::Joined([&bytes[first], &bytes[at]].concat()),
            Self::Joined(mut parts) => {
                parts.extend_from_slice(&bytes[at]);
                Self::Joined(parts)
            }
            Self::Absent | Self::Number(_) => Self::At(at),
        };
    }
}

/// Moves over a value with its length before it. Returns where it is.
fn take(bytes: &[u8], rest: &mut &[u8]) -> Result<Range<usize>, Malformed> {
    let length = usize::try_from(decode_varint(rest)?).map_err(|_| Malformed)?;
    let start = bytes.len() - rest.len();
    *rest = rest.get(length..).ok_or(Malformed)?;
    Ok(start..start + length)
}

/// Where in `bytes` key and value of the entry at `at` are, and whether that is all of it.
fn entry(bytes: &[u8], at: Range<usize>) -> Result<(Entry, bool), Malformed> {
    // Up to the end of the entry, so that places in it are places in the message.
    let bytes = &bytes[..at.end];
    let mut rest = &bytes[at];
    let (mut key, mut value, mut complete) = (0..0, 0..0, true);
    while !rest.is_empty() {
        match decode_key(&mut rest)? {
            (MAP_KEY, WireType::LengthDelimited) => key = take(bytes, &mut rest)?,
            (MAP_VALUE, WireType::LengthDelimited) => value = take(bytes, &mut rest)?,
            (number, wire_type) => {
                skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
                complete = false;
            }
        }
    }
    Ok(((key, value), complete))
}

impl Column {
    fn new(field: &FieldDescriptor) -> Result<Self, String> {
        let unfit = || format!("{} is of a kind that has no column", field.full_name());
        let values = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let is_text = |field: FieldDescriptor| field.kind() == Kind::String;
                if !entry.fields().all(is_text) {
                    return Err(unfit());
                }
                Values::Map(Box::default())
            }
            Kind::Message(message) if field.cardinality() == Cardinality::Repeated => {
                let items = Box::new(Message::new(&message)?);
                Values::List { ends: Vec::new(), items, pending: 0 }
            }
            _ if field.cardinality() == Cardinality::Repeated => return Err(unfit()),
            Kind::Message(message) if message.full_name() == TIMESTAMP => {
                Values::Time(time_builder())
            }
            Kind::Message(message) => Values::Message(Box::new(Message::new(&message)?)),
            // All begin with nothing: there may be a hundred folders, and most columns stay empty.
            Kind::String => Values::Text(BinaryBuilder::with_capacity(0, 0)),
            Kind::Bytes => Values::Bytes(BinaryBuilder::with_capacity(0, 0)),
            Kind::Enum(names) => Values::Enum(names, BinaryBuilder::with_capacity(0, 0)),
            Kind::Bool => Values::Bool(BooleanBuilder::with_capacity(0)),
            Kind::Int32 => Values::Int32(Int32Builder::with_capacity(0)),
            Kind::Int64 => Values::Int64(Int64Builder::with_capacity(0)),
            _ => return Err(unfit()),
        };
        Ok(Self { values, has_presence: field.supports_presence() })
    }

    fn data_type(&self) -> DataType {
        match &self.values {
            Values::Text(_) | Values::Enum(..) => DataType::Utf8,
            Values::Bytes(_) => DataType::Binary,
            Values::Bool(_) => DataType::Boolean,
            Values::Int32(_) => DataType::Int32,
            Values::Int64(_) => DataType::Int64,
            Values::Time(_) => time_type(),
            Values::Message(message) => DataType::Struct(message.names.clone()),
            Values::List { items, .. } => DataType::List(item_field(items)),
            Values::Map(_) => DataType::Map(entries_field(), false),
        }
    }

    /// Adds what was found in `message`. Returns whether the column has a place for all of it.
    fn append(&mut self, slot: Slot, message: &[u8]) -> Result<bool, Malformed> {
        match &mut self.values {
            Values::List { ends, pending, .. } => {
                ends.push(ends.last().copied().unwrap_or(0) + std::mem::take(pending));
                return Ok(true);
            }
            Values::Map(map) => {
                map.append(message);
                return Ok(true);
            }
            _ => {}
        }
        let (number, bytes) = match &slot {
            Slot::Absent if self.has_presence => {
                self.values.append_absent(1);
                return Ok(true);
            }
            Slot::Absent => (Some(0), Some(&[][..])),
            Slot::Number(number) => (Some(*number), None),
            Slot::At(at) => (None, Some(&message[at.clone()])),
            Slot::Joined(bytes) => (None, Some(&bytes[..])),
        };
        let number = number.ok_or(Malformed);
        let bytes = bytes.ok_or(Malformed);
        match &mut self.values {
            Values::Text(values) | Values::Bytes(values) => values.append_value(bytes?),
            // As any decoder does: numbers of 32 bits are cut off.
            Values::Enum(names, values) => {
                let number = number? as i32;
                match names.get_value(number) {
                    Some(value) => values.append_value(value.name()),
                    None => values.append_value(number.to_string()),
                }
            }
            Values::Bool(values) => values.append_value(number? != 0),
            Values::Int32(values) => values.append_value(number? as i32),
            Values::Int64(values) => values.append_value(number? as i64),
            Values::Time(values) => {
                let (micros, exact) = micros(bytes?)?;
                values.append_option(micros);
                return Ok(exact);
            }
            Values::Message(message) => return message.append(bytes?, None),
            Values::List { .. } | Values::Map(_) => {}
        }
        Ok(true)
    }

    fn finish(&mut self, rows: usize) -> Result<ArrayRef, Malformed> {
        let array: ArrayRef = match &mut self.values {
            Values::Text(values) | Values::Enum(_, values) => Arc::new(text(values)?),
            Values::Bytes(values) => Arc::new(values.finish()),
            Values::Bool(values) => Arc::new(values.finish()),
            Values::Int32(values) => Arc::new(values.finish()),
            Values::Int64(values) => Arc::new(values.finish()),
            Values::Time(values) => Arc::new(values.finish()),
            Values::Message(message) => Arc::new(message.finish()?),
            Values::List { ends, items, .. } => {
                let field = item_field(items);
                let offsets = offsets(ends);
                let items = Arc::new(items.finish()?);
                Arc::new(ListArray::try_new(field, offsets, items, None).map_err(|_| Malformed)?)
            }
            Values::Map(map) => Arc::new(map.finish()?),
        };
        debug_assert_eq!(array.len(), rows);
        Ok(array)
    }
}

impl Values {
    /// Adds rows that have nothing.
    fn append_absent(&mut self, rows: usize) {
        let repeat_end = |ends: &mut Vec<i32>| {
            let end = ends.last().copied().unwrap_or(0);
            ends.resize(ends.len() + rows, end);
        };
        match self {
            Self::Text(values) | Self::Bytes(values) | Self::Enum(_, values) => {
                values.append_nulls(rows);
            }
            Self::Bool(values) => values.append_nulls(rows),
            Self::Int32(values) => values.append_nulls(rows),
            Self::Int64(values) => values.append_nulls(rows),
            Self::Time(values) => values.append_nulls(rows),
            Self::Message(message) => message.absent += rows,
            Self::List { ends, .. } => repeat_end(ends),
            Self::Map(map) => repeat_end(&mut map.ends),
        }
    }
}

impl Map {
    /// Adds the entries that were found in `message`, each key once.
    fn append(&mut self, message: &[u8]) {
        let key = |entry: &Entry| &message[entry.0.clone()];
        if !self.entries.is_sorted_by(|one, next| key(one) < key(next)) {
            // Of a key that came twice the last value counts. Sorting keeps the order of equals.
            self.entries.sort_by(|one, other| key(one).cmp(key(other)));
            self.entries.reverse();
            self.entries.dedup_by(|next, kept| key(next) == key(kept));
            self.entries.reverse();
        }
        for (key, value) in &self.entries {
            self.keys.append_value(&message[key.clone()]);
            self.values.append_value(&message[value.clone()]);
        }
        let added = i32::try_from(self.entries.len()).unwrap_or(i32::MAX);
        self.ends.push(self.ends.last().copied().unwrap_or(0) + added);
        self.entries.clear();
    }

    fn finish(&mut self) -> Result<MapArray, Malformed> {
        let entries: Vec<ArrayRef> =
            vec![Arc::new(text(&mut self.keys)?), Arc::new(text(&mut self.values)?)];
        let fields = entry_fields();
        let entries = StructArray::try_new(fields, entries, None).map_err(|_| Malformed)?;
        let offsets = offsets(&mut self.ends);
        MapArray::try_new(entries_field(), offsets, entries, None, false).map_err(|_| Malformed)
    }
}

fn item_field(items: &Message) -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Struct(items.names.clone()), true))
}

fn entry_fields() -> Fields {
    vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)].into()
}

fn entries_field() -> Arc<Field> {
    Arc::new(Field::new("key_value", DataType::Struct(entry_fields()), false))
}

/// From where each list ends to what Arrow wants.
fn offsets(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let ends = std::mem::take(ends);
    let offsets: ScalarBuffer<i32> = std::iter::once(0).chain(ends).collect();
    OffsetBuffer::new(offsets)
}

fn text(values: &mut BinaryBuilder) -> Result<StringArray, Malformed> {
    StringArray::try_from_binary(values.finish()).map_err(|_| Malformed)
}

/// The time of a `google.protobuf.Timestamp` in microseconds since 1970, rounded down, and
/// whether that is exactly it; none where it is out of reach.
fn micros(bytes: &[u8]) -> Result<(Option<i64>, bool), Malformed> {
    let (mut seconds, mut nanos, mut complete) = (0_i64, 0_i32, true);
    let mut rest = bytes;
    while !rest.is_empty() {
        match decode_key(&mut rest)? {
            (TIMESTAMP_SECONDS, WireType::Varint) => seconds = decode_varint(&mut rest)? as i64,
            (TIMESTAMP_NANOS, WireType::Varint) => nanos = decode_varint(&mut rest)? as i32,
            (number, wire_type) => {
                skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
                complete = false;
            }
        }
    }
    let micros = seconds
        .checked_mul(1_000_000)
        .and_then(|micros| micros.checked_add(i64::from(nanos.div_euclid(1_000))));
    Ok((micros, complete && micros.is_some() && nanos % 1_000 == 0))
}
