"""An interactive session: `spark`, and the frame `events` of the topic, cached; also as the table
`events` for spark.sql("SELECT … FROM events").
"""

import argparse
import sys

from pyspark.sql import functions as F  # noqa: F401 (for who types)

from herald_spark import batch, cli, filters, sessions  # noqa: F401
from herald_spark.problems import Problem


def options_of(arguments):
    parser = argparse.ArgumentParser(prog="scripts/spark shell")
    parser.add_argument("--input", action="append", metavar="FOLDER", help="files, not the topic")
    cli.add_span(parser)
    cli.add_topic(parser)
    return parser.parse_args(arguments)


try:
    options = options_of(sys.argv[1:])
    spark = sessions.session("shell")
    events = cli.source_of(spark, options).events.cache()
    events.createOrReplaceTempView("events")
    print(f"{events.count()} events, in `events` and as a table; for instance:")
    print("  events.where(\"event_type = 'item_purchased'\").show()")
    print("  filters.chosen(events, items=['sword']).count()")
    print('  spark.sql("SELECT event_type, count(*) FROM events GROUP BY 1").show()')
except Problem as problem:
    cli.say(str(problem))
