"""What is checked against the log: receipts, other answers, and orders."""

import collections
import dataclasses
import itertools
import json


class Broken(Exception):
    """A promise that does not hold."""


@dataclasses.dataclass(frozen=True, slots=True)
class Receipt:
    """One acknowledged call, as `herald bench write --receipts` writes it."""

    request_id: str
    player_id: str
    sequence: int
    event_id: str
    partition: int
    offset: int


def read_receipts(path):
    """The receipts in a file. A last line that was cut off is none."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")[:-1]
    return [receipt_of(line) for line in lines]


def receipt_of(line):
    """From a line of tab-separated fields or of JSON."""
    if line.startswith("{"):
        values = json.loads(line)
        fields = [values[field.name] for field in dataclasses.fields(Receipt)]
    else:
        fields = line.split("\t")
    if len(fields) != 6:
        raise Broken(f"not a receipt: {line!r}")
    request_id, player_id, sequence, event_id, partition, offset = fields
    return Receipt(request_id, player_id, int(sequence), event_id, int(partition), int(offset))


@dataclasses.dataclass(frozen=True, slots=True)
class Logged:
    """One event of the log."""

    event_id: str
    player_id: str
    sequence: int
    partition: int
    offset: int
    # Empty unless the origin was asked for.
    request_id: str = ""
    event_type: str = ""
    guild_id: str = ""

    @classmethod
    def of(cls, delivered):
        """From a DeliveredEvent in proto3 JSON, which leaves out zeros."""
        event = delivered["event"]
        return cls(
            event["eventId"],
            event.get("playerId", ""),
            event.get("itemPurchased", {}).get("quantity", 0),
            delivered.get("partition", 0),
            int(delivered.get("offset", "0")),
            event.get("origin", {}).get("requestId", ""),
            event.get("eventType", ""),
            event.get("guildJoined", {}).get("guildId", ""),
        )


def logged(delivered):
    """All of them."""
    return [Logged.of(event) for event in delivered]


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One call of a caller that writes down how it was answered, times in seconds."""

    request_id: str
    deadline: float
    sent: float
    took: float
    code: str
    reason: str
    says_when_to_retry: bool
    receipt: Receipt | None

    @property
    def answer(self):
        return " ".join(filter(None, (self.code, self.reason)))


# How a write can be answered while the log has trouble.
ACKNOWLEDGED = "OK"
NOT_WRITTEN = ("UNAVAILABLE LOG_UNAVAILABLE", "RESOURCE_EXHAUSTED OVERLOADED")
UNKNOWN = "DEADLINE_EXCEEDED WRITE_OUTCOME_UNKNOWN"

# What a busy machine may take to carry an answer to its caller.
CARRIAGE_SECONDS = 1


def check_feed_order(events):
    """Each partition comes once, from offset to higher offset."""
    newest = {}
    for event in events:
        if event.offset <= newest.get(event.partition, -1):
            raise Broken(f"{event} came after offset {newest[event.partition]}")
        newest[event.partition] = event.offset


def check_receipts(receipts, events):
    """Each acknowledged event is in the log exactly once, at its place."""
    places = collections.defaultdict(list)
    for event in events:
        places[event.event_id].append(event)
    acknowledged = set()
    for receipt in receipts:
        if receipt.event_id in acknowledged:
            raise Broken(f"acknowledged twice: {receipt}")
        acknowledged.add(receipt.event_id)
        found = places.get(receipt.event_id, [])
        if len(found) != 1:
            raise Broken(f"{len(found)} times in the log: {receipt}; {found}")
        event = found[0]
        for field in ("partition", "offset", "player_id", "sequence"):
            if getattr(event, field) != getattr(receipt, field):
                raise Broken(f"another {field} in the log: {receipt}; {event}")
    return len(acknowledged)


def check_player_order(receipts, players_start_at_one=False):
    """What a player's calls were sent as is the order in which they lie in the log.

    The receipts are those of one run that sends a player's calls one after the
    other. With `players_start_at_one` no call is missing either.
    """
    players = collections.defaultdict(list)
    for receipt in receipts:
        players[receipt.player_id].append(receipt)
    for player, sent in players.items():
        if len({receipt.partition for receipt in sent}) != 1:
            raise Broken(f"events of {player} are in several partitions")
        sequences = [receipt.sequence for receipt in sorted(sent, key=lambda r: r.offset)]
        if sequences != sorted(set(sequences)):
            raise Broken(f"events of {player} are in another order than sent: {sequences}")
        if players_start_at_one and sequences != list(range(1, len(sequences) + 1)):
            raise Broken(f"events of {player} are missing: {sequences}")
    return len(players)


def repeats(events):
    """Events that are there again, each with the first of them."""
    seen = {}
    pairs = ((seen.setdefault(event.event_id, event), event) for event in events)
    return [(first, event) for first, event in pairs if event is not first]


def check_no_repeats(events):
    """No event is there twice, acknowledged or not: none of these was sent twice."""
    if twice := repeats(events):
        raise Broken(f"{len(twice)} events are twice in the log, such as {twice[0]}")


def check_places(events, places):
    """Another reader finds records at the same places, and nowhere else."""
    if len(places) != len(events):
        raise Broken(f"{len(events)} events in the feed, {len(places)} records in the topic")
    elsewhere = {(event.partition, event.offset) for event in events}.symmetric_difference(places)
    if elsewhere:
        raise Broken(f"{len(elsewhere)} places differ, such as {min(elsewhere)}")


def check_same_feed(one, other):
    """Two readers got the same events, in the same order in each partition."""
    ones, others = by_partition(one), by_partition(other)
    for partition in ones.keys() | others.keys():
        pairs = itertools.zip_longest(ones.get(partition, []), others.get(partition, []))
        for number, (left, right) in enumerate(pairs):
            if left != right:
                raise Broken(f"partition {partition}, event {number}: {left} and {right}")


def check_taken(event_ids, events):
    """A reader has taken these events so far: those of the log, in its order, none left out."""
    known = {event.event_id: event for event in events}
    if strange := [each for each in event_ids if each not in known]:
        raise Broken(f"{len(strange)} are not in the log, such as {strange[0]}")
    taken = [known[each] for each in event_ids]
    parts = by_partition(taken)
    begun = [
        event
        for partition, whole in by_partition(events).items()
        for event in whole[: len(parts.get(partition, []))]
    ]
    check_same_feed(taken, begun)


def by_partition(events):
    partitions = collections.defaultdict(list)
    for event in events:
        partitions[event.partition].append(event)
    return partitions


def check_start(account, starts, exactly):
    """A stream starts behind what its subscriber has processed; `exactly` if it wants all."""
    for partition, start in starts.items():
        due = account.due(partition)
        if start < due or (exactly and start != due):
            raise Broken(f"partition {partition}: a stream starts at {start}, {due} is due")
    if missing := account.dues().keys() - starts.keys():
        raise Broken(f"a stream starts without partitions {missing}")


def check_account(who, account, expected):
    """A subscriber has processed what it should have: same events, same order, each once."""
    if account.partitions == expected.partitions:
        return account.events()
    nothing = (0, 0, 0)
    for partition in sorted(account.partitions.keys() | expected.partitions.keys()):
        count, due, _ = found = account.partitions.get(partition, nothing)
        wanted_count, wanted_due, _ = wanted = expected.partitions.get(partition, nothing)
        if found != wanted:
            raise Broken(
                f"{who}, partition {partition}: {count} events up to offset {due}, "
                f"{wanted_count} up to {wanted_due} are in the topic"
                + (", and not the same ones" if (count, due) == (wanted_count, wanted_due) else "")
            )


def check_deadlines(calls):
    """Each call is answered within its deadline. Returns the longest part of it taken."""
    for call in calls:
        if call.took > call.deadline + CARRIAGE_SECONDS:
            raise Broken(f"answered too late: {call}")
    return max((round(call.took / call.deadline, 3) for call in calls), default=None)


def check_answers(calls, events):
    """What calls were told about their events is true.

    Not written means not in the log, and comes with a time to come back. Of unknown
    ones, some are there and some are not. (Acknowledged ones have receipts; see there.)
    Returns how often each answer was given.
    """
    written = {event.request_id for event in events}
    counts = collections.Counter(count_answers(calls))
    for call in calls:
        if call.answer in NOT_WRITTEN:
            if call.request_id in written:
                raise Broken(f"in the log, and said not to be: {call}")
            if not call.says_when_to_retry:
                raise Broken(f"without a time to come back: {call}")
        elif call.answer == UNKNOWN:
            counts[f"{UNKNOWN}, in the log"] += call.request_id in written
        elif call.answer != ACKNOWLEDGED:
            raise Broken(f"not an answer to a write: {call}")
    return dict(sorted(counts.items()))


def receipts_of(calls):
    """The receipts of those that were acknowledged, in order for each player."""
    receipts = [call.receipt for call in calls if call.receipt]
    check_player_order(receipts)
    return receipts


def count_answers(calls):
    return dict(sorted(collections.Counter(call.answer for call in calls).items()))


def check_nothing_acknowledged(calls):
    """While nothing can become durable, nothing is acknowledged."""
    for call in calls:
        if call.answer == ACKNOWLEDGED:
            raise Broken(f"acknowledged without a log: {call}")


def check_unacknowledged(events, unknown):
    """Events without a receipt are those of unknown outcome.

    Each call that was refused, and whose event is there all the same, would be one more.
    """
    if events > unknown:
        raise Broken(f"{events} events were never acknowledged, {unknown} may be")


def check_failures(failed):
    """Failures of a load are those that a log in trouble causes."""
    if strange := failed.keys() - {"Unavailable", "DeadlineExceeded", "ResourceExhausted"}:
        raise Broken(f"calls failed with {strange}: {failed}")
    return failed
