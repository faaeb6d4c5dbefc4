"""Remembering requests costs next to nothing, however many there are.

Two servers on one Kafka, each with a topic of its own, take purchases in turn: one whose index of
requests is full, and one that remembers hardly any. What counts is the ratio of the two.
"""

import json
import pathlib
import statistics
import tempfile

import brokers
import running

SIZES = {
    "small": {"entries": 5_000, "rounds": 1, "seconds": 1, "gates": False},
    "full": {"entries": 2_000_000, "rounds": 7, "seconds": 5, "gates": True},
}

# The least that can be set.
FEW = 1_000

NOTICE_SECONDS = 60


def load(server, *flags):
    report = json.loads(
        running.herald(
            "bench", "write", "--server", server.url, "--server-pid", server.process.pid,
            "--json", *flags,
        )  # fmt: skip
    )
    return report["targets"][0]["median"]


def proof(options):
    with tempfile.TemporaryDirectory() as folder:
        with brokers.Kafka(pathlib.Path(folder) / "kafka") as kafka:
            if options["gates"]:
                kafka.warm_up()

            def serve(topic, entries):
                log = ["--kafka-brokers", kafka.addresses, "--topic", topic]
                return running.Server(log, "--request-index-entries", entries)

            with serve("full", options["entries"]) as full, serve("empty", FEW) as empty:
                for server in full, empty:
                    running.wait_until(server.is_ready, NOTICE_SECONDS, "ready")
                # A part is full before all are.
                load(full, "--requests", options["entries"] * 5 // 4)
                remembered = full.metric("herald_requests_entries")
                rounds = [
                    {
                        name: load(server, "--seconds", options["seconds"], "--warmup", 1)
                        for name, server in (("full", full), ("empty", empty))
                    }
                    for _ in range(options["rounds"])
                ]
                few = empty.metric("herald_requests_entries")

    def median(name, what):
        return statistics.median(each[name][what] for each in rounds)

    ratio = median("full", "calls_per_second") / median("empty", "calls_per_second")
    gates = [
        {"ratio": "calls_per_second", "at least": 0.95, "measured": ratio, "met": ratio >= 0.95}
    ]
    return {
        "gates": gates if options["gates"] else [],
        "entries": {"full": remembered, "empty": few},
        "server_cpu_per_call": {
            name: median(name, "server_cpu_micros_per_call") for name in ("full", "empty")
        },
        "rounds": rounds,
    }


if __name__ == "__main__":
    running.prove("request_index", SIZES, proof)
