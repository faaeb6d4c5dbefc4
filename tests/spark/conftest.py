"""A Spark for all tests here, and topics to read with it."""

import os
import shlex

import pytest

import running
from given import given


@pytest.fixture(scope="session")
def pb(modules):
    return modules[0]


@pytest.fixture(scope="session")
def descriptor_set(tmp_path_factory):
    path = tmp_path_factory.mktemp("schema") / "game.desc"
    running.herald("schema", "--descriptor-set", "--out", path)
    return str(path)


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    """As scripts/spark starts it, with the connectors that TEST_SPARK_JARS names: its start
    takes longer than most of what is tested with it.
    """
    jars = given("spark", needs="jars")["jars"]
    settings = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": tmp_path_factory.mktemp("spark"),
        # Little is run, and so nothing is compiled twice.
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC -XX:TieredStopAtLevel=1 "
        "-XX:+UseSerialGC",
    }
    words = ["--master", "local[2]", "--jars", jars]
    for name, value in settings.items():
        words += ["--conf", f"{name}={value}"]
    os.environ |= {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_SUBMIT_ARGS": shlex.join([*words, "pyspark-shell"]),
    }
    from herald_spark import sessions

    session = sessions.session("tests")
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
