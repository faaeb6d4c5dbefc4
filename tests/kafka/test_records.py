"""What Herald writes is what tools of Kafka and protobuf understand, without Herald."""

import uuid

from google.protobuf import text_format

from harness import SECONDS, complaints, decode

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def headers(text):
    """kcat's name=value,…"""
    return dict(one.split("=", 1) for one in text.split(","))


def test_kcat_shows_cloudevents_that_protoc_decodes(kafka, herald, topic):
    server = herald()
    pb = server.pb
    request_id = str(uuid.uuid4())
    purchase = pb.PurchaseItemRequest(
        player_id="zoë", item_id="horse", quantity=3, request_id=request_id
    )
    metadata = [("traceparent", TRACE), ("x-request-id", "of-a-proxy")]
    bought = server.stub.game.PurchaseItem(purchase, timeout=SECONDS, metadata=metadata)
    joined = server.stub.game.JoinGuild(
        pb.JoinGuildRequest(player_id="bob", guild_id="owls"), timeout=SECONDS
    )

    seen = {key: rest for key, *rest in kafka.records(topic, r"%k\t%p\t%o\t%h")}
    assert set(seen) == {"zoë", "bob"}
    for player, receipt, kind in [
        ("zoë", bought.receipt, "game.v1.ItemPurchased"),
        ("bob", joined.receipt, "game.v1.GuildJoined"),
    ]:
        partition, offset, shown = seen[player]
        assert (int(partition), int(offset)) == (receipt.partition, receipt.offset)
        expected = {
            "ce_specversion": "1.0",
            "ce_id": receipt.event_id,
            "ce_type": kind,
            "ce_source": "herald",
            "ce_time": receipt.accept_time.ToJsonString(),
            "content-type": "application/protobuf",
        }
        if player == "zoë":
            expected["traceparent"] = TRACE
        assert headers(shown) == expected

    place = ["-p", bought.receipt.partition, "-o", bought.receipt.offset]
    value = kafka.kcat("-C", "-t", topic, *place, "-c", 1, "-f", "%s")
    event = text_format.Parse(decode(value), pb.GameEvent())
    assert event.event_id == bought.receipt.event_id
    assert (event.event_type, event.player_id) == ("item_purchased", "zoë")
    assert event.accept_time == bought.receipt.accept_time
    assert event.item_purchased == bought.purchase
    assert event.item_purchased.quantity == 3
    assert event.origin.request_id == request_id
    assert event.origin.headers["x-request-id"] == "of-a-proxy"
    assert event.origin.transport == pb.TRANSPORT_GRPC


def test_players_are_where_other_producers_put_their_keys(kafka, herald, topic):
    players = [f"player-{number}" for number in range(200)]
    # Each length and so each rest of murmur2's blocks of four, and bytes above 127.
    players += ["x" * length for length in range(1, 129)]
    players += [f"{name} {number}" for name in ("Zoë", "李雷", "🐎") for number in range(10)]
    server = herald()
    calls = [server.buy_soon(player) for player in players]
    by_herald = {p: call.result().receipt.partition for p, call in zip(players, calls)}
    assert len(set(by_herald.values())) == 6
    assert {key: int(p) for key, p in kafka.records(topic, r"%k\t%p")} == by_herald

    lines = "".join(f"{player}\tx\n" for player in players).encode()
    for other in ("java", "librdkafka"):
        kafka.create(f"{topic}-{other}")
    producer = "org.apache.kafka.tools.ConsoleProducer"
    kafka.tool(producer, "--topic", f"{topic}-java", "--property", "parse.key=true", given=lines)
    murmur2 = ["-K", r"\t", "-X", "partitioner=murmur2"]
    kafka.kcat("-P", "-t", f"{topic}-librdkafka", *murmur2, given=lines)
    for other in ("java", "librdkafka"):
        found = kafka.records(f"{topic}-{other}", r"%k\t%p")
        assert {key: int(partition) for key, partition in found} == by_herald, other


def test_a_new_topic_is_made_to_keep_everything(kafka, herald, topic):
    server = herald()
    flags = ["--topic-replication-factor=1", "--topic-min-insync-replicas=1"]
    herald(*flags, "--key-partitions=3", topic=f"{topic}-3")

    describe = ["org.apache.kafka.tools.TopicCommand", "--describe"]
    shown = kafka.tool(*describe, "--topic", f"{topic}.*")
    found = {}
    # One line for each topic, and one for each partition.
    for line in shown.splitlines():
        fields = dict(field.strip().split(":", 1) for field in line.split("\t") if ":" in field)
        fields = {name: value.strip() for name, value in fields.items()}
        if "PartitionCount" in fields:
            counts = fields["PartitionCount"], fields["ReplicationFactor"]
            found[fields["Topic"]] = counts, set(fields["Configs"].split(","))
    keeps_all = {
        "cleanup.policy=delete",
        "message.timestamp.type=LogAppendTime",
        "retention.bytes=-1",
        "retention.ms=-1",
    }
    counts, config = found.pop(topic)
    assert counts == ("6", "1")
    assert keeps_all <= config
    counts, config = found.pop(f"{topic}-3")
    assert counts == ("3", "1")
    assert keeps_all | {"min.insync.replicas=1"} <= config
    assert not found
    # A first start is nothing to worry about.
    server.becomes_ready()
    assert not complaints(server)


def test_receipts_and_the_feed_agree_with_kafka(kafka, herald, topic):
    server = herald()
    calls = [server.buy_soon(f"player-{number % 20}") for number in range(100)]
    receipts = [call.result().receipt for call in calls]
    delivered = {d.event.event_id: d for d in server.read().events()}

    shown = kafka.records(topic, r"%p\t%o\t%T\t%k\t%h")
    assert len(shown) == len(receipts) == len(delivered)
    in_kafka = {headers(h)["ce_id"]: (int(p), int(o), int(t), k) for p, o, t, k, h in shown}
    for receipt in receipts:
        partition, offset, millis, player = in_kafka[receipt.event_id]
        assert (receipt.partition, receipt.offset) == (partition, offset)
        one = delivered[receipt.event_id]
        assert (one.partition, one.offset, one.event.player_id) == (partition, offset, player)
        assert one.append_time.ToMilliseconds() == millis
