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
import tempfile
import time

import checks
import load
import running

# Moments are counted in receipts after `least`, drawn evenly from `spread`.
SIZES = {
    "small": {"rounds": 3, "seed": 1, "least": 200, "spread": 2_000, "players": 100},
    "full": {"rounds": 20, "seed": 1, "least": 500, "spread": 20_000, "players": 1_000},
}

# More than a round gets to send before its end.
REQUESTS = 500_000


def killed_round(server, receipts_file, kill_after, players):
    """Loads the server and kills it once `kill_after` receipts are there.

    Returns the receipts, and whether the load ended by itself, with all written.
    """
    flags = ["--requests", REQUESTS, "--players", players]
    with load.Load(server, receipts_file, *flags) as running_load:
        try:
            running_load.wait_for(kill_after)
        finally:
            server.kill()
        # Nobody is left to answer: the load fails its remaining calls and ends.
        whole = running_load.finish(30) is not None
    receipts = running_load.receipts()
    if len(receipts) < kill_after:
        raise checks.Broken(f"{len(receipts)} receipts, {kill_after} were there before")
    return receipts, whole


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
            receipts, whole = killed_round(server, receipts_file, kill_after, options["players"])
            acknowledged += receipts

            begun = time.monotonic()
            with running.Server(folder / "data") as server:
                restart_seconds = time.monotonic() - begun
                events = checks.logged(running.whole_log(server.url))
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
