"""Two Heralds on one topic are one service."""

import random

PLAYERS = [f"player-{number}" for number in range(30)]
EVENTS = 400


def test_two_servers_have_one_feed(herald):
    # The ring of the second is as good as empty: who comes back to it reads the log itself.
    servers = [herald(), herald("--feed-ring-bytes=1KiB")]
    live = [server.subscribe().opened() for server in servers]
    calls = [
        server.buy_soon(random.choice(PLAYERS)) for _ in range(EVENTS // 2) for server in servers
    ]
    receipts = [call.result().receipt for call in calls]
    written = {receipt.event_id: (receipt.partition, receipt.offset) for receipt in receipts}
    assert len(written) == EVENTS

    whole = [server.read() for server in servers]
    for seen in [subscription.gets(written) for subscription in live] + whole:
        assert len(seen.ids()) == EVENTS
        assert dict(zip(seen.ids(), seen.places())) == written
        for partition in range(6):
            offsets = [offset for where, offset in seen.places() if where == partition]
            assert offsets == sorted(offsets)

    # From any place in one feed the other goes on, with exactly the rest.
    for here, there in [(0, 1), (1, 0)]:
        for until in random.sample(range(len(live[here].messages)), 5):
            before = live[here].messages[: until + 1]
            seen = [d.event.event_id for message in before for d in message.batch.events]
            rest = servers[there].read(after_cursor=before[-1].cursor).ids()
            assert len(rest) == len(set(rest))
            assert set(rest) == set(written) - set(seen)
        # A receipt's cursor too: nothing that comes after its event is missing.
        receipt = random.choice(receipts)
        rest = servers[there].read(after_cursor=receipt.cursor).places()
        wanted = {
            (partition, offset)
            for partition, offset in written.values()
            if partition == receipt.partition and offset > receipt.offset
        }
        assert wanted == {place for place in rest if place[0] == receipt.partition}
