"""What earlier releases have on the wire still works: their clients' requests, the records of
their servers, and what they read of answers.
"""

import pytest
from google.protobuf import json_format

import released
from harness import SECONDS


@pytest.fixture(params=released.versions())
def release(request):
    return request.param


@pytest.fixture
def start(herald, tmp_path):
    """Starts a server with the catalogue of the recording, and returns a channel to it."""
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(released.CATALOG)

    def start():
        server = herald("--catalog", catalog)
        server.becomes_ready()
        return server.channel

    return start


def call(schema, channel, entry):
    return schema.client(channel, entry["rpc"])(bytes.fromhex(entry["bytes"]), timeout=SECONDS)


def test_requests_of_a_release_do_what_they_did(release, start):
    schema, wire = released.Schema.of(release), released.wire(release)
    channel = start()
    for entry in wire["actions"]:
        answer = call(schema, channel, entry)
        assert not answer.receipt.replayed
        # So that a retry finds it that comes after the servers were replaced.
        assert answer.receipt.event_id == entry["event_id"]
    expected = [event_of(schema, entry) for entry in wire["events"]]
    assert carried_out(schema.log(channel)) == carried_out(expected)
    for entry in wire["reads"]:
        assert released.essence(call(schema, channel, entry)) == entry["answer"], entry["rpc"]


def carried_out(events):
    return [released.kept(e) for e in events if e.event_type != "request_rejected"]


def event_of(schema, entry):
    return schema.message("GameEvent").FromString(bytes.fromhex(entry["bytes"]))


def test_records_of_a_release_are_read_and_count(release, start, kafka, topic):
    schema, wire = released.Schema.of(release), released.wire(release)
    kafka.create(topic)
    producer = kafka.producer(partitioner="murmur2_random")
    for entry in wire["events"]:
        producer.produce(topic, bytes.fromhex(entry["bytes"]), entry["says"]["playerId"])
    assert producer.flush(SECONDS) == 0
    channel = start()
    # The feed leaves out what is private.
    says = [{k: v for k, v in e["says"].items() if k != "origin"} for e in wire["events"]]
    assert [json_format.MessageToDict(event) for event in schema.log(channel)] == says
    # They were carried out: whoever tries again is told so.
    for entry in wire["actions"]:
        answer = call(schema, channel, entry)
        assert answer.receipt.replayed and answer.receipt.event_id == entry["event_id"]
    assert len(schema.log(channel)) == len(wire["events"])
    player = schema.message("GetPlayerRequest")(player_id=wire["events"][0]["says"]["playerId"])
    client = schema.client(channel, "GameService/GetPlayer")
    found = client(player.SerializeToString(), timeout=SECONDS).player
    assert [(item.item_id, item.quantity) for item in found.inventory] == [("knife", 2)]


def test_there_is_a_release():
    assert "0.1.0" in released.versions()


def test_what_was_recorded_is_what_it_says(release, modules):
    """By the schema of that time, and by the present one, which knows all of it still."""
    schema, wire = released.Schema.of(release), released.wire(release)
    pb = modules[0]
    for entry in wire["actions"] + wire["reads"]:
        classes = schema.method(entry["rpc"])[0], getattr(pb, type_of(schema, entry))
        check(classes, entry)
    for entry in wire["events"]:
        check((schema.message("GameEvent"), pb.GameEvent), entry)


def type_of(schema, entry):
    return schema.method(entry["rpc"])[0].DESCRIPTOR.name


def check(classes, entry):
    for kind in classes:
        message = kind.FromString(bytes.fromhex(entry["bytes"]))
        assert json_format.MessageToDict(message) == entry["says"]
        assert message.SerializeToString(deterministic=True).hex() == entry["bytes"]
