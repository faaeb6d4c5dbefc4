"""The batch jobs: the whole topic, or a span of it, as a table."""

import dataclasses

from pyspark.sql import Observation
from pyspark.sql import functions as F

from herald_spark import events, files, filters, sessions
from herald_spark.problems import Problem

# What `--out` is followed by where records are put that are no events.
UNDECODABLE = ".undecodable"

# What the table that is shown has of an event.
SHOWN = {
    "append_time": "append_time",
    "event_type": "event_type",
    "player_id": "player_id",
    "guild_id": "guild_id",
    "item_id": "coalesce(item_purchased.item_id, item_granted.item_id, item_consumed.item_id,"
    " purchase_refunded.item_id)",
    "quantity": "coalesce(item_purchased.quantity, item_granted.quantity, item_consumed.quantity,"
    " purchase_refunded.quantity)",
    "total_price": "coalesce(item_purchased.total_price, purchase_refunded.total_price)",
    "headers": "origin.headers",
}


# The counts of a span with no records in it.
NOTHING = {"records": 0, "undecodable": 0, "duplicates": 0}


@dataclasses.dataclass
class Source:
    """Where events come from. `records` is None where it is files, whose rows are taken as they
    are; otherwise a frame of judged records."""

    events: object
    records: object = None
    span: object = None
    topic: object = None


def from_topic(topic, first, end, descriptor_set):
    """Every event of a span once. What lies before it is read too, as far as the rule of
    duplicates may ask for it."""
    span = topic.span(first, end)
    sessions.size_shuffles(topic.spark, span.records())
    wide = span.back(events.REACH)
    records = events.judged(events.decoded(topic.read(wide), descriptor_set))
    if wide != span:
        records = records.where(within(span))
    return Source(events_in(records, descriptor_set), records, span, topic)


def from_files(spark, folders):
    """What `extract`, `stream` or `herald export` have written."""
    frame = spark.read.option("mergeSchema", "true").parquet(*folders)
    needed = {"event_id", "event_type", "partition", "offset", "append_time"}
    if missing := needed - set(frame.columns):
        raise Problem(
            f"{', '.join(folders)}: no column {', '.join(sorted(missing))}; give folders that "
            "`extract`, `stream` or `herald export` have written"
        )
    return Source(frame)


def within(span):
    """Whether a record is in the span itself, and not only read for it."""
    first = [F.lit(each) for pair in span.first.items() for each in pair]
    return F.col("offset") >= F.create_map(*first)[F.col("partition")]


def events_in(records, descriptor_set):
    return events.columns(records.where("is_event AND NOT is_duplicate"), descriptor_set)


def counts():
    """What an observation counts of judged records."""
    return [
        F.count(F.lit(1)).alias("records"),
        F.coalesce(F.sum(F.expr("int(NOT is_event)")), F.lit(0)).alias("undecodable"),
        F.coalesce(F.sum(F.expr("int(is_event AND is_duplicate)")), F.lit(0)).alias("duplicates"),
    ]


def extract(source, out, mode, layout, descriptor_set, change):
    """Writes what `change` makes of the events, and beside it what is no event. Returns counts."""
    if source.records is None or not source.span.records():
        files.write(change(source.events), out, mode, layout)
        return NOTHING if source.span else {}
    seen = Observation()
    records = source.records.observe(seen, *counts())
    files.write(change(events_in(records, descriptor_set)), out, mode, layout)
    found = seen.get
    side = str(out).rstrip("/") + UNDECODABLE
    if found["undecodable"]:
        strange = events.decoded(source.topic.read(source.span), descriptor_set)
        strange = strange.where("NOT is_event").select(*events.UNDECODABLE)
        files.write(strange, side, "append" if mode == "append" else "overwrite")
    elif mode == "overwrite":
        files.Folder(source.topic.spark, side).remove()
    return found


def told(source, found, out):
    """What came of a job, for people: also what did not come."""
    span = source.span
    offsets = span.records()
    lines = [f"the topic {source.topic.name} has {offsets} offsets from {place(span)}"]
    gone = sum(span.oldest.values())
    if not offsets:
        why = (
            f"; retention has removed all {gone} records before them"
            if gone and sum(span.end.values()) == gone
            else "; nothing was written to it there"
        )
        lines[0] += f": no records{why}"
    kept = found["records"] - found["undecodable"] - found["duplicates"]
    lines.append(
        f"{found['records']} records came: {kept} events, {found['duplicates']} duplicates left "
        f"out, {found['undecodable']} no events"
        + (f", which are in {out}{UNDECODABLE}" if found["undecodable"] and out else "")
    )
    if found["records"] < offsets:
        lines.append(
            f"{offsets - found['records']} of the offsets gave no record: retention has removed "
            "them meanwhile, or they are what transactions leave in a log"
        )
    if gone and offsets:
        lines.append(f"retention had removed {gone} records of the topic before")
    return lines


def place(span):
    parts = [f"{p}: {span.first[p]} to {span.end[p]}" for p in sorted(span.first)]
    return f"the partitions {'; '.join(parts)}"


def show(frame, rows):
    """The first rows of the log's order by time, as a table."""
    shown = [F.expr(text).alias(name) for name, text in SHOWN.items()]
    order = ["append_time", "partition", "offset"]
    frame.orderBy(*order).select(*shown).show(rows, truncate=False)


def side_by_side(source, change):
    """Records as they are in the topic, their time, and what the jobs make of them."""
    kept = source.records.where("is_event AND NOT is_duplicate") if source.records else None
    changed = change(source.events)
    munged = changed.select(
        "partition", "offset", "append_time", filters.as_json(changed).alias("munged")
    )
    if kept is None:
        before = source.events
        raw = before.select("partition", "offset", filters.as_json(before).alias("raw"))
    else:
        raw = kept.select("partition", "offset", F.base64("value").alias("raw"))
    both = munged.join(raw, ["partition", "offset"])
    return both.orderBy("append_time", "partition", "offset").select(
        "raw", F.col("append_time").alias("timestamp"), "munged"
    )
