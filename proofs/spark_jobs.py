"""The jobs of `scripts/spark`, as whole processes, and how what they write is compared."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time

import duckdb
import pyspark

import checks
import running

# How long a job may take. Far more than is needed.
SECONDS = 1_800

# How long a part of a cluster may take to start. Far more than is needed.
START_SECONDS = 120

# Where little is done, so that nothing is compiled twice.
QUICK_START = {"JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}

# For jobs on a cluster that is on this machine.
ON_LOOPBACK = {
    "SPARK_LOCAL_IP": "127.0.0.1",
    "SPARK_OPTIONS": "--conf spark.driver.host=127.0.0.1 --conf spark.ui.enabled=false",
}


def command(job, *arguments):
    return [str(word) for word in (running.REPOSITORY / "scripts" / "spark", job, *arguments)]


def environment():
    return running.environment() | {"HERALD_BIN": running.binary()}


@contextlib.contextmanager
def cluster(folder):
    """A standalone cluster of Spark, with one worker: yields what jobs are given besides."""
    spark_class = pathlib.Path(pyspark.__file__).parent / "bin" / "spark-class"
    folder.mkdir()
    with contextlib.ExitStack() as later:

        def start(name, *arguments):
            """Starts a part, and returns the address that it says."""
            log = folder / name
            command = [spark_class, f"org.apache.spark.deploy.{name.lower()}.{name}", *arguments]
            command += ["--host", "127.0.0.1", "--webui-port", "0"]
            with open(log, "w") as said:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    env=os.environ | QUICK_START | {"SPARK_LOCAL_IP": "127.0.0.1"},
                    start_new_session=True,
                )
            later.callback(end, process)
            found = []

            def is_up():
                if process.poll() is not None:
                    raise RuntimeError(f"Spark's {name} has ended:\n{log.read_text()}")
                found[:] = re.findall(r"(?:at|with master) (spark://\S+)", log.read_text())
                return found

            running.wait_until(is_up, START_SECONDS, f"Spark's {name}")
            return found[0]

        master = start("Master", "--port", "0")
        start("Worker", "--cores", "2", "--memory", "1g", "--work-dir", folder / "work", master)
        yield ["--master", master]


def end(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def spark(job, *arguments, env=None):
    """Runs a job to its end: what it said, and how many seconds it took."""
    begun = time.monotonic()
    done = subprocess.run(
        command(job, *arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment() | (env or {}),
        timeout=SECONDS,
    )
    if done.returncode != 0:
        raise RuntimeError(f"scripts/spark {job} ended with {done.returncode}:\n{done.stderr}")
    return done.stderr + done.stdout, time.monotonic() - begun


def came(said):
    """What a job said of the records: how many came, and what of them were."""
    found = re.search(
        r"(\d+) records came: (\d+) events, (\d+) duplicates left out, (\d+) no events", said
    )
    return dict(zip(("records", "events", "duplicates", "undecodable"), map(int, found.groups())))


# The entries of a map have no order, to which DuckDB pays attention all the same.
ROWS = """
SELECT * EXCLUDE (origin, raw_value), origin.request_id,
    list_sort(map_entries(origin.headers)) AS headers, origin.remote_address, origin.transport,
    origin.client_context, origin IS NULL AS no_origin, md5(raw_value) AS raw_value
FROM read_parquet('{folder}/{pattern}', hive_partitioning = false)
"""


def check_same(what, one, other, pattern="**/*.parquet"):
    """Two folders have the same rows, each as often: returns how many. DuckDB looks."""
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        for name, folder, files in (("a", one, pattern), ("b", other, "**/*.parquet")):
            database.execute(f"CREATE VIEW {name} AS " + ROWS.format(folder=folder, pattern=files))
        columns = [database.execute(f"DESCRIBE {name}").fetchall() for name in "ab"]
        if [c[:2] for c in columns[0]] != [c[:2] for c in columns[1]]:
            raise checks.Broken(f"{what}: the columns are {columns[0]} and {columns[1]}")
        for left, right in ("ab", "ba"):
            found = database.execute(f"FROM {left} EXCEPT ALL FROM {right} LIMIT 2").fetchall()
            if found:
                raise checks.Broken(f"{what}: only in {left}: {found}")
        return database.execute("SELECT count(*) FROM a").fetchone()[0]


def places(folder, pattern="**/*.parquet"):
    """Partition and offset of each row."""
    question = f"""SELECT "partition", "offset"
        FROM read_parquet('{folder}/{pattern}', hive_partitioning = false)"""
    with duckdb.connect() as database:
        return database.execute(question).fetchall()
