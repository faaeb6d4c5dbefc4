"""Somebody adds partitions to the topic."""

import confluent_kafka.admin

from harness import done

PLAYERS = [f"player-{number}" for number in range(60)]


def test_added_partitions_are_read_and_move_nobody(kafka, herald, topic):
    server = herald("--key-partitions=6")
    calls = [server.buy_soon(player) for player in PLAYERS]
    before = {p: call.result().receipt for p, call in zip(PLAYERS, calls)}
    live = server.subscribe().opened()
    resume = server.read().cursor()

    done(kafka.admin.create_partitions([confluent_kafka.admin.NewPartitions(topic, 8)]))
    strangers = [
        server.pb.GameEvent(
            event_id=f"00000000-0000-4000-8000-00000000000{partition}",
            event_type="guild_joined",
            player_id="stranger",
            guild_joined=server.pb.GuildJoined(guild_id="owls"),
        )
        for partition in (6, 7)
    ]
    records = [(6 + i, b"stranger", e.SerializeToString()) for i, e in enumerate(strangers)]
    assert kafka.put(topic, records) == [0, 0]
    ids = {event.event_id for event in strangers}
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
    done(kafka.admin.create_partitions([confluent_kafka.admin.NewPartitions(topic, 8)]))
    event = server.pb.GameEvent(event_id="x", event_type="guild_joined", player_id="stranger")
    kafka.put(topic, [(7, b"stranger", event.SerializeToString())])
    live.gets(["x"])
    after = server.buy("alice")
    assert (after.partition, after.offset) == (before.partition, before.offset + 1)
    assert server.is_ready()
    # One that starts now cannot know that.
    late = herald()
    late.line("--key-partitions")
    late.is_up_and_serves_nothing()
