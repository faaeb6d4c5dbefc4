"""An interactive session: `spark`, and the frame `events` of the topic, cached; also as the table
`events` for spark.sql("SELECT … FROM events").
"""

import argparse
import code
import rlcompleter
import sys

from pyspark.sql import functions as F

from herald_spark import batch, cli, filters, sessions
from herald_spark.problems import Problem

EXAMPLES = """
  events.where("event_type = 'item_purchased'").show()
  filters.chosen(events, items=['sword']).count()
  spark.sql("SELECT event_type, count(*) FROM events GROUP BY 1").show()
"""


def options_of(arguments):
    parser = argparse.ArgumentParser(prog="scripts/spark shell")
    parser.add_argument("--input", action="append", metavar="FOLDER", help="files, not the topic")
    cli.add_span(parser)
    cli.add_topic(parser)
    return parser.parse_args(arguments)


def complete_by_tab(names):
    try:
        import readline
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")


def interact(spark, options):
    """Takes statements until there are no more."""
    events = cli.source_of(spark, options).events.cache()
    events.createOrReplaceTempView("events")
    banner = f"{events.count()} events, in `events` and as a table; for instance:{EXAMPLES}"
    names = {"spark": spark, "events": events, "F": F, "filters": filters, "batch": batch}
    complete_by_tab(names)
    code.interact(banner, local=names, exitmsg="")


def main(arguments):
    options = options_of(arguments)
    spark = sessions.session("shell")
    try:
        interact(spark, options)
    except Problem as problem:
        cli.say(str(problem))
        return cli.FAILED
    finally:
        spark.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
