"""What a subscriber asks for, and what it has processed."""

import dataclasses
import zlib

import calling
import checks


@dataclasses.dataclass(frozen=True)
class Filter:
    """What a subscriber asks for; all when empty."""

    types: tuple = ()
    players: tuple = ()
    guilds: tuple = ()

    def wants(self, event):
        """Whether an event is to be delivered, by the rules of the schema."""
        return all(
            not wanted or value in wanted
            for wanted, value in (
                (self.types, event.event_type),
                (self.players, event.player_id),
                (self.guilds, event.guild_id),
            )
        )

    def is_empty(self):
        return self == Filter()

    def __str__(self):
        players = [f"{len(self.players)} players"] if self.players else []
        return ", ".join([*self.types, *players, *self.guilds]) or "all events"

    def message(self):
        """As an EventFilter."""
        lists = enumerate((self.types, self.players, self.guilds), start=1)
        return b"".join(
            calling.text_field(number, value) for number, values in lists for value in values
        )


class Account:
    """What a subscriber has processed, in a few numbers a partition.

    How many events, the offset behind the last one, and a sum over places and event ids in
    the order in which they came: two accounts are the same only if the events are.
    """

    NOTHING = (0, 0, 0)

    def __init__(self, partitions=()):
        self.partitions = dict(partitions)

    def take(self, partition, offset, event_id, all_come):
        """One more event. With `all_come` none may be left out before it."""
        count, due, total = self.partitions.get(partition, self.NOTHING)
        if offset < due:
            raise checks.Broken(f"partition {partition}: offset {offset} came again, {due} is due")
        if all_come and offset != due:
            raise checks.Broken(f"partition {partition}: offset {offset} came, {due} is due")
        self.partitions[partition] = (count + 1, offset + 1, summed(total, offset, event_id))

    def due(self, partition):
        """The offset behind the last event."""
        return self.partitions.get(partition, self.NOTHING)[1]

    def dues(self):
        return {partition: due for partition, (_, due, _) in self.partitions.items()}

    def events(self):
        return sum(count for count, _, _ in self.partitions.values())

    def copy(self):
        return Account(self.partitions)


def summed(total, offset, event_id):
    return zlib.crc32(b"%d %s " % (offset, event_id), total)


def account_of(events):
    """The account of one who has processed these."""
    account = Account()
    for event in events:
        account.take(event.partition, event.offset, event.event_id.encode(), all_come=False)
    return account
