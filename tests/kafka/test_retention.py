"""Somebody trims the topic."""

import json

from harness import EXPIRED, large_events, until

# The first record that is left of some four hundred.
KEPT_FROM = 350


def test_who_was_at_what_was_removed_is_told(kafka, herald, topic, tmp_path):
    server = herald()
    before = server.bounds().earliest_cursor
    live = server.subscribe().opened()
    receipts = [server.buy("alice") for _ in range(20)]
    there = receipts[0].partition

    trim = {"version": 1, "partitions": [{"topic": topic, "partition": there, "offset": 15}]}
    file = tmp_path / "trim.json"
    file.write_text(json.dumps(trim))
    kafka.tool("org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file", file)

    for cursor in (before, receipts[13].cursor):
        assert server.resuming_fails_with(cursor) == EXPIRED
    # This one is just in front of the first that is left.
    kept = [receipt.event_id for receipt in receipts[15:]]
    assert server.read(after_cursor=receipts[14].cursor).ids() == kept
    bounds = server.bounds()
    assert bounds.partitions[there].start_offset == 15
    for request in ({}, {"after_cursor": bounds.earliest_cursor}):
        seen = server.read(**request)
        assert (seen.ids(), seen.gaps()) == (kept, [])
    # Writing goes on, and who was ahead does not notice.
    last = server.buy("alice")
    assert last.offset == 20
    everything = [receipt.event_id for receipt in [*receipts, last]]
    assert live.gets(everything).ids() == everything
    assert live.gaps() == []
    # A server that starts now has never seen what is gone.
    assert herald().read().ids() == [*kept, last.event_id]


def test_who_is_behind_and_overtaken_is_told_and_goes_on(kafka, herald, topic):
    # Who stalls is behind what such a ring holds, and so reads the topic itself.
    server = herald("--feed-ring-bytes=1MiB")
    earliest = {"start_position": server.pb.START_POSITION_EARLIEST}
    stranger = {"player_ids": ["stranger-1"]}
    first = server.buy("alice")
    there = first.partition
    # Live, until that is too much for it.
    fallen = server.stall()
    players = ["stranger-0", "stranger-1"]
    assert kafka.put_events(topic, there, large_events(server.pb, players, 400))[-1] == 400
    behind = server.stall(**earliest)
    filtered = server.stall(**earliest, filter=stranger)
    live = [
        server.subscribe().opened(),
        server.subscribe(filter={"player_ids": ["alice"]}).opened(),
    ]
    # Far more than is on its way to them; what is left is more than the ring holds.
    kafka.trim(topic, there, KEPT_FROM)
    until(lambda: server.bounds().partitions[there].start_offset == KEPT_FROM, "an effect")
    news = [server.buy("alice") for _ in range(3)]

    of_stranger = range(2, 401, 2)
    for seen, wanted, last in [
        (behind, range(404), news[-1].offset),
        (fallen, range(1, 404), news[-1].offset),
        (filtered, of_stranger, of_stranger[-1]),
    ]:
        seen.go_on().until(lambda: (there, last) in seen.places(), f"offset {last}")
        ((partition, reason, missed),) = seen.gaps()
        assert (partition, reason) == (there, "GAP_REASON_RETENTION")
        # What is not missing is there, and so the count is right.
        offsets = [offset for _, offset in seen.places()]
        assert offsets == [o for o in wanted if not KEPT_FROM - missed <= o < KEPT_FROM]
        assert missed > 0
        # A cursor in front of the gap has expired, and the gap's own is good.
        gap = next(n for n, m in enumerate(seen.messages) if m.HasField("gap"))
        assert server.resuming_fails_with(seen.messages[gap - 1].cursor) == EXPIRED
        resumed = server.read(after_cursor=seen.messages[gap].cursor)
        assert [offset for _, offset in resumed.places()] == list(range(KEPT_FROM, 404))
        assert resumed.gaps() == []
    for subscription in live:
        ids = [receipt.event_id for receipt in news]
        assert subscription.gets(ids).ids() == ids
        assert subscription.gaps() == []
