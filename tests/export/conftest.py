"""Logs to export, and where to."""

import uuid

import pytest

import destinations
import running
import stub
from exports import Game, Out
from given import given


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


@pytest.fixture
def newer(tmp_path):
    """A message class of the events of a later Herald, which knows one payload more."""
    return stub.newer_event(tmp_path)
