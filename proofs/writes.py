"""Every acknowledged purchase is in the log exactly once, where its receipt says.

Many players buy at the same time, each player's calls one after the other. The
log then holds what was acknowledged and nothing else, in each player's order.
"""

import pathlib
import tempfile

import checks
import running

SIZES = {
    "small": {"requests": 5_000, "players": 100, "connections": 4, "in_flight": 256},
    "full": {"requests": 100_000, "players": 1_000, "connections": 4, "in_flight": 256},
}


def buy(server, options, receipts_file):
    """Makes all the purchases, and returns their receipts."""
    running.herald(
        "bench", "write", "--server", server.url, "--ordered", "--json",
        "--requests", options["requests"], "--players", options["players"],
        "--connections", options["connections"], "--in-flight", options["in_flight"],
        "--receipts", receipts_file,
    )  # fmt: skip
    return checks.read_receipts(receipts_file)


def check(options, receipts, events):
    """The log holds what was bought, once, in order, and nothing else."""
    if len(receipts) != options["requests"]:
        raise checks.Broken(f"{len(receipts)} of {options['requests']} calls were acknowledged")
    if len(events) != len(receipts):
        raise checks.Broken(f"{len(events)} events for {len(receipts)} acknowledged calls")
    checks.check_feed_order(events)
    checks.check_receipts(receipts, events)
    players = checks.check_player_order(receipts, players_start_at_one=True)
    return {"acknowledged": len(receipts), "in_log": len(events), "players": players}


def proof(options):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with running.Server(folder / "data") as server:
            receipts = buy(server, options, folder / "receipts")
            events = checks.logged(running.whole_log(server.url))
    return check(options, receipts, events)


if __name__ == "__main__":
    running.prove("writes", SIZES, proof)
