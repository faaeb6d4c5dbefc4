"""The speed layer: what is new in the topic, in files, each event exactly once.

Three things make it exact, whenever it is killed:

- Spark writes the offsets of a batch to the checkpoint before it works on it, and that it is done
  afterwards. A batch that was not done is done again, with the same number and the same offsets.
- A batch is written to a folder that no reader looks into, and gets its name, `batch_id=N`, in
  one step. Where that is there the batch was complete, and is not written again.
- Whether a record is a duplicate depends on the log alone, not on where batches begin: the rule
  asks for the offsets from max(c, o - 65,536) on. What of those lies before the batch is read
  again from the topic. That is as far as writers were behind when they wrote, as a rule a few
  hundred records, and 65,536 of a partition at the most; no state is kept for it.

The checkpoint and the folder belong together. Which they are is written down in the folder, since
with a new checkpoint the numbers begin anew.
"""

import json
import sys
import uuid

from pyspark.sql import functions as F

from herald_spark import events, files, sessions
from herald_spark.batch import UNDECODABLE
from herald_spark.problems import Problem
from herald_spark.topics import COLUMNS, Span

# Where what is not complete yet is, and the name of the checkpoint.
TEMPORARY = "_herald_temporary"
STREAM = "_herald_stream"

# So many records in a batch at the most: what one costs in memory and on disk while it is judged.
BATCH_RECORDS = 500_000


def batch_name(number):
    return f"batch_id={number}"


class Stream:
    def __init__(self, topic, descriptor_set, out, checkpoint, say=None):
        spark = topic.spark
        self.topic = topic
        self.descriptor_set = descriptor_set
        self.out = files.Folder(spark, out)
        self.side = files.Folder(spark, str(out).rstrip("/") + UNDECODABLE)
        self.checkpoint = files.Folder(spark, checkpoint)
        self.say = say or (lambda text: print(text, file=sys.stderr, flush=True))

    def prepare(self):
        """Refuses a folder and a checkpoint that do not belong together, and clears up."""
        known = self.checkpoint.has("metadata")
        name = json.loads(self.checkpoint.read("metadata"))["id"] if known else None
        written = self.out.has(STREAM)
        of = self.out.read(STREAM).strip() if written else None
        begun = known and bool(files.Folder(self.topic.spark, self.checkpoint.url("commits")).names())
        if written and of != name:
            raise Problem(
                f"{self.out.url()} was written with another checkpoint than "
                f"{self.checkpoint.url()}; give the one that belongs to it, or remove both"
            )
        if not written and (begun or any(n.startswith("batch_id=") for n in self.out.names())):
            raise Problem(
                f"{self.out.url()} and {self.checkpoint.url()} do not belong together: one of "
                "them has batches that the other does not know; remove both to start anew"
            )
        for folder in (self.out, self.side):
            folder.remove(TEMPORARY)

    def start(self, first, trigger, batch_records=BATCH_RECORDS, passes_losses=False):
        """Starts the query. `first` is for the first run only."""
        self.prepare()
        offsets = self.topic.span(first, "now").first
        reader = self.topic.spark.readStream.format("kafka").options(**self.topic.options())
        frame = (
            reader.option("subscribe", self.topic.name)
            .option("startingOffsets", self.topic.offsets(offsets))
            .option("maxOffsetsPerTrigger", batch_records)
            .option("failOnDataLoss", str(not passes_losses).lower())
            .load()
            .selectExpr(*COLUMNS)
        )
        sessions.size_shuffles(self.topic.spark, batch_records // sessions.PART_RECORDS)
        return (
            frame.writeStream.foreachBatch(self.write)
            .option("checkpointLocation", self.checkpoint.url())
            .trigger(**trigger)
            .start()
        )

    def write(self, records, number):
        """One batch, once: also when Spark asks for it again."""
        name = batch_name(number)
        if self.out.has(name):
            self.say(f"batch {number}: written before")
            return
        self.belong_together()
        records = records.persist()
        try:
            self.write_new(records, name, number)
        finally:
            records.unpersist()

    def belong_together(self):
        if not self.out.has(STREAM):
            self.out.make()
            self.out.write(STREAM, json.loads(self.checkpoint.read("metadata"))["id"] + "\n")

    def write_new(self, records, name, number):
        batch = events.decoded(records, self.descriptor_set)
        edges = batch.groupBy("partition").agg(
            F.min("offset").alias("first"),
            F.min(F.when(F.col("is_event"), events.reach())).alias("reach"),
        )
        edges = {row.partition: row for row in edges.collect()}
        first = {p: row.first for p, row in edges.items()}
        earlier = self.earlier(first, {p: row.reach for p, row in edges.items()})
        seen = batch.withColumn("_own", F.lit(True))
        if earlier is not None:
            decoded = events.decoded(earlier, self.descriptor_set)
            seen = seen.unionByName(decoded.withColumn("_own", F.lit(False)))
        own = events.judged(seen).where("_own").persist()
        try:
            kept = own.where("is_event AND NOT is_duplicate")
            strange = own.where("NOT is_event").select(*events.UNDECODABLE)
            total, no_events, duplicates = own.selectExpr(
                "count(1)", "count_if(NOT is_event)", "count_if(is_event AND is_duplicate)"
            ).first()
            # The side table first: where the batch has its name, all of it is there.
            if no_events and not self.side.has(name):
                self.publish(strange, self.side, name)
            self.publish(events.columns(kept, self.descriptor_set), self.out, name)
        finally:
            own.unpersist()
        self.say(
            f"batch {number}: {total} records, {total - no_events - duplicates} events, "
            f"{duplicates} duplicates, {no_events} no events"
        )

    def earlier(self, first, reach):
        """What lies before the batch, as far as the rule asks for it and it is still there."""
        wanted = {p: reach[p] for p in first if reach[p] is not None and reach[p] < first[p]}
        if not wanted:
            return None
        oldest = self.topic.span("earliest", "now").oldest
        start = {p: max(offset, oldest[p]) for p, offset in wanted.items()}
        span = Span(first=start, end={p: first[p] for p in wanted}, oldest=oldest)
        return self.topic.read(span, loses="passes") if span.records() else None

    def publish(self, frame, folder, name):
        # Of its own, as whoever was killed may not be quite dead.
        temporary = f"{TEMPORARY}/{uuid.uuid4()}"
        folder.make(TEMPORARY)
        files.write(frame, folder.url(temporary), "error")
        folder.rename(temporary, name)
