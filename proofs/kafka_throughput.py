"""The same as `throughput`, with the log in Kafka.

Two yardsticks beside the echo: in full size the echo on a single thread, and a bare
handler that writes each call to the same Kafka by rdkafka's FutureProducer, as the
examples of that do it.
"""

import json
import pathlib
import tempfile

import brokers
import running
import throughput

SIZES = throughput.SIZES

# A broker that has just started is as busy with its own compiler as with its clients:
# it is kept busy for so long before anything is measured in full size.
BROKER_WARM_UP_SECONDS = 20


def proof(options):
    with tempfile.TemporaryDirectory() as folder:
        with brokers.Kafka(pathlib.Path(folder) / "kafka") as kafka:
            serve = [f"--serve-arg={argument}" for argument in kafka.log()]
            future = ["--future-producer", kafka.addresses]
            if options["gates"]:
                warm_up = ["--seconds", 1, "--warmup", BROKER_WARM_UP_SECONDS]
                running.herald("bench", "write", "--spawn", "--json", *warm_up, *serve)
            report = json.loads(running.herald(*throughput.command(options), *serve, *future))
    measured = throughput.gates(report)
    return {"gates": measured if options["gates"] else [], "report": report}


if __name__ == "__main__":
    running.prove("kafka_throughput", SIZES, proof)
