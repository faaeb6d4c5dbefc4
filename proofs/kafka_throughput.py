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

def proof(options):
    with tempfile.TemporaryDirectory() as folder:
        with brokers.Kafka(pathlib.Path(folder) / "kafka") as kafka:
            serve = [f"--serve-arg={argument}" for argument in kafka.log()]
            future = ["--future-producer", kafka.addresses]
            if options["gates"]:
                kafka.warm_up()
            report = json.loads(running.herald(*throughput.command(options), *serve, *future))
    measured = throughput.gates(report)
    return {"gates": measured if options["gates"] else [], "report": report}


if __name__ == "__main__":
    running.prove("kafka_throughput", SIZES, proof)
