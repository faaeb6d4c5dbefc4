"""What was acknowledged survives kill -9 of one of two servers on the same Kafka.

Both take writes all the time. One of them, again and again, is killed under load at a
moment drawn from a seed, and started again; the other one is not disturbed by that. In
the end every event that either of them acknowledged is in the topic exactly once, where
its receipt says. Both deliver the same events in the same order, also to two subscribers
who were there all the time: the one at the killed server resumed by cursor each time.
"""

import contextlib
import pathlib
import random
import tempfile

import brokers
import calling
import checks
import kill9
import load
import running

# Moments are counted in receipts after `least`, drawn evenly from `spread`.
SIZES = {
    "small": {"rounds": 3, "seed": 1, "least": 200, "spread": 2_000, "players": 100},
    "full": {"rounds": 20, "seed": 1, "least": 500, "spread": 20_000, "players": 1_000},
}

# The load of the survivor, which goes on through all rounds: light, as all of it is
# compared in the end.
SURVIVOR_LOAD = ["--seconds", 86_400, "--warmup", 0, "--players", 16, "--in-flight", 16]

# So much more the survivor acknowledges after each kill.
RECEIPTS_AFTER_KILL = 200


def proof(options):
    draw = random.Random(options["seed"])
    receipts = []
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with (
            brokers.Kafka(folder / "kafka") as kafka,
            running.Server(kafka.log()) as survivor,
            running.Subscriber(survivor.url, folder / "live") as subscriber,
            load.Load(survivor, folder / "receipts-survivor", *SURVIVOR_LOAD) as other,
            contextlib.ExitStack() as later,
        ):
            follower, address = None, "127.0.0.1:0"
            other.wait_for(1)
            for number in range(options["rounds"]):
                file = folder / f"receipts-{number}"
                kill_after = options["least"] + draw.randrange(options["spread"])
                # At the same address each time.
                victim = running.Server(kafka.log(), listen=address)
                address = victim.address
                if follower is None:
                    follower = running.Subscriber(victim.url, folder / "followed")
                    later.enter_context(follower)
                before = other.received()
                acknowledged, whole = kill9.killed_round(
                    victim, file, kill_after, options["players"]
                )
                receipts += acknowledged
                other.wait_for(other.received() + RECEIPTS_AFTER_KILL)
                rounds.append(
                    {
                        "killed_after_receipts": kill_after,
                        "load_ended_by_itself": whole,
                        "acknowledged": len(acknowledged),
                        "acknowledged_by_survivor": other.received() - before,
                    }
                )
            other.stop()
            survivors = other.receipts()
            # What the load did not wait for is written by then, or never will be.
            with calling.Callers(survivor.url, [10]) as callers:
                callers.all_partitions_take_writes(load.PATIENCE_SECONDS)
                survivors += checks.receipts_of(callers.stop())
            with running.Server(kafka.log(), listen=address) as restarted:
                events = brokers.read_log(restarted, kafka)
                followed = checks.logged(follower.all_events(len(events)))
            again = brokers.read_log(survivor, kafka)
            live = checks.logged(subscriber.all_events(len(events)))
            resumed = follower.reconnects()
    for feed in again, live, followed:
        checks.check_feed_order(feed)
        checks.check_same_feed(events, feed)
    found = checks.check_receipts(receipts + survivors, events)
    checks.check_no_repeats(events)
    return {
        "rounds": rounds,
        "acknowledged_by_victims": len(receipts),
        "acknowledged_by_survivor": len(survivors),
        "found": found,
        "in_log_but_not_acknowledged": len(events) - found,
        "delivered_by_survivor": len(live),
        "delivered_by_victims": len(followed),
        "reconnects": resumed,
    }


if __name__ == "__main__":
    running.prove("kafka_kill9", SIZES, proof)
