"""Somebody trims the topic."""

import json

from harness import EXPIRED


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
