"""An event reaches a live subscriber within milliseconds of the call that made it.

A hundred subscribers, a thousand events a second, on Kafka and on the embedded log: from
the sending of the call to the receipt by each subscriber. The gate applies to the full
size only.
"""

import pathlib
import tempfile

import brokers
import fanout
import running

SIZES = {
    "small": {
        "load": {"subscribers": 20, "connections": 4, "rate": 100, "seconds": 2,
                 "warmup": 1, "idle": 1},
        "gates": False,
    },
    "full": {
        "load": {"subscribers": 100, "connections": 10, "rate": 1_000, "seconds": 30,
                 "warmup": 10},
        "gates": True,
    },
}  # fmt: skip

# The same form as the gates of `fanout`.
GATE = (("steady", "latency_micros", "p99"), 5_000, "delivery, 99th percentile, µs")


def proof(options):
    reports = {"embedded": fanout.measure(options["load"])}
    with tempfile.TemporaryDirectory() as folder:
        with brokers.Kafka(pathlib.Path(folder) / "kafka", "--roomy") as kafka:
            if options["gates"]:
                kafka.warm_up()
            reports["kafka"] = fanout.measure(options["load"], *kafka.log())
    gates = []
    if options["gates"]:
        gates = [{"log": log} | fanout.gate(report, *GATE) for log, report in reports.items()]
    return {"gates": gates, "reports": reports}


if __name__ == "__main__":
    running.prove("latency", SIZES, proof)
