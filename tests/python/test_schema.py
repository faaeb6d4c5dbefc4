"""What `herald schema` prints, read by the tools that it is for."""

import copy
import json
import os
import pty
import sqlite3
import subprocess
import sys

import jsonschema
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import running
from openapi import closed

SECONDS = 60
# What `herald` is told to do, and the event that comes of it.
ACTIONS = {
    "session_started": ["session"],
    "item_purchased": ["purchase", "--item", "sword", "--quantity", "2"],
    "guild_joined": ["join", "--guild", "owls"],
    "guild_left": ["leave", "--guild", "owls"],
    "item_granted": ["grant", "--item", "horse"],
    "item_consumed": ["consume", "--item", "horse"],
}


def tail(url, *flags):
    flags = ["--json", "--include-origin", "--from", "earliest", *flags]
    return running.herald("tail", "--server", url, *flags).splitlines()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """The lines of tail, one or more of each type of event; and the records that they are of."""
    folder = tmp_path_factory.mktemp("data")
    with running.Server(folder) as server:

        def act(*arguments):
            return running.herald(*arguments, "--player", "zoë", "--server", server.url)

        for arguments in ACTIONS.values():
            act(*arguments)
        bought = json.loads(act("purchase", "--item", "knife", "--json"))
        act("refund", "--purchase", bought["receipt"]["eventId"])
        with pytest.raises(RuntimeError, match="item_id"):
            act("purchase", "--item", "dragon")
        # Refused actions are recorded a moment later.
        tail(server.url, "--type", "request_rejected", "--max-events", 1)
        lines = tail(server.url, "--until-caught-up")
    with sqlite3.connect(folder / "events.sqlite3") as database:
        records = database.execute("SELECT value FROM record ORDER BY partition, offset")
        return lines, [value for (value,) in records]


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(running.herald("schema", "--json"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def descriptor_set():
    command = [running.binary(), "schema", "--descriptor-set"]
    return subprocess.run(command, check=True, capture_output=True, timeout=SECONDS).stdout


def test_the_json_schema_has_all_that_lines_have(log, validator):
    lines, _ = log
    # Nothing is passed over because the schema does not know it.
    strict = jsonschema.Draft202012Validator(
        closed(validator.schema), format_checker=jsonschema.FormatChecker()
    )
    types = set()
    for line in map(json.loads, lines):
        validator.validate(line)
        strict.validate(line)
        assert line["event"]["origin"]["headers"]
        types.add(line["event"]["eventType"])
    assert types == set(ACTIONS) | {"purchase_refunded", "request_rejected"}
    payloads = validator.schema["$defs"]["GameEvent"]["properties"]
    assert {"".join(word.title() for word in name.split("_")) for name in types} == {
        payload["allOf"][0]["$ref"].rsplit("/", 1)[1]
        for name, payload in payloads.items()
        if "At most one of" in payload["description"]
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("offset", 7),
        ("partition", "seven"),
        ("appendTime", 1_700_000_000),
        ("event", []),
        ("event.eventType", None),
        ("event.checkedThroughOffset", "some"),
        ("event.origin.headers", {"user-agent": 1}),
        ("event.origin.transport", "TRANSPORT_PIGEON"),
        ("event.itemPurchased", "sword"),
        ("event.itemPurchased.quantity", "two"),
        ("event.itemPurchased.unitPrice", 100),
    ],
)
def test_a_line_that_is_none_is_refused(log, validator, path, value):
    lines = [json.loads(line) for line in log[0]]
    line = next(line for line in lines if line["event"]["eventType"] == "item_purchased")
    broken = copy.deepcopy(line)
    *outer, last = path.split(".")
    inner = broken
    for name in outer:
        inner = inner[name]
    inner[last] = value
    validator.validate(line)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(broken)


def test_stock_protobuf_decodes_records_by_the_descriptor_set(log, descriptor_set):
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file:
        # Fails where something it imports was not there before.
        pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("game.v1.GameEvent"))
    lines, records = log
    events = [kind.FromString(record) for record in records]
    shown = [json.loads(line)["event"] for line in lines]
    assert [event.event_id for event in events] == [event["eventId"] for event in shown]
    for event, line in zip(events, shown):
        assert event.WhichOneof("payload") == event.event_type == line["eventType"]
        assert event.accept_time.ToJsonString() == line["acceptTime"]


def test_stock_protoc_reads_the_descriptor_set(log, descriptor_set, tmp_path):
    (tmp_path / "game.desc").write_bytes(descriptor_set)
    _, records = log
    command = [sys.executable, "-m", "grpc_tools.protoc", "--descriptor_set_in=game.desc"]
    command += ["--decode=game.v1.GameEvent", "game.proto"]
    for record in records:
        done = subprocess.run(
            command, input=record, capture_output=True, cwd=tmp_path, timeout=SECONDS
        )
        assert done.returncode == 0, done.stderr
        assert b"event_type" in done.stdout


def test_stock_protoc_compiles_the_text(tmp_path):
    (tmp_path / "events.proto").write_text(running.herald("schema", "--proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "events.proto"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=SECONDS)
    assert done.returncode == 0, done.stderr


def test_binary_is_kept_from_a_terminal_and_text_is_not():
    def at_a_terminal(form):
        here, terminal = pty.openpty()
        try:
            command = [running.binary(), "schema", form]
            with subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE) as process:
                os.close(terminal)
                first = b""
                try:
                    first = os.read(here, 100)
                    while os.read(here, 1 << 16):
                        pass
                except OSError:
                    # Nobody is at the other end any more.
                    pass
                return process.wait(SECONDS), first, process.stderr.read()
        finally:
            os.close(here)

    code, first, said = at_a_terminal("--descriptor-set")
    assert (code, first) == (2, b"")
    assert b"> game.desc" in said and b"--out game.desc" in said
    code, first, said = at_a_terminal("--proto")
    assert (code, said) == (0, b"") and first.startswith(b"// ")
