"""The walk through Spark and HDFS in the README does what it says."""

import os
import sys
import uuid

import running
from given import given
from readme import README, block_of, check, run, statements_of

# The whole block: Spark starts four times.
SECONDS = 600

SCRIPT = """#!/bin/sh
exec {script} "$@" {more}
"""


def test_the_walk_through_spark_does_what_it_says(tmp_path):
    kafka, hdfs = given("kafka", "--sasl", needs="brokers"), given("hdfs", needs="url")
    given("spark", needs="jars")
    statements = statements_of(block_of(README, "## In Spark"))
    assert all(expected for _, expected in statements), "each command says what comes out"
    commands = tmp_path / "bin"
    (commands / "scripts").mkdir(parents=True)
    (commands / "herald").symlink_to(running.binary())
    # With what the walk asks for, DuckDB.
    (commands / "python3").write_text(SCRIPT.format(script=sys.executable, more=""))
    # The file system of the tests is not where the script looks.
    for name, more in (("spark", ""), ("hdfs", f"--dir {hdfs['dir']}")):
        script = running.REPOSITORY / "scripts" / name
        (commands / "scripts" / name).write_text(SCRIPT.format(script=script, more=more))
    for each in (commands / "python3", *(commands / "scripts").iterdir()):
        each.chmod(0o755)
    topic = f"walk-{uuid.uuid4()}"
    environment = running.environment() | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "HERALD_KAFKA_BROKERS": kafka["brokers"],
        "HERALD_TOPIC": topic,
        "HDFS": f"{hdfs['url']}/{topic}",
        "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }
    log = ["--kafka-brokers", kafka["brokers"], "--topic", topic]
    with running.Server(log) as server:
        environment["HERALD_SERVER"] = server.url
        here = [(t.replace("scripts/", f"{commands}/scripts/"), says) for t, says in statements]
        check(here, run(here, tmp_path, environment, SECONDS))
