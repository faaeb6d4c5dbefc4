"""The proofs in small size, by the command that runs them in full."""

import pytest

# Those that wait most come first: they are run while the other tests are.
NAMES = ["cluster", "outage", "kafka_feed", "half_open", "page", "kafka_throughput"]
NAMES += ["kafka_kill9", "kafka_writes", "exactly_once", "two_writers", "restart", "request_index"]
NAMES += ["export_kill9", "export", "replay", "latency", "fanout", "writes", "kill9"]
# These wait for the cores, and not for a Kafka.
NAMES += ["export_speed", "throughput", "spark_extract", "spark_stream"]


@pytest.mark.parametrize("name", NAMES)
def test_the_proof_holds_in_small_size(name, proofs):
    code, said = proofs.result(name)
    assert code == 0, said
    assert f"{name}, small: holds" in said
