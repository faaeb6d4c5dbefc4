"""A subscriber gets the whole log about as fast as a bare consumer reads the topic.

`herald bench replay` fills a topic and has it read in turn by a subscriber and by a
librdkafka consumer that only counts. What counts is the ratio of the two in one run. The
embedded log is measured too, without a yardstick. The gate applies to the full size only.
"""

import json
import pathlib
import tempfile

import brokers
import checks
import running

SIZES = {
    "small": {"events": 20_000, "bytes": 200, "rounds": 1, "gates": False},
    "full": {"events": 2_000_000, "bytes": 200, "rounds": 3, "gates": True},
}

# What a subscriber gets a second, by what the bare consumer reads.
LEAST_RATIO = 0.5


def measure(options, *flags):
    words = [f"--{name}={options[name]}" for name in ("events", "bytes", "rounds")]
    return json.loads(running.herald("bench", "replay", "--json", *words, *flags))


def proof(options):
    reports = {"embedded": measure(options)}
    with tempfile.TemporaryDirectory() as folder:
        with brokers.Kafka(pathlib.Path(folder) / "kafka") as kafka:
            reports["kafka"] = measure(options, "--kafka-brokers", kafka.addresses)
    ratio = reports["kafka"]["ratio"]
    if ratio is None:
        raise checks.Broken("the report does not compare with the bare consumer")
    gates = [{"ratio": "events_per_second", "at least": LEAST_RATIO, "measured": ratio,
              "met": ratio >= LEAST_RATIO}]  # fmt: skip
    return {"gates": gates if options["gates"] else [], "reports": reports}


if __name__ == "__main__":
    running.prove("replay", SIZES, proof)
