"""Subscribers that resume by cursor get each event once, whatever happens.

On Kafka, with six partitions, purchases are written at full speed in bursts; beside them
callers buy and join guilds one call after the other. In the bursts, at moments drawn from a
seed, the server or Kafka is killed with SIGKILL, and started again. Meanwhile subscribers leave
between two messages, in the middle of one, or at a heartbeat, and come back with the cursor of
the last message that they processed, or of an older one; and they do not read until the log has
grown by more than the ring and the buffers of a connection hold, so that they fall behind. Some
want all events, the others those of a type, of players or of a guild.

In the end each has what kcat finds in the topic, in the same order in each partition, and so
for each player: nothing is missing, and nothing came twice behind a cursor. Every event that
was acknowledged is in the topic once, where its receipt says.

Most subscribers read streams over gRPC-web, in Python. A few are `herald tail` processes, over
HTTP/2: they want all events, are ended by SIGTERM or SIGKILL, and keep their cursor in a file.
Between two bursts those who want all events catch up, so that each burst finds subscribers that
are live: what is written in between, at the pace of the callers, is little.
"""

import collections
import contextlib
import dataclasses
import pathlib
import random
import statistics
import tempfile

import accounts
import brokers
import calling
import checks
import crowd
import kill9
import load
import running
import subscribing

# `spread` and moments as in kill9. `streams` and `tails` are how many subscribers there are by
# kind, each with so many `resumes`, `heartbeat_resumes` and `stalls` (see subscribing.Plan).
# `burst` is how much is written at once when there are no more faults. A stalled subscriber waits
# until the log has grown by `stall_records`, more than the ring and its connection hold.
SIZES = {
    "small": {
        "seed": 1, "faults": ["kill", "kafka"], "least": 1_000, "spread": 2_000, "players": 100,
        "burst": 3_000, "streams": 10, "tails": 2, "resumes": 5, "heartbeat_resumes": 1,
        "events_between": 1_500, "stalls": 1, "stall_records": 4_000, "ring": "64KiB",
        "least_fell_behind": 1,
    },
    "full": {
        "seed": 1, "faults": ["kill", "kill", "kafka", "kill"], "least": 8_000,
        "spread": 24_000, "players": 1_000,
        "burst": 15_000, "streams": 44, "tails": 6, "resumes": 18, "heartbeat_resumes": 2,
        "events_between": 10_000, "stalls": 2, "stall_records": 20_000, "ring": "1MiB",
        "least_fell_behind": 50,
    },
}  # fmt: skip

# More bursts than it takes until all subscribers have done what they are to do.
MOST_BURSTS = 100

# Callers whose players subscribers ask for. Of each, every second call joins a guild.
DEADLINES = [10, 10, 10, 10]
NAME = "regular"
GUILDS = ["mascots", "owls", "foxes"]

# How many players one subscriber asks for.
FILTER_PLAYERS = 16

# How long the server may take to notice that Kafka is gone or back. Far more than is needed.
NOTICE_SECONDS = 60


def buy_or_join(connection, player, sequence, deadline):
    """A purchase and a guild in turn; players are out of step."""
    if is_purchase(player, sequence):
        return connection.purchase(player, sequence, deadline)
    guild = GUILDS[turn(player, sequence) // 2 % len(GUILDS)]
    return connection.join(player, guild, sequence, deadline)


def is_purchase(player, sequence):
    return turn(player, sequence) % 2 == 0


def turn(player, sequence):
    return int(player.rpartition("-")[2]) + sequence


def filters(number):
    """What subscriber `number` asks for, and how many of its events come to one of the feed.

    The share is a guess that only decides when it resumes.
    """
    players = [f"{NAME}-{number % len(DEADLINES)}-{n}" for n in range(FILTER_PLAYERS)]
    kinds = [
        (accounts.Filter(), 1),
        (accounts.Filter(types=("item_purchased",)), 1),
        (accounts.Filter(), 1),
        (accounts.Filter(players=tuple(players)), 0.002),
        (accounts.Filter(types=("guild_joined",)), 0.01),
        (accounts.Filter(guilds=(GUILDS[number % len(GUILDS)],)), 0.003),
        (accounts.Filter(types=("guild_joined",), players=tuple(players)), 0.001),
    ]
    return kinds[number % len(kinds)]


def plans(options, url, folder):
    """One for each subscriber."""
    kinds = ["tail"] * options["tails"] + ["stream"] * options["streams"]
    for number, by in enumerate(kinds):
        filter_, share = filters(number) if by == "stream" else (accounts.Filter(), 1)
        yield subscribing.Plan(
            number=number,
            url=url,
            by=by,
            filter=filter_,
            seed=f"{options['seed']}, {number}",
            resumes=options["resumes"] + (by == "tail") * options["heartbeat_resumes"],
            heartbeat_resumes=(by == "stream") * options["heartbeat_resumes"],
            spread=max(2, round(options["events_between"] * share)),
            stalls=options["stalls"],
            stall_records=options["stall_records"],
            folder=folder,
        )


class Proof:
    """The server, which is another one after each kill, and what was written."""

    def __init__(self, options, folder, kafka):
        self.options = options
        self.folder = folder
        self.kafka = kafka
        self.draw = random.Random(options["seed"])
        self.receipts = []
        self.server = self.start("127.0.0.1:0")

    def start(self, listen):
        flags = ["--access-log", "off", "--feed-ring-bytes", self.options["ring"]]
        return running.Server(self.kafka.log(), *flags, listen=listen)

    def fault(self, number, way, subscribers):
        """One burst with a fault in it, and the recovery."""
        file = self.folder / f"receipts-{number}"
        after = self.options["least"] + self.draw.randrange(self.options["spread"])
        acts = subscribers.left()
        if way == "kill":
            receipts, _ = kill9.killed_round(self.server, file, after, self.options["players"])
            self.server = self.start(self.server.address)
        else:
            receipts = self.kafka_restart(file, after)
        running.wait_until(self.server.is_ready, NOTICE_SECONDS, "ready")
        self.receipts += receipts
        self.let_catch_up(subscribers)
        return {
            "fault": way,
            "after_receipts": after,
            "acknowledged": len(receipts),
            "acts_of_subscribers": acts - subscribers.left(),
        }

    def kafka_restart(self, file, after):
        # Calls fail fast while Kafka is away, so that no number of them would be enough.
        flags = ["--seconds", 86_400, "--warmup", 0, "--players", self.options["players"]]
        with load.Load(self.server, file, *flags) as running_load:
            running_load.wait_for(after)
            self.kafka.node("kill", 1)
            running.wait_until(lambda: not self.server.is_ready(), NOTICE_SECONDS, "not ready")
            self.kafka.node("start", 1)
            running_load.wait_for(running_load.received() + self.options["least"])
            running_load.stop()
        return running_load.receipts()

    def burst(self, number, subscribers):
        """Without trouble no call fails."""
        file = self.folder / f"receipts-burst-{number}"
        running.herald(
            "bench", "write", "--server", self.server.url, "--ordered", "--receipts", file,
            "--requests", self.options["burst"], "--players", self.options["players"],
        )  # fmt: skip
        receipts = checks.read_receipts(file)
        checks.check_player_order(receipts, players_start_at_one=True)
        self.receipts += receipts
        self.let_catch_up(subscribers)

    def let_catch_up(self, subscribers):
        """Waits until who reads all events has those that there are."""
        connection = calling.Connection(self.server.url)
        ends = connection.end_offsets(NOTICE_SECONDS)
        connection.close()
        if ends is None:
            raise checks.Broken("the feed of a ready server does not tell its bounds")
        subscribers.wait_for(sum(ends.values()))

    def log(self):
        """All events of the topic, as kcat has them."""
        return [logged(*record) for record in self.kafka.records()]


def logged(partition, offset, value):
    """An event from the bytes of its record."""
    event = calling.fields(value)
    purchase, guild = (calling.fields(calling.first(event, number)) for number in (17, 18))
    return checks.Logged(
        calling.first(event, 1).decode(),
        calling.first(event, 3).decode(),
        calling.first(purchase, 2, 0),
        partition,
        offset,
        event_type=calling.first(event, 2).decode(),
        guild_id=calling.first(guild, 1).decode(),
    )


def callers_receipts(calls):
    """The receipts of the callers, as their events have it: a guild has no sequence."""
    receipts = checks.receipts_of(calls)
    bought = [each for each in receipts if is_purchase(each.player_id, each.sequence)]
    joined = [each for each in receipts if not is_purchase(each.player_id, each.sequence)]
    return bought + [dataclasses.replace(each, sequence=0) for each in joined]


def check_subscribers(reports, events):
    """Each has what it should have, and something."""
    expected = {}
    for report in reports:
        plan = report.plan
        if plan.filter not in expected:
            wanted = filter(plan.filter.wants, events)
            expected[plan.filter] = accounts.account_of(wanted)
        if not checks.check_account(plan.who(), report.account, expected[plan.filter]):
            raise checks.Broken(f"{plan.who()} has no events: it shows nothing")


def proof(options):
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as later:
        folder = pathlib.Path(folder)
        kafka = later.enter_context(brokers.Kafka(folder / "kafka"))
        this = Proof(options, folder, kafka)
        later.push(lambda *error: this.server.__exit__(*error))
        planned = list(plans(options, this.server.url, folder))
        subscribers = later.enter_context(crowd.Crowd(planned, len(brokers.PARTITIONS)))
        callers = calling.Callers(this.server.url, DEADLINES, NAME, buy_or_join)
        later.enter_context(callers)

        faults = [this.fault(n, way, subscribers) for n, way in enumerate(options["faults"])]
        bursts = 0
        while left := subscribers.left():
            if bursts == MOST_BURSTS:
                raise checks.Broken(f"after {bursts} bursts subscribers still have {left} acts")
            this.burst(bursts, subscribers)
            bursts += 1
        # What nobody waited for is written by then, or never will be.
        callers.all_partitions_take_writes(load.PATIENCE_SECONDS)
        calls = callers.stop()
        events = this.log()
        ends = {}
        for event in events:
            ends[event.partition] = event.offset + 1
        reports = subscribers.finish(ends)
    receipts = this.receipts + callers_receipts(calls)
    checks.check_feed_order(events)
    found = checks.check_receipts(receipts, events)
    checks.check_no_repeats(events)
    # Also of what was never acknowledged: nobody sends a purchase twice.
    checks.check_player_order([e for e in events if e.event_type == "item_purchased"])
    check_subscribers(reports, events)
    return result(options, faults, bursts, reports) | {
        "events": len(events),
        "acknowledged": len(receipts),
        "found": found,
        "in_log_but_not_acknowledged": len(events) - found,
        "answers_to_callers": checks.count_answers(calls),
    }


def result(options, faults, bursts, reports):
    """What the subscribers did and met, by kind, and what there has to be of it."""
    by_kind = {}
    for by in "stream", "tail":
        of_kind = [report for report in reports if report.plan.by == by]
        counts = sum((report.counts for report in of_kind), start=collections.Counter())
        by_kind[by] = {"subscribers": len(of_kind)} | dict(sorted(counts.items()))
    resumes = sum(report.resumes() for report in reports)
    stalls = [seconds for report in reports for seconds in report.stall_seconds]
    fell_behind = sum(report.counts["fell behind"] for report in reports)
    return {
        "faults": faults,
        "bursts": bursts,
        "subscribers": by_kind,
        "deliveries": sum(report.counts["events"] for report in reports),
        "resumes": resumes,
        "stalls": len(stalls),
        "stall_seconds_median": statistics.median(stalls),
        "fell_behind": fell_behind,
        "gates": [gate("fell behind", fell_behind, options["least_fell_behind"])],
    }


def gate(what, measured, bound):
    return {"what": what, "at least": bound, "measured": measured, "met": measured >= bound}


if __name__ == "__main__":
    running.prove("kafka_feed", SIZES, proof)
