"""Events of a later Herald, whose schema has more fields, come through an older one whole."""

import pytest

from harness import field


def newer_events(pb, sender):
    """Events with fields that are not in the schema, by what is special about them."""
    times = iter(range(100))

    def event(*rest, kind="guild_joined"):
        event_id = f"00000000-0000-4000-8000-{next(times):012}"
        head = pb.GameEvent(event_id=event_id, event_type=kind, player_id=sender)
        return b"".join([head.SerializeToString(), *rest])

    payload = field(18, field(1, b"owls"))
    more_payload = field(18, field(1, b"owls") + field(90, b"a rank") + b"\xd8\x05\x07")
    unknown_payload = field(40, field(1, b"horse") + field(2, b"sword"))
    # A field with a length, one that is a varint, one of eight and one of four bytes.
    top = field(900, b"a season") + b"\xa8\x38\x96\x01" + b"\xb1\x38" + b"12345678"
    top += b"\xbd\x38" + b"1234"
    origin = field(6, field(1, b"a request") + field(77, b"a region"))
    other_origin = field(6, field(3, b"127.0.0.1"))
    return {
        "a payload": event(unknown_payload, kind="item_traded"),
        "fields beside the payload": event(top, payload),
        "fields in the payload": event(more_payload),
        "the origin at the end": event(unknown_payload, top, origin, kind="item_traded"),
        "the origin in the middle": event(top, origin, more_payload, field(901, b"x")),
        "the origin in front": origin + event(more_payload, top),
        "the origin twice": event(origin, top, payload, other_origin),
        "a payload twice": event(more_payload, origin, more_payload),
    }


def of_schema(pb, value, with_origin):
    """What a stub makes of the bytes of an event; it keeps what it does not know."""
    event = pb.GameEvent.FromString(value)
    if not with_origin:
        event.ClearField("origin")
    return event.SerializeToString()


@pytest.fixture
def read_in_all_ways(kafka, herald, topic):
    """Puts newer events into a topic: the stub's messages, them, what streams and a poll got."""
    server = herald()
    # One whose ring is as good as empty, and so has them from the topic itself.
    other = herald("--feed-ring-bytes=1KiB")
    values = newer_events(server.pb, "alice")
    alice = {"player_ids": ["alice"]}
    asked = [
        {},
        {"filter": alice},
        {"include_origin": True},
        {"filter": alice, "include_origin": True},
    ]
    live = [(server.subscribe(**request).opened(), request) for request in asked]
    offsets = kafka.put(topic, [(2, b"alice", value) for value in values.values()])
    places = [(2, offset) for offset in offsets]
    seen = []
    for reader, request in live:
        reader.until(lambda: reader.gaps() or len(reader.places()) >= len(places), "events")
        seen.append((reader, request))
    seen += [(other.read(**request), request) for request in asked]
    for reader, _ in seen:
        assert (reader.gaps(), reader.places()) == ([], places)
    streamed = [(reader.events(), request) for reader, request in seen]
    earliest = {"start_position": server.pb.START_POSITION_EARLIEST}
    with_origin = {"include_origin": True}
    polled = [(server.poll(**earliest, **with_origin).result().events, with_origin)]
    return server.pb, values, streamed, polled


def test_what_is_known_of_newer_events_is_delivered(read_in_all_ways):
    pb, values, streamed, polled = read_in_all_ways
    for events, request in streamed + polled:
        for value, delivered in zip(values.values(), events, strict=True):
            whole = pb.GameEvent.FromString(value)
            event = delivered.event
            assert (event.event_id, event.event_type) == (whole.event_id, whole.event_type)
            assert event.player_id == "alice"
            assert event.guild_joined.guild_id == whole.guild_joined.guild_id
            if request.get("include_origin"):
                assert event.origin.request_id == whole.origin.request_id
                assert event.origin.remote_address == whole.origin.remote_address
            else:
                assert not event.HasField("origin")


def are_whole(pb, values, read):
    """Fails unless all events came with all that was in them."""
    for events, request in read:
        with_origin = request.get("include_origin", False)
        for (what, value), delivered in zip(values.items(), events, strict=True):
            expected = of_schema(pb, value, with_origin)
            assert delivered.event.SerializeToString() == expected, (what, request)


def test_what_is_not_known_of_them_is_delivered_too(read_in_all_ways):
    pb, values, streamed, _ = read_in_all_ways
    are_whole(pb, values, streamed)


def test_what_is_not_known_of_them_is_delivered_to_polls_too(read_in_all_ways):
    pb, values, _, polled = read_in_all_ways
    are_whole(pb, values, polled)
