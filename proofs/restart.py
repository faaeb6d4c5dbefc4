"""A restart on a long log takes seconds with a snapshot, and a bad snapshot costs only time.

A topic is filled. A server starts without a snapshot, reads all of it, and leaves a snapshot
when it stops. It starts again with that, and then with one that is damaged, cut off, or of
another log: each is refused, and the log is read instead. Whatever it started from, it gives the
same answers about the same players.
"""

import pathlib
import random
import re
import shutil
import tempfile
import time

import brokers
import calling
import exactly_once
import running

# `asked` is of how many players each server is asked. The gates are seconds, and all the memory
# of the server by player: in full size that is ten purchases each, and two remembered requests.
SIZES = {
    "small": {"events": 20_000, "players": 2_000, "asked": 50, "gates": False},
    "full": {"events": 10_000_000, "players": 1_000_000, "asked": 500, "gates": True},
}  # fmt: skip

MOST_SECONDS_WITH_SNAPSHOT = 10
MOST_BYTES_BY_PLAYER = 1_200

# What no start takes.
PATIENCE_SECONDS = 600


def memory(process):
    """How much of it is in memory, in bytes."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) * 1024


class Restarts:
    """Starts of a server, each asked the same."""

    def __init__(self, options, kafka, snapshot):
        self._kafka = kafka
        self._snapshot = snapshot
        draw = random.Random(1)
        self._numbers = draw.sample(range(options["players"]), options["asked"])
        self._answers = None
        self.starts = {}

    def start(self, name, refused=None):
        """Starts, waits until it is ready, asks, and stops it in order."""
        flags = ["--access-log", "off", "--snapshot-file", self._snapshot]
        begun = time.monotonic()
        with running.Server(self._kafka.log(), *flags) as server:
            running.wait_until(server.is_ready, PATIENCE_SECONDS, "ready")
            took = time.monotonic() - begun
            answers = self._ask(server)
            used = memory(server.process)
            if bool(refused) != ("snapshot" in server.said() and "refused" in server.said()):
                raise RuntimeError(f"{name}: it should say what it makes of it:\n{server.said()}")
            begun = time.monotonic()
        self.starts[name] = {
            "seconds_to_ready": round(took, 2),
            "seconds_to_stop": round(time.monotonic() - begun, 2),
            "memory_bytes": used,
        }
        if self._answers not in (None, answers):
            raise RuntimeError(f"{name}: other answers than the first server gave")
        self._answers = answers

    def _ask(self, server):
        first = next(running.whole_log(server.url, "--max-events", 1))
        prefix = first["event"]["playerId"].rpartition("-")[0]
        connection = calling.Connection(server.url)
        players = [f"{prefix}-{number:06}" for number in self._numbers]
        answers = {player: exactly_once.inventory(connection, player) for player in players}
        connection.close()
        return answers


def proof(options):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        snapshot = folder / "players.snapshot"
        with brokers.Kafka(folder / "kafka") as kafka:
            fill = ["--kafka-brokers", kafka.addresses, "--topic", brokers.TOPIC]
            running.herald(
                "bench", "fill", *fill, "--events", options["events"],
                "--players", options["players"],
            )  # fmt: skip
            restarts = Restarts(options, kafka, snapshot)
            restarts.start("no snapshot")
            good = folder / "good"
            shutil.copy(snapshot, good)
            size = good.stat().st_size
            restarts.start("snapshot")
            data = bytearray(good.read_bytes())
            data[size // 2] ^= 1
            snapshot.write_bytes(data)
            restarts.start("one bit is wrong", refused=True)
            snapshot.write_bytes(good.read_bytes()[: size * 2 // 3])
            restarts.start("cut off", refused=True)
            snapshot.write_bytes(foreign(folder / "other"))
            restarts.start("of another log", refused=True)
    starts = restarts.starts
    used = starts["snapshot"]["memory_bytes"]
    gates = [
        gate("seconds to ready with the snapshot", starts["snapshot"]["seconds_to_ready"],
             MOST_SECONDS_WITH_SNAPSHOT),
        gate("memory by player, bytes", used // options["players"], MOST_BYTES_BY_PLAYER),
    ]  # fmt: skip
    return {
        "gates": gates if options["gates"] else [],
        "snapshot_bytes": size,
        "starts": starts,
    }


def foreign(folder):
    """A snapshot of another log."""
    file = folder / "players.snapshot"
    with running.Server(folder, "--snapshot-file", file) as server:
        running.wait_until(server.is_ready, PATIENCE_SECONDS, "ready")
        connection = calling.Connection(server.url)
        connection.purchase("alice", 1, PATIENCE_SECONDS)
        connection.close()
    return file.read_bytes()


def gate(what, measured, bound):
    return {"what": what, "at most": bound, "measured": measured, "met": measured <= bound}


if __name__ == "__main__":
    running.prove("restart", SIZES, proof)
