"""Logs to export, and where to."""

import uuid

import pytest

import destinations
import harness
import running
import stub
from exports import Game, Out
from given import given

@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    """The stub's modules."""
    return stub.modules(tmp_path_factory.mktemp("stub"))


@pytest.fixture(scope="module")
def played(modules, tmp_path_factory):
    """A game of which nobody changes the log any more."""
    with Game(modules, tmp_path_factory.mktemp("played")) as game:
        game.play()
        yield game


@pytest.fixture
def game(modules, tmp_path):
    """A game of the test's own."""
    with Game(modules, tmp_path / "data") as game:
        yield game


@pytest.fixture
def long_game(modules, tmp_path):
    """One with more events than wait in memory before a file is begun."""
    running.herald("bench", "fill", "--data-dir", tmp_path / "data", "--events", 10_000)
    with Game(modules, tmp_path / "data") as game:
        yield game


@pytest.fixture
def out(tmp_path):
    """A folder that is not there yet."""
    return Out(destinations.Folder(tmp_path / "out"))


@pytest.fixture(params=["s3", "hdfs"])
def elsewhere(request, tmp_path):
    """A place of the test's own in a bucket of S3, and in HDFS."""
    values = given(request.param)
    make = {"s3": destinations.S3, "hdfs": destinations.Hdfs}[request.param]
    return Out(make(values, f"test-{uuid.uuid4()}/events", tmp_path / "mirror"))


@pytest.fixture(scope="session")
def kafka():
    """The cluster that TEST_KAFKA_BROKERS names."""
    return harness.Kafka(**given("kafka", "--sasl", needs="password"))


@pytest.fixture
def topic(kafka):
    """A new topic, with no Herald on it."""
    name = f"export-{uuid.uuid4()}"
    kafka.create(name)
    return name


@pytest.fixture
def newer(tmp_path):
    """A message class of the events of a later Herald, which knows one payload more."""
    schema = stub.SCHEMA.read_text()
    payload = "    PurchaseRefunded purchase_refunded = 23;\n"
    assert payload in schema
    schema = schema.replace(payload, f"{payload}    ItemTraded item_traded = 40;\n")
    schema += "message ItemTraded {\n  string item_id = 1;\n  string for_item_id = 2;\n}\n"
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "game.proto").write_text(schema)
    return stub.message_class(tmp_path / "newer", "game.v1.GameEvent")
