"""Others write to the topic too: what Herald did not write disturbs nothing."""

import uuid

import readme
import running
from harness import SECONDS, event, field

# None of them is an event: no protobuf, or another message, or nothing at all.
FOREIGN = [b"\xff\xfe\x00garbage", b'{"event_id": "x"}', None, b"", b"\x78\x01"]


def damaged_events(pb):
    """What was an event once, or nearly is one."""
    whole = event(pb, "alice").SerializeToString()
    payload = len(field(18, b"\x0a\x04owls"))
    yield whole[:-1]
    # Only its payload is damaged, by bytes that say they go on, and by what is no text.
    yield whole[:-payload] + field(18, b"\x0a\x09owls")
    yield whole[:-payload] + field(18, b"\x0a\x04owl\xff")
    # Known by its type alone.
    yield pb.GameEvent(event_type="guild_joined", player_id="alice").SerializeToString()


def test_foreign_records_are_gaps_between_events(kafka, herald, topic):
    server = herald()
    alice = {"player_ids": ["alice"]}
    live = server.subscribe().opened()
    filtered = server.subscribe(filter=alice).opened()
    first = server.buy("alice")
    there = first.partition
    # Who has nothing to get but this is told too.
    elsewhere = server.subscribe(filter={"player_ids": ["nobody"]}).opened()
    values = [*FOREIGN, *damaged_events(server.pb)]
    offsets = kafka.put(topic, [(there, b"alice", value) for value in values])
    assert offsets == list(range(1, len(values) + 1))
    last = server.buy("alice")
    gaps = [(there, "GAP_REASON_UNDECODABLE", 1)] * len(values)
    elsewhere.until(lambda: len(elsewhere.gaps()) >= len(gaps), "gaps")
    assert (elsewhere.ids(), elsewhere.gaps()) == ([], gaps)
    for seen in (live, filtered, server.read(), server.read(filter=alice)):
        seen.gets([last.event_id])
        assert seen.ids() == [first.event_id, last.event_id]
        assert seen.gaps() == gaps
        # One by one, and where they are: between the events.
        kinds = [m.WhichOneof("response") for m in seen.messages]
        kinds = [kind for kind in kinds if kind in ("batch", "gap")]
        assert kinds == ["batch", *["gap"] * len(gaps), "batch"]
    # Their operator finds them.
    for offset in offsets:
        server.line(f'a record in the log is no event.*"partition":{there},"offset":{offset},')
    assert server.metric("herald_feed_undecodable_records_total") >= len(gaps)
    # A cursor between them is as good as any.
    cursors = [m.cursor for m in live.messages if m.HasField("gap")]
    for index, cursor in enumerate(cursors):
        resumed = server.read(after_cursor=cursor)
        assert resumed.gaps() == gaps[index + 1 :]
        assert resumed.ids() == [last.event_id]


def test_a_foreign_record_is_seen_as_the_readme_says(kafka, herald, topic):
    server = herald()
    earliest = server.bounds().earliest_cursor
    kafka.put(topic, [(0, b"stranger", b"\xff")])
    for statement in (readme.RESUME, readme.POLL):
        said = readme.typed(server, statement, earliest)
        for word in [*readme.states()["GAP_REASON_UNDECODABLE"], "caughtUp"]:
            assert word in said, f"no {word!r} in:\n{said}"


def test_transactions_of_others_do_not_hold_up_the_feed(kafka, herald, topic):
    server = herald()
    live = server.subscribe().opened()
    first = server.buy("alice")
    there = first.partition

    def transaction(end):
        producer = kafka.producer(**{"transactional.id": f"{topic}-{uuid.uuid4()}"})
        producer.init_transactions(SECONDS)
        producer.begin_transaction()
        producer.produce(topic, b"\xff", b"stranger", there)
        assert producer.flush(SECONDS) == 0
        end(producer)
        return producer

    def tail():
        """What `herald tail` prints; it has to end by itself."""
        return running.herald(
            "tail", "--server", server.url, "--from", "earliest", "--until-caught-up", "--json"
        ).splitlines()

    # A record, and the marker of its end, each time; the last marker is the last of all.
    transaction(lambda producer: producer.commit_transaction(SECONDS))
    transaction(lambda producer: producer.abort_transaction(SECONDS))
    assert len(tail()) == 1
    second = server.buy("alice")
    assert second.offset == 5
    # One that is open holds back who reads only what is committed, which Herald does not.
    producer = transaction(lambda producer: None)
    assert len(tail()) == 2
    third = server.buy("alice")
    assert third.offset == 7
    live.gets([third.event_id])
    assert len(tail()) == 3
    # Its receipt's cursor lies behind where that transaction begins, and is none too far.
    assert server.read(after_cursor=third.cursor).ids() == []
    producer.abort_transaction(SECONDS)
    assert len(tail()) == 3

    ids = [receipt.event_id for receipt in (first, second, third)]
    gaps = [(there, "GAP_REASON_UNDECODABLE", 1)] * 3
    # One whose ring is as good as empty, and so has it from the log itself.
    other = herald("--feed-ring-bytes=1KiB")
    for seen in (live, server.read(), other.read()):
        assert seen.ids() == ids
        assert seen.gaps() == gaps
    # A receipt's cursor in front of a marker, and a cursor behind the last one.
    assert server.read(after_cursor=second.cursor).ids() == [third.event_id]
    end = server.read().cursor()
    assert server.read(after_cursor=end).ids() == []
    assert server.read(after_cursor=end).gaps() == []
