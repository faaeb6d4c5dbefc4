"""A broker that is gone or hangs costs answers, never truth.

There is one broker. Under load it is stopped, or paused, so that it takes what is sent
and answers nothing, and later comes back. Meanwhile every call is answered within its
deadline; what is said not to be written is nowhere in the topic; what is acknowledged
is there once, where its receipt says, and reached a subscriber once who was there all
the time. The server says that it is not ready, and recovers by itself.

Then more calls come than may wait for a paused broker: the rest is refused.
"""

import pathlib
import tempfile
import time

import brokers
import calling
import checks
import load
import running

# `outages` are a way and the least seconds; none ends before the server has noticed it.
# A client that names no deadline waits for `write_timeout`. A lower bound of the queue
# makes the small size fast on any machine.
SIZES = {
    "small": {
        "outages": [["stop", 5], ["pause", 5]],
        "load_seconds_afterwards": 6,
        "write_timeout": "4s",
        "players": 100,
        "in_flight": 64,
        "queue": 2_000,
        "flood": 3_000,
    },
    "full": {
        "outages": [["stop", 20], ["pause", 20], ["kill", 20], ["pause", 45]],
        "load_seconds_afterwards": 15,
        "write_timeout": "8s",
        "players": 1_000,
        "in_flight": 256,
        "queue": 65_536,
        "flood": 80_000,
    },
}

# The way back from each way out.
RETURNS = {"stop": "start", "kill": "start", "pause": "resume"}

# Callers with these deadlines, in seconds. A record waits for a broker for as long as the
# server lives.
DEADLINES = [2, 2, 5, 5, 60, 60]

# How long the server may take to notice a failure and a recovery; far more than is needed.
NOTICE_SECONDS = 60

# After a recovery so many calls are made, and none of them may fail.
CALLS_AFTERWARDS = 1_000

# How often the flood is tried: the queue has to fill before the server, which hears
# nothing from the broker, takes no more.
FLOODS = 5

OVERLOADED = "RESOURCE_EXHAUSTED OVERLOADED"

# Streams of one connection: see the README's limits.
STREAMS = 512


class Proof:
    """What all parts share."""

    def __init__(self, options, folder, kafka, server):
        self.options = options
        self.folder = folder
        self.kafka = kafka
        self.server = server
        self.receipts = []
        self.calls = []

    def outage(self, number, way, seconds):
        """One outage under load, and the recovery."""
        file = self.folder / f"receipts-{number}"
        lasts = seconds + self.options["load_seconds_afterwards"]
        flags = ["--warmup", 0, "--seconds", lasts, "--in-flight", self.options["in_flight"]]
        flags += ["--players", self.options["players"]]
        with (
            load.Load(self.server, file, *flags) as running_load,
            calling.Callers(self.server.url, DEADLINES) as callers,
        ):
            running_load.wait_for(self.options["players"])
            callers.all_partitions_take_writes(NOTICE_SECONDS)
            self.kafka.node(way, 1)
            begun = time.monotonic()
            not_ready = self.notice(False)
            time.sleep(max(0, begun + seconds - time.monotonic()))
            during = callers.between(begun, time.monotonic())
            self.kafka.node(RETURNS[way], 1)
            ready = self.notice(True)
            failed = checks.check_failures(running_load.finish())
            calls = callers.stop()
        checks.check_nothing_acknowledged(during)
        receipts = running_load.receipts()
        self.receipts += receipts
        self.calls += calls
        self.buy(self.folder / f"receipts-{number}-afterwards")
        return {
            "way": way,
            "seconds": seconds,
            "not_ready_after_seconds": not_ready,
            "ready_after_seconds": ready,
            "load_acknowledged": len(receipts),
            "load_failed": failed,
            "answers_during": checks.count_answers(during),
            "longest_part_of_deadline": checks.check_deadlines(calls),
        }

    def notice(self, ready):
        what = "ready" if ready else "not ready any more"
        return running.wait_until(lambda: self.server.is_ready() == ready, NOTICE_SECONDS, what)

    def buy(self, file):
        """Without trouble no call fails."""
        running.herald(
            "bench", "write", "--server", self.server.url, "--ordered", "--receipts", file,
            "--requests", CALLS_AFTERWARDS, "--players", self.options["players"],
        )  # fmt: skip
        self.receipts += checks.read_receipts(file)

    def overload(self):
        """More calls than may wait for a broker, until some are refused for that reason."""
        for attempt in range(FLOODS):
            flooded = self.flood(self.folder / f"receipts-flood-{attempt}")
            if flooded["refused"] and flooded["callers_answers"].get(OVERLOADED):
                return {"queue": self.options["queue"], "attempts": attempt + 1} | flooded
        raise checks.Broken(
            "the queue did not fill before the server gave the broker up: either it has no "
            f"bound, or the machine is too slow for this size: {flooded}"
        )

    def flood(self, file):
        """A paused broker, and many calls at once, each made once."""
        flood = self.options["flood"]
        flags = ["--requests", flood, "--in-flight", flood, "--players", flood]
        flags += ["--connections", flood // STREAMS + 1]
        self.kafka.node("pause", 1)
        with (
            # Deadlines so short that a caller whose record waits soon sees whether the
            # next one may.
            calling.Callers(self.server.url, [0.2] * 8) as callers,
            load.Load(self.server, file, *flags) as running_load,
        ):
            failed = checks.check_failures(running_load.finish())
            calls = callers.stop()
        checks.check_nothing_acknowledged(calls)
        if receipts := running_load.receipts():
            raise checks.Broken(f"acknowledged without a log: {receipts[0]}")
        self.kafka.node("resume", 1)
        ready = self.notice(True)
        # A server that was ready all the time still has a full queue.
        with calling.Callers(self.server.url, [NOTICE_SECONDS]) as callers:
            callers.all_partitions_take_writes(NOTICE_SECONDS)
            self.calls += callers.stop()
        # What waited in the queue was answered when its callers were out of patience.
        answers = checks.count_answers(calls)
        waited = failed.get("DeadlineExceeded", 0) + answers.get(checks.UNKNOWN, 0)
        if waited > self.options["queue"]:
            raise checks.Broken(f"{waited} calls waited in a queue for {self.options['queue']}")
        self.calls += calls
        self.buy(file.with_suffix(".afterwards"))
        return {
            "calls_at_once": flood,
            "waited": waited,
            "refused": failed.get("ResourceExhausted", 0),
            "failed": failed,
            "callers_answers": answers,
            "ready_after_seconds": ready,
        }

    def check_log(self, subscriber):
        """The log as a whole."""
        unknown = self.server.metric("herald_commands_outcome_unknown_total")
        events = brokers.read_log(self.server, self.kafka)
        live = checks.logged(subscriber.all_events(len(events)))
        checks.check_feed_order(live)
        checks.check_same_feed(live, events)
        receipts = self.receipts + checks.receipts_of(self.calls)
        found = checks.check_receipts(receipts, events)
        answers = checks.check_answers(self.calls, events)
        checks.check_no_repeats(events)
        unacknowledged = len(events) - found
        checks.check_unacknowledged(unacknowledged, unknown)
        return {
            "acknowledged": len(receipts),
            "found": found,
            "seen_by_subscriber": len(live),
            "subscriber_resumed": subscriber.reconnects(),
            "outcome_unknown": unknown,
            "in_log_but_not_acknowledged": unacknowledged,
            "callers_answers": answers,
        }


def proof(options):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with brokers.Kafka(folder / "kafka") as kafka:
            bound = f"queue.buffering.max.messages={options['queue']}"
            flags = ["--kafka-config", bound, "--write-timeout", options["write_timeout"]]
            flags += ["--access-log", "off"]
            with (
                running.Server(kafka.log(), *flags) as server,
                running.Subscriber(server.url, folder / "live") as subscriber,
            ):
                this = Proof(options, folder, kafka, server)
                outages = [this.outage(n, *outage) for n, outage in enumerate(options["outages"])]
                overload = this.overload()
                return {"outages": outages, "overload": overload} | this.check_log(subscriber)


if __name__ == "__main__":
    running.prove("outage", SIZES, proof)
