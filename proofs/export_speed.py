"""An export reads a topic at a fair part of what a bare consumer reads, in little memory.

`herald bench fill` fills a topic. In turn it is exported to files in several ways and read by a
librdkafka consumer that only counts (that of `herald bench replay`). What counts is the ratio of
Parquet in folders by day and type and the consumer in one run, from the start of the process to
its end, and how much memory any of the exports ever had, also with a folder for each of as many
players as a filter takes. The gates apply to the full size only.
"""

import json
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time

import brokers
import checks
import exporting
import running

SIZES = {
    "small": {"events": 20_000, "bytes": 200, "rounds": 1, "gates": False},
    "full": {"events": 2_000_000, "bytes": 200, "rounds": 3, "gates": True},
}

# Events a second, by what the bare consumer reads.
LEAST_RATIO = 0.25

MOST_RESIDENT_BYTES = 256 << 20

# With as many folders as there may be, each of which has a file that is being written.
MOST_SPLIT_BYTES = 384 << 20

# How often it is looked how much memory a process ever had, which ends with it.
PAUSE_SECONDS = 0.01

# How many players buy: as many as a filter takes, and folders an export splits by.
PLAYERS = 100


def ways(players):
    """What is measured: the defaults, and the ends of what can be asked for."""
    split = ["--split-by", "player", *(f"--player={player}" for player in players)]
    return {
        "parquet": [],
        "jsonl": ["--format", "jsonl", "--layout", "flat", "--compression", "none"],
        "split": split,
        "split, zstd": [*split, "--compression", "zstd"],
        "split, jsonl, zstd": [*split, "--format", "jsonl", "--compression", "zstd"],
    }


def resident_bytes(process):
    """The most that it ever had in memory; 0 when it has ended."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def exported(log, out, *flags):
    """One export, as a whole process."""
    begun = time.monotonic()
    most = 0
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(
            [running.binary(), "export", "--json", *log, "--out", out, *flags],
            stdin=subprocess.DEVNULL,
            stdout=said,
            env=running.environment(),
        ) as process:
            while process.poll() is None:
                most = max(most, resident_bytes(process))
                time.sleep(PAUSE_SECONDS)
        seconds = time.monotonic() - begun
        if process.returncode != 0:
            raise RuntimeError(f"herald export ended with {process.returncode}")
        said.seek(0)
        summary = json.loads(said.read())
    exporting.check_finished(out, summary)
    shutil.rmtree(out)
    return {
        "events": summary["events"],
        "files": summary["files"],
        "bytes": summary["bytes"],
        "seconds": round(seconds, 3),
        "events_per_second": round(summary["events"] / seconds),
        "resident_bytes": most,
    }


def players(log, out):
    """Who the events in a log are of."""
    exporting.export(*log, "--out", out, "--layout", "flat")
    found = exporting.read_all(out, ["player_id"])["player_id"].unique().to_pylist()
    if len(found) != PLAYERS:
        raise checks.Broken(f"{len(found)} players in the files, not {PLAYERS}")
    shutil.rmtree(out)
    return found


def read_bare(kafka):
    """What the bare consumer of the bench reads of the same topic."""
    report = json.loads(
        running.herald(
            "bench", "replay", "--json", "--rounds", 1, "--kafka-brokers", kafka.addresses,
            "--topic", brokers.TOPIC,
        )
    )  # fmt: skip
    (bare,) = [each for each in report["targets"] if each["name"] == "bare consumer"]
    return bare["rounds"][0]


def proof(options):
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with brokers.Kafka(folder / "kafka") as kafka:
            fill = [f"--{name}={options[name]}" for name in ("events", "bytes")]
            running.herald("bench", "fill", *kafka.log(), *fill, f"--players={PLAYERS}")
            measured = ways(players(kafka.log(), folder / "players"))
            # In turn, so that a noisy minute hits all alike.
            for _ in range(options["rounds"]):
                each = {
                    way: exported(kafka.log(), folder / "out", *flags)
                    for way, flags in measured.items()
                }
                rounds.append(each | {"bare": read_bare(kafka)})
    for each in rounds:
        counts = {way: measured["events"] for way, measured in each.items()}
        if set(counts.values()) != {options["events"]}:
            raise checks.Broken(f"{options['events']} events are in the topic, not {counts}")

    def median(way):
        return statistics.median(each[way]["events_per_second"] for each in rounds)

    ratios = {way: round(median(way) / median("bare"), 3) for way in measured}
    memory = {way: max(each[way]["resident_bytes"] for each in rounds) for way in measured}
    ratio = ratios["parquet"]
    gates = [
        {"ratio": "events_per_second", "at least": LEAST_RATIO, "measured": ratio,
         "met": ratio >= LEAST_RATIO},
    ]  # fmt: skip
    for way, found in memory.items():
        most = MOST_SPLIT_BYTES if "split" in way else MOST_RESIDENT_BYTES
        gates.append(
            {"what": f"resident_bytes, {way}", "at most": most, "measured": found,
             "met": found <= most}
        )  # fmt: skip
    return {
        "gates": gates if options["gates"] else [],
        "ratios": ratios,
        "resident_bytes": memory,
        "events_per_second": {way: median(way) for way in (*measured, "bare")},
        "rounds": rounds,
    }


if __name__ == "__main__":
    running.prove("export_speed", SIZES, proof)
