"""The command line of the jobs."""

import argparse
import os
import sys

from herald_spark.problems import Problem

# Ends with these, as herald does.
FAILED = 1
WRONG_USAGE = 2

DESCRIPTION = """Jobs on Herald's topic with Spark. `scripts/spark JOB` runs them with everything
set up; docs/spark.md says which is for what."""


def pairs(texts, flag):
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise Problem(f"{flag} takes KEY=VALUE, not {text!r}")
        found[name] = value
    return found


def add_topic(parser):
    group = parser.add_argument_group("the topic")
    env = os.environ.get
    group.add_argument(
        "--kafka-brokers",
        default=env("HERALD_KAFKA_BROKERS"),
        metavar="BROKERS",
        help='the Kafka: "host:port", several separated by commas [env: HERALD_KAFKA_BROKERS]',
    )
    group.add_argument(
        "--topic", default=env("HERALD_TOPIC") or "game-events", help="game-events unless told"
    )
    group.add_argument(
        "--kafka-config",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a property of Kafka's Java consumer, such as security.protocol=SASL_SSL",
    )
    group.add_argument(
        "--kafka-config-file", metavar="FILE", help="a file of them; the place for passwords"
    )
    group.add_argument(
        "--descriptor-set",
        default=env("HERALD_DESCRIPTOR_SET"),
        metavar="FILE",
        help="what `herald schema --descriptor-set` has written [env: HERALD_DESCRIPTOR_SET]",
    )


def add_span(parser):
    parser.add_argument(
        "--from", dest="first", default="earliest", metavar="PLACE",
        help="earliest, now, a time such as 2026-11-21T10:00:00Z, or how long ago, such as 15m",
    )  # fmt: skip
    parser.add_argument(
        "--to", dest="end", default="now", metavar="PLACE", help="the same; now is the end"
    )


def add_filters(parser):
    group = parser.add_argument_group("which events")
    for name, what in (
        ("type", "of this type, such as item_purchased"),
        ("player", "of this player"),
        ("guild", "that name this guild"),
        ("item", "with this item"),
    ):
        group.add_argument(
            f"--{name}", action="append", default=[], help=f"only events {what}; can be repeated"
        )


def add_table(parser, out_is_needed):
    group = parser.add_argument_group("the table")
    group.add_argument(
        "--out", required=out_is_needed, metavar="FOLDER", help="where to: a folder, or hdfs://…"
    )
    group.add_argument(
        "--mode", choices=["error", "append", "overwrite"], default="error",
        help="what to do with files that are there; error unless told",
    )  # fmt: skip
    group.add_argument(
        "--layout", choices=["flat", "hive"], default="flat",
        help="all files in one folder, or date=…/event_type=…",
    )  # fmt: skip
    group.add_argument(
        "--set-header", action="append", default=[], metavar="NAME=VALUE",
        help="rewrite this header of each event, or add it; can be repeated",
    )  # fmt: skip
    group.add_argument(
        "--show-raw", action="store_true",
        help="show the record, its time and what was made of it side by side",
    )  # fmt: skip
    group.add_argument("--rows", type=int, default=20, help="how many are shown; 20 unless told")


def parser():
    whole = argparse.ArgumentParser(prog="herald_spark", description=DESCRIPTION)
    jobs = whole.add_subparsers(dest="job", required=True, metavar="JOB")

    extract = jobs.add_parser("extract", help="the whole topic, or a span of it, as Parquet")
    add_span(extract)
    add_table(extract, out_is_needed=True)
    add_topic(extract)

    choose = jobs.add_parser("filter", help="some of the events: shown, and as Parquet")
    choose.add_argument(
        "--input", action="append", metavar="FOLDER",
        help="of files that were extracted before, instead of the topic; can be repeated",
    )  # fmt: skip
    add_span(choose)
    add_filters(choose)
    add_table(choose, out_is_needed=False)
    add_topic(choose)

    stream = jobs.add_parser("stream", help="what is new, exactly once, for ever or until the end")
    stream.add_argument("--out", required=True, metavar="FOLDER")
    stream.add_argument(
        "--checkpoint", required=True, metavar="FOLDER", help="where it keeps its place"
    )
    stream.add_argument(
        "--from", dest="first", default="earliest", metavar="PLACE", help="for the first run only"
    )
    stream.add_argument(
        "--available-now", action="store_true", help="end when all is read that is there now"
    )
    stream.add_argument(
        "--every", default="10 seconds", metavar="TIME",
        help='how often there is a batch otherwise; "10 seconds" unless told',
    )  # fmt: skip
    stream.add_argument(
        "--batch-records", type=int, default=500_000, help="the most in a batch; 500000 unless told"
    )
    stream.add_argument(
        "--if-expired", choices=["fail", "earliest"], default="fail",
        help="what to do when retention has removed what comes next",
    )  # fmt: skip
    add_topic(stream)

    report = jobs.add_parser("report", help="purchases, guilds and players as pictures and a page")
    report.add_argument("--input", action="append", metavar="FOLDER", help="as of filter")
    report.add_argument("--out", required=True, metavar="FOLDER", help="a folder of this machine")
    report.add_argument(
        "--every", metavar="TIME", help="the step in time, such as 5m or 1d; by itself unless told"
    )
    report.add_argument("--top", type=int, default=10, help="how many of each; 10 unless told")
    add_span(report)
    add_topic(report)
    return whole


def topic_of(spark, options):
    from herald_spark import topics

    if not options.kafka_brokers:
        raise Problem("which Kafka? give --kafka-brokers, or set HERALD_KAFKA_BROKERS")
    config = {}
    if options.kafka_config_file:
        with open(options.kafka_config_file, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
        config = pairs([each for each in lines if each and each[0] != "#"], "--kafka-config-file")
    config.update(pairs(options.kafka_config, "--kafka-config"))
    return topics.Topic(spark, options.kafka_brokers, options.topic, config)


def descriptor_set_of(options):
    path = options.descriptor_set
    if not path or not os.path.isfile(path):
        raise Problem(
            "what do the records hold? give --descriptor-set a file that "
            "`herald schema --descriptor-set --out game.desc` has written"
        )
    return os.path.abspath(path)


def source_of(spark, options):
    from herald_spark import batch

    if getattr(options, "input", None):
        return batch.from_files(spark, options.input)
    descriptor_set = descriptor_set_of(options)
    return batch.from_topic(topic_of(spark, options), options.first, options.end, descriptor_set)


def run_batch(spark, options):
    from herald_spark import batch, filters

    headers = filters.headers_of(options.set_header)
    source = source_of(spark, options)

    def change(frame):
        if options.job == "filter":
            frame = filters.chosen(
                frame, options.type, options.player, options.guild, options.item
            )
        return filters.with_headers(frame, headers)

    if options.out:
        found = batch.extract(
            source, options.out, options.mode, options.layout, options.descriptor_set, change
        )
        if found:
            say(*batch.told(source, found, options.out))
    elif source.span and not source.span.records():
        say(*batch.told(source, batch.NOTHING, None))
    if options.show_raw:
        batch.side_by_side(source, change).show(options.rows, truncate=False)
    elif options.job == "filter":
        batch.show(change(source.events), options.rows)


def run_stream(spark, options):
    from herald_spark.stream import Stream

    descriptor_set = descriptor_set_of(options)
    topic = topic_of(spark, options)
    stream = Stream(topic, descriptor_set, options.out, options.checkpoint)
    trigger = {"availableNow": True} if options.available_now else {"processingTime": options.every}
    query = stream.start(
        options.first, trigger, options.batch_records, options.if_expired == "earliest"
    )
    say(f"reading {topic.name} into {options.out}")
    query.awaitTermination()


def run_report(spark, options):
    from herald_spark import report

    source = source_of(spark, options)
    page = report.report(source.events, options.out, options.every, options.top)
    say(f"wrote {page}")


def say(*lines):
    for line in lines:
        print(f"herald_spark: {line}", file=sys.stderr, flush=True)


RUN = {"extract": run_batch, "filter": run_batch, "stream": run_stream, "report": run_report}


def main(arguments=None):
    options = parser().parse_args(arguments)
    from herald_spark import sessions

    try:
        spark = sessions.session(options.job)
        try:
            RUN[options.job](spark, options)
        finally:
            spark.stop()
    except Problem as problem:
        say(str(problem))
        return FAILED
    except KeyboardInterrupt:
        return 130
    return 0
