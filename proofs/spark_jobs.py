"""The jobs of `scripts/spark`, as whole processes, and how what they write is compared."""

import re
import subprocess
import time

import duckdb

import checks
import running

# How long a job may take. Far more than is needed.
SECONDS = 1_800


def command(job, *arguments):
    return [str(word) for word in (running.REPOSITORY / "scripts" / "spark", job, *arguments)]


def environment():
    return running.environment() | {"HERALD_BIN": running.binary()}


def spark(job, *arguments):
    """Runs a job to its end: what it said, and how many seconds it took."""
    begun = time.monotonic()
    done = subprocess.run(
        command(job, *arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
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
