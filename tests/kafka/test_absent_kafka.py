"""Herald is started before Kafka."""

import pytest

from harness import SCRIPT, complaints, problem, run


@pytest.fixture
def stopped(kafka, tmp_path):
    """A cluster that is not running, as its brokers and the way to start it.

    `kafka` is not it, but says whether there may be one.
    """
    folder = tmp_path / "kafka"
    try:
        lines = run(SCRIPT, "start", "--dir", folder).decode().splitlines()
        run(SCRIPT, "node", "stop", 1, "--dir", folder)
        brokers = dict(line.split("=", 1) for line in lines)["brokers"]
        yield brokers, lambda: run(SCRIPT, "node", "start", 1, "--dir", folder)
    finally:
        run(SCRIPT, "stop", "--dir", folder)


def test_herald_waits_for_kafka(herald, stopped):
    brokers, start = stopped
    server = herald(brokers=brokers)
    said = problem(server)
    assert brokers in said and "Connection refused" in said
    server.is_up_and_serves_nothing()
    start()
    server.becomes_ready()
    # Each thing was said once, however often it was tried.
    assert len(set(complaints(server))) == len(complaints(server)), server.said()
    receipt = server.buy("alice")
    assert server.read().ids() == [receipt.event_id]
