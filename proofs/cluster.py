"""Three brokers that die lose nothing that was acknowledged.

Each event is kept by three brokers, and acknowledged when two have it. Round by round,
under load: one broker is killed with SIGKILL, and writes to all partitions go on, and the
feed. A second one is killed, and nothing can be acknowledged any more: every call fails
within its deadline, with an error that is true. Both come back, and writes to all
partitions go on again, without anybody touching the server. Which ones are killed rotates.

In the end what was acknowledged is in the topic exactly once, at the place in its
receipt and in its player's order, and a subscriber has got all of it once.
"""

import datetime
import pathlib
import tempfile
import time

import brokers
import calling
import checks
import load
import running

# `dark_seconds`: how long only one broker is left. `in_flight` keeps the load light, as
# all of it is compared in the end.
SIZES = {
    "small": {"rounds": 1, "dark_seconds": 5, "players": 8, "in_flight": 8},
    "full": {"rounds": 20, "dark_seconds": 8, "players": 8, "in_flight": 8},
}

FLAGS = ["--topic-replication-factor", "3", "--topic-min-insync-replicas", "2"]
FLAGS += ["--access-log", "off"]

DEADLINES = [2, 2, 5, 5, 60]

# How long a failover and a recovery may take. Far more than is needed, as brokers that
# share a busy machine lose sight of each other.
FAILOVER_SECONDS = 180
RECOVERY_SECONDS = 180

# How long the feed may take to be well with two brokers of three, once writes are. librdkafka
# by itself may ask a dead one about the topic for five minutes.
FEED_SECONDS = 60


def until_writes_go_on(kafka, callers, seconds):
    """Waits until all partitions take writes, and says what the brokers say if not."""
    try:
        return callers.all_partitions_take_writes(seconds)
    except TimeoutError as error:
        raise TimeoutError(f"{error}; replicas in sync: {kafka.in_sync()}") from None


def wait_for_all_replicas(kafka):
    """One more that dies before the last dead have caught up would be one too many."""
    in_sync = dict.fromkeys(brokers.PARTITIONS, 3)
    running.wait_until(lambda: kafka.in_sync() == in_sync, RECOVERY_SECONDS, "brokers in sync")


def one_round(number, kafka, callers, server, options):
    first, second, last = ((number + n) % 3 + 1 for n in range(3))
    began = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    wait_for_all_replicas(kafka)
    kafka.node("kill", first)
    failover = until_writes_go_on(kafka, callers, FAILOVER_SECONDS)
    connection = calling.Connection(server.url)
    feed_failover = running.wait_until(
        lambda: connection.tells_bounds(FEED_SECONDS), FEED_SECONDS, "bounds of the feed"
    )
    connection.close()

    kafka.node("kill", second)
    begun = time.monotonic()
    time.sleep(options["dark_seconds"])
    dark = callers.between(begun, time.monotonic())
    if not dark:
        raise checks.Broken("no call was answered while one broker was left")
    checks.check_nothing_acknowledged(dark)
    was_ready = server.is_ready()

    kafka.node("start", first, second)
    recovery = until_writes_go_on(kafka, callers, RECOVERY_SECONDS)
    running.wait_until(server.is_ready, RECOVERY_SECONDS, "ready")
    return {
        "began": began,
        "killed": [first, second],
        "left": last,
        "failover_seconds": failover,
        "feed_failover_seconds": feed_failover,
        "answers_in_the_dark": checks.count_answers(dark),
        "ready_in_the_dark": was_ready,
        "recovery_seconds": recovery,
    }


def proof(options):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        flags = ["--seconds", 86_400, "--warmup", 0]
        flags += ["--players", options["players"], "--in-flight", options["in_flight"]]
        with (
            brokers.Kafka(folder / "kafka", brokers=3) as kafka,
            running.Server(kafka.log(*FLAGS)) as server,
            running.Subscriber(server.url, folder / "live") as subscriber,
            load.Load(server, folder / "receipts", *flags) as running_load,
            calling.Callers(server.url, DEADLINES) as callers,
        ):
            running_load.wait_for(1)
            rounds = [
                one_round(number, kafka, callers, server, options)
                for number in range(options["rounds"])
            ]
            running_load.stop()
            callers.all_partitions_take_writes(RECOVERY_SECONDS)
            calls = callers.stop()
            unknown = server.metric("herald_commands_outcome_unknown_total")
            not_written = server.metric("herald_commands_not_written_total")
            events = brokers.read_log(server, kafka)
            live = checks.logged(subscriber.all_events(len(events)))
            resumed = subscriber.reconnects()
            receipts = running_load.receipts()
    checks.check_feed_order(live)
    checks.check_same_feed(live, events)
    receipts += checks.receipts_of(calls)
    found = checks.check_receipts(receipts, events)
    answers = checks.check_answers(calls, events)
    # Told in the end, with all that is known of the rounds.
    repeats = checks.repeats(events)
    unacknowledged = len(events) - len(repeats) - found
    # Those that the load did not wait for are known to nobody either.
    checks.check_unacknowledged(unacknowledged, unknown + options["in_flight"])
    return {
        "rounds": rounds,
        "acknowledged": len(receipts),
        "found": found,
        "seen_by_subscriber": len(live),
        "subscriber_resumed": resumed,
        "not_written": not_written,
        "outcome_unknown": unknown,
        "in_log_but_not_acknowledged": unacknowledged,
        "callers_answers": answers,
        "longest_part_of_deadline": checks.check_deadlines(calls),
        "repeats": [str(repeat) for repeat in repeats],
        "gates": [{"repeats": len(repeats), "at most": 0, "met": not repeats}],
    }


if __name__ == "__main__":
    running.prove("cluster", SIZES, proof)
