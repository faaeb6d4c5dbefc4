"""The same as `writes`, with the log in Kafka.

The topic is read twice: through the feed, and by kcat, which knows nothing of Herald.
"""

import pathlib
import tempfile

import brokers
import running
import writes

SIZES = {
    "small": {"requests": 5_000, "players": 100, "connections": 4, "in_flight": 256},
    "full": {"requests": 500_000, "players": 1_000, "connections": 4, "in_flight": 256},
}


def proof(options):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with brokers.Kafka(folder / "kafka") as kafka, running.Server(kafka.log()) as server:
            receipts = writes.buy(server, options, folder / "receipts")
            events = brokers.read_log(server, kafka)
    return writes.check(options, receipts, events)


if __name__ == "__main__":
    running.prove("kafka_writes", SIZES, proof)
