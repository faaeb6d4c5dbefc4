"""A topic that cannot be the log is refused, and the line about it says what helps."""

import re

import pytest

from harness import UNAVAILABLE, complaints, problem


def test_settings_are_mended_with_the_commands_that_the_log_names(kafka, herald, topic):
    settings = {"message_timestamp_type": "CreateTime", "cleanup_policy": "compact"}
    kafka.create(topic, **settings, min_insync_replicas="1")
    server = herald("--topic-min-insync-replicas=1")
    said = problem(server)
    assert "is not fit to be the log" in said
    server.is_up_and_serves_nothing()
    commands = re.findall(r"kafka-configs\.sh ([^;]*)", said)
    assert len(commands) == 2, said
    for command in commands:
        kafka.configs(command)
    server.becomes_ready()
    receipt = server.buy("alice")
    assert server.read().ids() == [receipt.event_id]
    # It went on for seconds, and each thing was said once.
    assert len(set(complaints(server))) == len(complaints(server)), server.said()


def test_too_few_replicas_in_sync_are_mended_in_the_same_way(kafka, herald, topic):
    kafka.create(topic, min_insync_replicas="1")
    server = herald("--topic-min-insync-replicas=2")
    said = problem(server)
    server.is_up_and_serves_nothing()
    (command,) = re.findall(r"kafka-configs\.sh ([^;]*)", said)
    kafka.configs(command)
    # One broker cannot have two replicas, and so it says what is the matter now.
    server.line("the log takes no writes.*as many replicas in sync as min.insync.replicas asks")
    assert tuple(server.refuses_to_buy()[:-1]) == UNAVAILABLE
    # That is no reason not to read.
    assert server.read().ids() == []


@pytest.mark.parametrize(
    "partitions, flags, says, helps",
    [
        (12, [], "it has 12 partitions; say with --key-partitions", ["--key-partitions=12"]),
        (3, ["--key-partitions=6"], "add partitions, or ask for 3", ["--key-partitions=3"]),
        (6, ["--topic-replication-factor=3"], "or ask for 1", ["--topic-replication-factor=1"]),
    ],
)
def test_flags_that_do_not_fit_are_named(kafka, herald, topic, partitions, flags, says, helps):
    kafka.create(topic, partitions)
    server = herald(*flags)
    assert says in problem(server)
    server.is_up_and_serves_nothing()
    better = herald(*helps)
    better.becomes_ready()
    assert better.buy("alice").offset == 0


def test_a_topic_that_cannot_be_made_is_no_reason_to_end(kafka, herald, topic):
    server = herald("--topic-replication-factor=3")
    assert "replication factor" in problem(server)
    server.is_up_and_serves_nothing()
    # Somebody makes it, with what there is.
    kafka.create(topic)
    server.line("the log takes no writes.*or ask for 1")
    server.is_up_and_serves_nothing()
