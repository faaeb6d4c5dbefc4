"""Tables in files, compared by DuckDB."""

import duckdb


def source(folder, pattern="**/*.parquet"):
    return f"read_parquet('{folder}/{pattern}', hive_partitioning = false)"


def database():
    found = duckdb.connect()
    found.execute("SET TimeZone = 'UTC'")
    return found


def rows(folder, question="SELECT * FROM events", pattern="**/*.parquet"):
    with database() as db:
        db.execute(f"CREATE VIEW events AS SELECT * FROM {source(folder, pattern)}")
        return db.execute(question).fetchall()


def columns(folder, pattern="**/*.parquet"):
    """Names and types."""
    return [row[:2] for row in rows(folder, "DESCRIBE events", pattern)]


# The entries of a map have no order, to which DuckDB pays attention all the same.
# Where both have the record itself it is the same; Spark has it more often.
EACH = """* EXCLUDE (origin, raw_value), origin.request_id, list_sort(map_entries(origin.headers)) AS headers,
    origin.remote_address, origin.transport, origin.client_context, origin IS NULL AS no_origin"""


def differences(one, other, pattern="**/*.parquet"):
    """The rows that are in one alone, and in the other alone; and how many are in both."""
    assert columns(one, pattern) == columns(other)
    with database() as db:
        db.execute(f"CREATE VIEW a AS SELECT {EACH} FROM {source(one, pattern)}")
        db.execute(f"CREATE VIEW b AS SELECT {EACH} FROM {source(other)}")
        return (
            db.execute("FROM a EXCEPT ALL FROM b").fetchall(),
            db.execute("FROM b EXCEPT ALL FROM a").fetchall(),
            db.execute("SELECT count(*) FROM (FROM a INTERSECT ALL FROM b)").fetchone()[0],
        )


def check_same(one, other, count=None, pattern="**/*.parquet"):
    """Both have the same rows: `count` of them, and some in any case."""
    only_one, only_other, both = differences(one, other, pattern)
    assert not only_one and not only_other, f"{only_one[:2]} and {only_other[:2]}"
    assert both and count in (None, both), f"{both} rows, not {count}"
    return both


def records_kept(folder, pattern="**/*.parquet"):
    """Of which places there is the record itself."""
    question = "SELECT partition, \"offset\", raw_value FROM events WHERE raw_value IS NOT NULL"
    return {row[:2]: row[2] for row in rows(folder, question, pattern)}
