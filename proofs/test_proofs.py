"""The proofs in small size, by the command that runs them in full."""

import concurrent.futures
import os
import subprocess

import pytest

import running

# Those that wait most come first.
NAMES = ["cluster", "outage", "kafka_feed", "half_open", "page", "kafka_throughput"]
NAMES += ["kafka_kill9", "kafka_writes", "exactly_once", "two_writers", "restart", "request_index"]
NAMES += ["export_kill9", "export", "replay", "latency", "fanout", "writes", "kill9"]
# These wait for the cores, and not for a Kafka.
NAMES += ["export_speed", "throughput", "spark_extract"]

# They mostly wait for a Kafka, so that two at a time take little longer than one.
AT_A_TIME = 2


def prove(name):
    return subprocess.run(
        [running.REPOSITORY / "scripts" / "prove", name, "small"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"HERALD_BIN": running.binary()},
    )


@pytest.fixture(scope="module")
def proofs(request):
    """Runs what was selected; a test waits for its own."""
    selected = [item.callspec.params["name"] for item in request.session.items if in_here(item)]
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {name: pool.submit(prove, name) for name in selected}
        pool.shutdown(cancel_futures=True)


def in_here(item):
    return item.module.__name__ == __name__


@pytest.mark.parametrize("name", NAMES)
def test_the_proof_holds_in_small_size(name, proofs):
    done = proofs[name].result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}, small: holds" in done.stdout
