"""An event that came twice, as by a retry that reached two servers, is one event."""

import copy

from harness import event

# What lies between the two: more than a Herald reads at once.
BETWEEN = 600


def test_an_event_that_came_twice_is_delivered_once(kafka, herald, topic):
    server = herald()
    # The ring of the second is as good as empty: its subscribers read the log itself.
    other = herald("--feed-ring-bytes=1KiB")
    live = [server.subscribe().opened(), other.subscribe().opened()]
    once = event(server.pb, "alice")
    between = [event(server.pb, "bob") for _ in range(BETWEEN)]
    # Its writer had seen both, and means it.
    anew = copy.deepcopy(once)
    anew.checked_through_offset = BETWEEN + 2
    kafka.put_events(topic, 3, [once, *between, once, anew])
    kafka.put_events(topic, 4, [once])

    ids = [once.event_id, *(e.event_id for e in between), once.event_id]
    places = [*((3, offset) for offset in range(BETWEEN + 1)), (3, BETWEEN + 2)]
    late = herald()
    alice = {"player_ids": ["alice"]}
    for seen in live:
        seen.until(lambda seen=seen: len(seen.ids()) >= len(ids) + 1, "all events")
    whole = [each.read() for each in (server, other, late)]
    for seen in live + whole:
        there = [(e, p) for e, p in zip(seen.ids(), seen.places()) if p[0] == 3]
        assert there == list(zip(ids, places))
        assert (4, 0) in seen.places()
        assert seen.gaps() == []
    for each in (server, other, late):
        wanted = each.read(filter=alice).places()
        assert sorted(wanted) == [(3, 0), (3, BETWEEN + 2), (4, 0)]
    assert server.metric("herald_feed_duplicate_records_total") == 1

    # Whoever starts between the two is told as little of the second.
    messages = live[1].messages
    for until in range(0, len(messages), 1 + len(messages) // 8):
        told = [d for message in messages[: until + 1] for d in message.batch.events]
        told = {(delivered.partition, delivered.offset) for delivered in told}
        for each in (other, late):
            rest = each.read(after_cursor=messages[until].cursor).places()
            assert sorted(rest) == sorted({*places, (4, 0)} - told)
