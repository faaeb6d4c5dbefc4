"""What Spark makes of the topic is what `herald export` makes of it, row by row.

On a real Kafka players do a bit of everything, and many buy; then somebody else writes records
that are no events, and an event twice more. `scripts/spark extract` and `herald export` read the
topic: their rows and columns are the same. So are those of each filter, for which Spark runs as a
cluster of a master and a worker. How many events a second both read is measured in the same run,
from the start of the process to its end.
"""

import pathlib
import tempfile
import time

import brokers
import checks
import export as exports
import exporting
import running
import spark_jobs

SIZES = {
    "small": {"purchases": 2_000, "mixed": 50, "filters": 1, "env": spark_jobs.QUICK_START},
    "full": {"purchases": 960_000, "mixed": 4_450, "filters": 5, "env": {}},
}

# The small size has the first one alone, in which there is one of each kind.
FILTERS = [
    ["--type=guild_joined", "--guild=owls", "--player=mixed-1", "--player=mixed-4"],
    ["--type=item_purchased"],
    ["--type=session_started"],
    ["--player=mixed-0", "--player=mixed-7", "--player=nobody"],
    ["--guild=owls"],
]


def proof(options):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with brokers.Kafka(folder / "kafka") as kafka:
            with running.Server(kafka.log(), *exports.FLAGS) as server:
                exports.fill(options, server, kafka, folder)
            log = kafka.log()
            begun = time.monotonic()
            summary = exporting.export(*log, "--out", folder / "export", "--layout", "flat")
            export_seconds = time.monotonic() - begun
            said, spark_seconds = spark_jobs.spark(
                "extract", *log, "--out", folder / "spark", env=options["env"]
            )
            found = spark_jobs.came(said)
            expected = {
                "records": summary["events"] + summary["duplicates"] + summary["foreign"],
                "events": summary["events"],
                "duplicates": exports.REPEATED,
                "undecodable": len(exports.FOREIGN),
            }
            if found != expected:
                raise checks.Broken(f"extract says {found}, and it is {expected}")
            rows = spark_jobs.check_same("extract", folder / "spark", folder / "export")
            if rows != summary["events"]:
                raise checks.Broken(f"{rows} rows of {summary['events']} events")
            with spark_jobs.cluster(folder / "cluster") as where:
                counts = {
                    " ".join(flags): compared(flags, log, folder, where, options["env"])
                    for flags in FILTERS[: options["filters"]]
                }
    seconds = {"spark": spark_seconds, "export": export_seconds}
    return {
        "counts": found,
        "rows_compared": rows,
        "filters": counts,
        "seconds": {who: round(each, 1) for who, each in seconds.items()},
        "events_per_second": {who: round(rows / each) for who, each in seconds.items()},
    }


def compared(flags, log, folder, where, env):
    """How many rows a filter gives, which are the same by both."""
    what = " ".join(flags)
    ours, theirs = folder / "spark-filter", folder / "export-filter"
    flat = ["--layout", "flat", "--mode", "overwrite", *flags]
    spark_jobs.spark(
        "filter", *where, "--input", folder / "spark", "--rows", 1, "--out", ours, *flat,
        env=spark_jobs.ON_LOOPBACK | env,
    )  # fmt: skip
    exporting.export(*log, "--out", theirs, *flat)
    rows = spark_jobs.check_same(what, ours, theirs)
    if not rows:
        raise checks.Broken(f"{what} gives nothing")
    return rows


if __name__ == "__main__":
    running.prove("spark_extract", SIZES, proof)
