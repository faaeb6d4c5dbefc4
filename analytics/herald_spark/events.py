"""Records as events: the columns of `herald export`, and which records are duplicates.

The columns come from the schema, by `from_protobuf` and the descriptor set that
`herald schema --descriptor-set` prints. A record that is no event never fails a job: it has no
columns, and is told apart by `is_event`.
"""

from pyspark.sql import Window
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.protobuf.functions import from_protobuf, to_protobuf

MESSAGE = "game.v1.GameEvent"

# How far back a duplicate may lie in its partition, in offsets (`checked_through_offset` in
# game.proto).
REACH = 65_536

# The default of enums, by the path of the column: Spark has them as text, and absent ones as
# null. A test compares this with the schema.
ENUM_DEFAULTS = {"origin.transport": "TRANSPORT_UNSPECIFIED"}

# What Spark calls the value of an enum that the schema does not know.
UNKNOWN_ENUM = "UNKNOWN_ENUM_VALUE_"

UUID = "(?i)^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


def decoded(records, descriptor_set):
    """The records with `event`, which is what `from_protobuf` makes of their value, and
    `is_event`: an event has an id and a type. A payload that the schema does not know is one.
    """
    event = from_protobuf("value", MESSAGE, descriptor_set, {"mode": "PERMISSIVE"})
    # Values that are no message give a row of nulls, empty ones too; no value gives null.
    is_event = F.col("event.event_id").isNotNull() & F.col("event.event_type").isNotNull()
    return records.withColumn("event", event).withColumn("is_event", is_event)


def reach():
    """The first offset at which an earlier event makes a duplicate of this one."""
    checked = F.coalesce(F.col("event.checked_through_offset"), F.lit(0))
    return F.greatest(checked, F.col("offset") - REACH, F.lit(0))


def judged(records):
    """Decoded records with `is_duplicate`.

    The rule: the record at offset o whose writer had looked through c is a duplicate if and only
    if the same event id lies earlier in its partition, at max(c, o - 65,536) or behind that. Of
    all earlier ones the nearest is the last to fall out of that range, so that it alone decides.

    It is right for each record whose range is among `records`, or gone from the log.
    """
    written = F.col("event.event_id")
    # A UUID in capitals is the same UUID. What is no event is alone.
    same = F.when(written.rlike(UUID), F.lower(written)).otherwise(written)
    alone = F.concat(F.lit("\0"), F.col("offset").cast("string"))
    records = records.withColumn("_same", F.when(F.col("is_event"), same).otherwise(alone))
    nearest = F.lag("offset").over(Window.partitionBy("partition", "_same").orderBy("offset"))
    return (
        records.withColumn("_nearest", nearest)
        .withColumn("is_duplicate", F.coalesce(F.col("_nearest") >= reach(), F.lit(False)))
        .drop("_same", "_nearest")
    )


def columns(records, descriptor_set):
    """The columns of `herald export` of decoded records that are events."""
    event = records.schema["event"].dataType
    fields = [
        defaults(F.col(f"event.{field.name}"), field.dataType, field.name).alias(field.name)
        for field in event
    ]
    # Null where the event has no payload that names one.
    guilds = [
        F.when(F.col(f"event.{name}").isNotNull(), F.coalesce(F.col(f"event.{name}.guild_id"), F.lit("")))
        for name in [field.name for field in event if has(event, [field.name, "guild_id"])]
    ]
    return records.select(
        *fields,
        F.coalesce(*guilds).alias("guild_id"),
        raw_value(event, descriptor_set).alias("raw_value"),
        "partition",
        "offset",
        "append_time",
    )


def raw_value(event, descriptor_set):
    """The record's bytes, where the columns do not hold all of it.

    Spark leaves out fields that the schema does not know, and says nothing of it. What is not the
    same bytes when it is written again had something more, or was written in another order.
    """
    # It cannot write the name that it gives to an unknown value of an enum.
    strange = [
        F.col(f"event.{path}").startswith(UNKNOWN_ENUM)
        for path in ENUM_DEFAULTS
        if has(event, path.split("."))
    ]
    is_strange = F.lit(False)
    for each in strange:
        is_strange = is_strange | F.coalesce(each, F.lit(False))
    again = F.when(~is_strange, to_protobuf("event", MESSAGE, descriptor_set))
    return F.when(~again.eqNullSafe(F.col("value")), F.col("value"))


def has(struct, path):
    """Whether there is such a field."""
    name, *rest = path
    if not isinstance(struct, T.StructType) or name not in struct.names:
        return False
    return not rest or has(struct[name].dataType, rest)


def defaults(column, kind, path):
    """A column as proto3 means it. Spark has null where a number or a text is not on the wire,
    which is how the default is written. Messages, and times as such, may be absent.
    """
    if isinstance(kind, T.StructType):
        inner = [
            defaults(column[field.name], field.dataType, f"{path}.{field.name}").alias(field.name)
            for field in kind
        ]
        return F.when(column.isNotNull(), F.struct(*inner))
    if isinstance(kind, T.ArrayType):
        each = F.transform(column, lambda item: defaults(item, kind.elementType, path))
        return F.coalesce(each, F.array().cast(kind))
    if isinstance(kind, T.MapType):
        each = F.transform_values(column, lambda _, value: defaults(value, kind.valueType, path))
        return F.coalesce(each, F.create_map().cast(kind))
    if isinstance(kind, T.TimestampType):
        return column
    if path in ENUM_DEFAULTS:
        # As a number, where the schema has no name for it.
        number = F.regexp_extract(column, f"^{UNKNOWN_ENUM}.*_(-?[0-9]+)$", 1)
        named = F.when(column.startswith(UNKNOWN_ENUM), number).otherwise(column)
        return F.coalesce(named, F.lit(ENUM_DEFAULTS[path]))
    if isinstance(kind, T.StringType):
        return F.coalesce(column, F.lit(""))
    if isinstance(kind, T.BinaryType):
        return F.coalesce(column, F.lit(b""))
    if isinstance(kind, T.BooleanType):
        return F.coalesce(column, F.lit(False))
    return F.coalesce(column, F.lit(0).cast(kind))


UNDECODABLE = ["partition", "offset", "append_time", "key", "value"]
