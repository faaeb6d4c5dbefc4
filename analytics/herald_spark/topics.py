"""Ranges of the topic, read by offsets that are known beforehand.

Spark alone would say nothing when retention has removed what it was to read: it writes an empty
table. So the bounds are asked for first, and what comes is counted against them.
"""

import contextlib
import dataclasses
import datetime
import json
import re

from herald_spark.problems import Problem

# How long Kafka may take for an answer.
ANSWER_SECONDS = 30

# What a part of a long read has at the least.
SPLIT_RECORDS = 1_000_000

COLUMNS = ["partition", "offset", "timestamp AS append_time", "key", "value"]
SCHEMA = "partition int, offset bigint, append_time timestamp, key binary, value binary"

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclasses.dataclass(frozen=True)
class Span:
    """Offsets by partition: the first one, and the one behind the last."""

    first: dict
    end: dict
    # Where retention has left off, at the time of asking.
    oldest: dict

    def records(self):
        """How many offsets lie in it: records, and what transactions leave in the log."""
        return sum(max(self.end[each] - self.first[each], 0) for each in self.first)

    def back(self, reach):
        """The same with `reach` more offsets in front, as far as they are there."""
        first = {p: max(self.oldest[p], start - reach) for p, start in self.first.items()}
        return dataclasses.replace(self, first=first)


def moment(text, now=None):
    """A time as milliseconds since 1970: RFC 3339, or how long ago, such as 15m."""
    if ago := re.fullmatch(r"(\d{1,9})([smhd])", text):
        now = now or datetime.datetime.now(datetime.timezone.utc)
        return int(now.timestamp() * 1_000) - int(ago[1]) * UNITS[ago[2]] * 1_000
    try:
        time = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise Problem(
            f"{text!r} is no place in the log: give earliest, now, a time such as "
            "2026-11-21T10:00:00Z, or how long ago, such as 15m"
        )
    return int(time.timestamp() * 1_000)


class Topic:
    """A topic, for who knows its brokers; `config` is what Kafka's consumers take."""

    def __init__(self, spark, brokers, name, config):
        self.spark = spark
        self.name = name
        self._config = {"bootstrap.servers": brokers, **config}

    def options(self):
        """What Spark's source takes."""
        return {f"kafka.{key}": value for key, value in self._config.items()}

    @contextlib.contextmanager
    def _consumer(self):
        jvm = self.spark._jvm
        properties = jvm.java.util.Properties()
        bytes_reader = "org.apache.kafka.common.serialization.ByteArrayDeserializer"
        settings = {
            "key.deserializer": bytes_reader,
            "value.deserializer": bytes_reader,
            "allow.auto.create.topics": "false",
            "default.api.timeout.ms": str(ANSWER_SECONDS * 1_000),
            **self._config,
        }
        for key, value in settings.items():
            properties.setProperty(key, value)
        consumer = jvm.org.apache.kafka.clients.consumer.KafkaConsumer(properties)
        try:
            yield consumer
        finally:
            consumer.close()

    def span(self, first="earliest", end="now"):
        """From one place to another: earliest, now, or a time by the log's clock."""
        from py4j.protocol import Py4JJavaError

        try:
            with self._consumer() as consumer:
                return self._span(consumer, first, end)
        except Py4JJavaError as error:
            cause = error.java_exception
            raise Problem(
                f"the topic {self.name} at {self._config['bootstrap.servers']} cannot be read: "
                f"{cause.getMessage() or cause.toString()}"
            ) from None

    def _span(self, consumer, first, end):
        jvm = self.spark._jvm
        found = consumer.partitionsFor(self.name)
        if not found:
            raise Problem(
                f"there is no topic {self.name} at {self._config['bootstrap.servers']}; "
                "`herald serve` makes it when it starts"
            )
        places = jvm.java.util.ArrayList()
        for each in found:
            places.add(jvm.org.apache.kafka.common.TopicPartition(self.name, each.partition()))
        # The ends first: what is asked for a time later may lie behind them, never before.
        ends = by_partition(consumer.endOffsets(places))
        oldest = by_partition(consumer.beginningOffsets(places))

        def offsets(text):
            if text in ("earliest", "now"):
                return oldest if text == "earliest" else ends
            times = jvm.java.util.HashMap()
            for place in places:
                times.put(place, jvm.java.lang.Long(moment(text)))
            at = consumer.offsetsForTimes(times)
            found = {place.partition(): at.get(place) for place in places}
            return {p: ends[p] if at is None else at.offset() for p, at in found.items()}

        # A later answer may know of more records than an earlier one.
        last = {p: min(offset, ends[p]) for p, offset in offsets(end).items()}
        return Span(
            first={p: min(offset, last[p]) for p, offset in offsets(first).items()},
            end=last,
            oldest=oldest,
        )

    def read(self, span, loses="fails"):
        """The records of a span as a frame. `loses="passes"`: also where retention is faster."""
        ranges = {p: (first, span.end[p]) for p, first in span.first.items() if first < span.end[p]}
        if not ranges:
            return self.spark.createDataFrame([], SCHEMA)
        partitions = sorted(ranges)
        records = sum(end - first for first, end in ranges.values())
        reader = self.spark.read.format("kafka").options(**self.options())
        return (
            reader.option("assign", json.dumps({self.name: partitions}))
            .option("startingOffsets", self.offsets({p: ranges[p][0] for p in partitions}))
            .option("endingOffsets", self.offsets({p: ranges[p][1] for p in partitions}))
            .option("minPartitions", max(len(partitions), records // SPLIT_RECORDS))
            .option("failOnDataLoss", str(loses == "fails").lower())
            .load()
            .selectExpr(*COLUMNS)
        )

    def offsets(self, by_number):
        """As Spark's source takes them."""
        return json.dumps({self.name: {str(p): offset for p, offset in by_number.items()}})


def by_partition(offsets):
    """Of a Java map by partitions."""
    return {place.partition(): offsets.get(place) for place in offsets.keySet()}
