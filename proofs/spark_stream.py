"""A stream that is killed at random moments writes each event exactly once.

`scripts/spark stream` reads the topic while events are written, and a killer ends it again and
again, Python and Java at once with SIGKILL: after a moment that is chosen at random, so that it
hits its start, a batch that is being written, and the time between two. Then it reads what is left
to the end. What it has written, in spite of all, is what `herald export` gives: the same rows,
each once; and so is the table of what is no event.
"""

import pathlib
import random
import subprocess
import tempfile
import time

import brokers
import checks
import export as exports
import exporting
import running
import spark_jobs

SIZES = {
    "small": {
        "kills": 2, "mixed": 10, "purchases": 300, "batch_records": 300,
        "env": spark_jobs.QUICK_START,
    },
    "full": {
        "kills": 12, "mixed": 100, "purchases": 20_000, "batch_records": 4_000, "env": {},
    },
}  # fmt: skip

# Where the random moments come from.
SEED = 20_261_129

# A kill comes at the latest so long after the first new batch of a run.
MOST_SECONDS = 4

# How long a run may take to write something. Far more than is needed.
BATCH_SECONDS = 300

# Some batches are written as fast as they can be.
OFTEN = "0 seconds"

BATCHES = "batch_id=*/*.parquet"


def batches(out):
    return {path.name for path in out.glob("batch_id=*")}


def start(flags, log, env):
    """A stream that goes on, in a process group of its own."""
    return subprocess.Popen(
        spark_jobs.command("stream", *flags, "--every", OFTEN),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=spark_jobs.environment() | env,
        start_new_session=True,
    )


def run_and_kill(flags, out, log, env, chance):
    """One run that is killed some time after it has written its first batch."""
    before = batches(out)
    with open(log, "w") as file:
        process = start(flags, file, env)
    try:

        def has_written():
            if process.poll() is not None:
                raise checks.Broken(f"the stream has ended:\n{log.read_text()}")
            return batches(out) > before

        running.wait_until(has_written, BATCH_SECONDS, "a new batch")
        time.sleep(chance.uniform(0, MOST_SECONDS))
    finally:
        spark_jobs.end(process)
    return len(batches(out) - before)


def proof(options):
    chance = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        out, side = folder / "stream", folder / "stream.undecodable"
        flags = ["--out", out, "--checkpoint", folder / "checkpoint"]
        flags += ["--batch-records", options["batch_records"]]
        with brokers.Kafka(folder / "kafka") as kafka:
            flags += kafka.log()
            written = []
            for _ in range(options["kills"]):
                with running.Server(kafka.log(), *exports.FLAGS) as server:
                    exports.fill(options, server, kafka, folder)
                written.append(run_and_kill(flags, out, folder / "said", options["env"], chance))
            with running.Server(kafka.log(), *exports.FLAGS) as server:
                exports.fill(options, server, kafka, folder)
            said, _ = spark_jobs.spark(
                "stream", *flags, "--available-now", env=options["env"]
            )
            summary = exporting.export(
                *kafka.log(), "--out", folder / "export", "--layout", "flat"
            )
            rows = spark_jobs.check_same("stream", out, folder / "export", BATCHES)
            if rows != summary["events"]:
                raise checks.Broken(f"{rows} rows of {summary['events']} events")
            undecodable = spark_jobs.places(side, BATCHES)
            if len(undecodable) != summary["foreign"] or len(set(undecodable)) != len(undecodable):
                raise checks.Broken(f"{len(undecodable)} of {summary['foreign']} no events")
            return {
                "kills": options["kills"],
                "batches_before_each_kill": written,
                "batches": len(batches(out)),
                "batches_redone": said.count("written before"),
                "rows_compared": rows,
                "duplicates": summary["duplicates"],
                "undecodable": len(undecodable),
            }


if __name__ == "__main__":
    running.prove("spark_stream", SIZES, proof)
