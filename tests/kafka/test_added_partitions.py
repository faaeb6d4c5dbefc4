"""Somebody adds partitions to the topic."""

from harness import event, large_events

PLAYERS = [f"player-{number}" for number in range(60)]


def test_added_partitions_are_read_and_move_nobody(kafka, herald, topic):
    server = herald("--key-partitions=6")
    calls = [server.buy_soon(player) for player in PLAYERS]
    before = {p: call.result().receipt for p, call in zip(PLAYERS, calls)}
    live = server.subscribe().opened()
    resume = server.read().cursor()

    kafka.add_partitions(topic, 8)
    strangers = [event(server.pb, "stranger") for _ in range(2)]
    for partition, one in zip((6, 7), strangers):
        assert kafka.put_events(topic, partition, [one]) == [0]
    ids = {one.event_id for one in strangers}
    # Who was there, who comes back, and who begins.
    live.gets(ids)
    assert sorted(live.places()) == [(6, 0), (7, 0)]
    resumed = server.read(after_cursor=resume)
    assert (set(resumed.ids()), resumed.gaps()) == (ids, [])
    assert set(server.read().ids()) == ids | {receipt.event_id for receipt in before.values()}
    assert len(server.bounds().partitions) == 8

    # Another server has the same idea of where players are.
    for one in (server, herald("--key-partitions=6")):
        calls = [one.buy_soon(player) for player in PLAYERS]
        after = {p: call.result().receipt for p, call in zip(PLAYERS, calls)}
        assert {p: r.partition for p, r in after.items()} == {
            p: r.partition for p, r in before.items()
        }
    live.gets(receipt.event_id for receipt in after.values())
    assert len(live.ids()) == len(set(live.ids()))


def test_a_running_server_goes_on_when_partitions_are_added(kafka, herald, topic):
    # It was told nothing of partitions, and so has spread players over the six there were.
    server = herald()
    live = server.subscribe().opened()
    before = server.buy("alice")
    kafka.add_partitions(topic, 8)
    added = event(server.pb, "stranger")
    kafka.put_events(topic, 7, [added])
    live.gets([added.event_id])
    after = server.buy("alice")
    assert (after.partition, after.offset) == (before.partition, before.offset + 1)
    assert server.is_ready()
    # One that starts now cannot know that.
    late = herald()
    late.line("--key-partitions")
    late.is_up_and_serves_nothing()


def test_who_filters_or_is_behind_reads_added_partitions_from_their_start(kafka, herald, topic):
    # Who stalls is behind what such a ring holds, and so reads the topic itself.
    server = herald("--key-partitions=6", "--feed-ring-bytes=1MiB")
    earliest = {"start_position": server.pb.START_POSITION_EARLIEST}
    stranger = {"player_ids": ["stranger"]}
    first = server.buy("alice")
    there = first.partition
    large = large_events(server.pb, ["other", "stranger"], 200)
    kafka.put_events(topic, there, large)
    whole = {(there, offset) for offset in range(201)}
    of_stranger = {(there, offset) for offset in range(2, 201, 2)}
    # Before there are more: who is there, who is behind, and cursors of all kinds.
    live = server.subscribe(filter=stranger).opened()
    behind = server.stall(**earliest)
    filtered = server.stall(**earliest, filter=stranger)
    passed = server.read(filter={"player_ids": ["nobody"]}).cursor()
    resumes = {first.cursor: whole - {(there, 0)}, passed: set()}
    resumes[server.bounds().latest_cursor] = set()

    kafka.add_partitions(topic, 8)
    for partition in (6, 7):
        events = [event(server.pb, player) for player in ("other", "stranger")]
        assert kafka.put_events(topic, partition, events) == [0, 1]
    added = {(partition, offset) for partition in (6, 7) for offset in (0, 1)}
    added_of_stranger = {(6, 1), (7, 1)}
    for seen, wanted in [
        (live, added_of_stranger),
        (behind, whole | added),
        (filtered, of_stranger | added_of_stranger),
    ]:
        seen.go_on().until(lambda: wanted <= set(seen.places()), "all of it")
        assert len(seen.places()) == len(wanted)
        assert seen.gaps() == []
        # From here on the cursor says where one is in the new ones too.
        resumed = server.read(after_cursor=seen.cursor())
        assert resumed.places() == []
        starts = {at.partition: at.offset for at in resumed.messages[0].opened.start_offsets}
        assert len(starts) == 8 and (starts[6], starts[7]) == (2, 2)
    for cursor, rest in resumes.items():
        resumed = server.read(after_cursor=cursor)
        assert set(resumed.places()) == rest | added
        assert len(resumed.places()) == len(rest | added)
        resumed = server.read(after_cursor=cursor, filter=stranger)
        assert set(resumed.places()) == (rest & of_stranger) | added_of_stranger
