"""What is checked against the log: receipts, and the order of each player."""

import collections
import dataclasses
import json


class Broken(Exception):
    """A promise that does not hold."""


@dataclasses.dataclass(frozen=True)
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


@dataclasses.dataclass(frozen=True)
class Logged:
    """One event of the log."""

    event_id: str
    player_id: str
    sequence: int
    partition: int
    offset: int

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
        )


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
