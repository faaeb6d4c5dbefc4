"""What was acknowledged survives kill -9.

Again and again: the server is killed under load, at a moment drawn from a seed,
and started again on the same folder. Then every event that was ever acknowledged
is in the log exactly once, where its receipt says. Events that were not
acknowledged may be there too; they are counted.

This shows that the server's own death loses nothing. It cannot show what a power
failure does: that rests on what the disk does at fsync.
"""

import pathlib
import random
import subprocess
import tempfile
import time

import checks
import running

# Moments are counted in receipts after `least`, drawn evenly from `spread`.
SIZES = {
    "small": {"rounds": 3, "seed": 1, "least": 200, "spread": 2_000, "players": 100},
    "full": {"rounds": 20, "seed": 1, "least": 500, "spread": 20_000, "players": 1_000},
}

# More than a round gets to send before its end.
REQUESTS = 500_000
LOAD_SECONDS = 120


def line_count(path, counted):
    """How many lines a growing file has; `counted` is (bytes, lines) so far."""
    if path.exists():
        with open(path, "rb") as file:
            file.seek(counted[0])
            for chunk in iter(lambda: file.read(1 << 16), b""):
                counted[0] += len(chunk)
                counted[1] += chunk.count(b"\n")
    return counted[1]


def killed_round(server, receipts_file, kill_after, players):
    """Loads the server and kills it once `kill_after` receipts are there.

    Returns whether the load ended by itself, with all receipts written.
    """
    load = subprocess.Popen(
        [
            running.binary(), "bench", "write", "--server", server.url, "--ordered",
            "--tolerate-errors", "--json", "--requests", str(REQUESTS),
            "--players", str(players), "--connections", "4", "--in-flight", "256",
            "--receipts", str(receipts_file),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=running.environment(),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + LOAD_SECONDS
        counted = [0, 0]
        while line_count(receipts_file, counted) < kill_after:
            if load.poll() is not None:
                raise RuntimeError(f"the load ended early:\n{load.stderr.read()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{counted[1]} of {kill_after} receipts in {LOAD_SECONDS} s")
            time.sleep(0.001)
        server.kill()
    finally:
        server.kill()
        # Nobody is left to answer: the load fails its remaining calls and ends.
        try:
            load.communicate(timeout=30)
            whole = True
        except subprocess.TimeoutExpired:
            load.terminate()
            load.communicate()
            whole = False
    return whole


def proof(options):
    draw = random.Random(options["seed"])
    acknowledged = []
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for number in range(options["rounds"]):
            receipts_file = folder / f"receipts-{number}"
            kill_after = options["least"] + draw.randrange(options["spread"])
            server = running.Server(folder / "data")
            whole = killed_round(server, receipts_file, kill_after, options["players"])
            receipts = checks.read_receipts(receipts_file)
            if len(receipts) < kill_after:
                raise checks.Broken(f"{len(receipts)} receipts, {kill_after} were there before")
            checks.check_player_order(receipts)
            acknowledged += receipts

            begun = time.monotonic()
            with running.Server(folder / "data") as server:
                restart_seconds = time.monotonic() - begun
                events = [checks.Logged.of(event) for event in running.whole_log(server.url)]
            checks.check_feed_order(events)
            found = checks.check_receipts(acknowledged, events)
            rounds.append(
                {
                    "killed_after_receipts": kill_after,
                    "load_ended_by_itself": whole,
                    "acknowledged": len(receipts),
                    "acknowledged_so_far": len(acknowledged),
                    "found_so_far": found,
                    "in_log_so_far": len(events),
                    "restart_seconds": round(restart_seconds, 3),
                }
            )
    last = rounds[-1]
    return {
        "rounds": rounds,
        "acknowledged": last["acknowledged_so_far"],
        "found": last["found_so_far"],
        "in_log_but_not_acknowledged": last["in_log_so_far"] - last["acknowledged_so_far"],
    }


if __name__ == "__main__":
    running.prove("kill9", SIZES, proof)
