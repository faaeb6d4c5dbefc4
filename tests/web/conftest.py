"""A browser, and the page of a server in it."""

import uuid

import pytest

import stub
from browsing import Browser
from given import given


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    return stub.modules(tmp_path_factory.mktemp("stub"))


@pytest.fixture(scope="session")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def folder(tmp_path):
    """A folder for an embedded log."""
    return tmp_path / "log"


@pytest.fixture(params=["embedded", "kafka"])
def log(request, folder):
    """Where the events are: a new embedded log, and a new topic of the Kafka of the tests."""
    if request.param == "embedded":
        return folder
    brokers = given("kafka", needs="brokers")["brokers"]
    return ["--kafka-brokers", brokers, "--topic", f"page-{uuid.uuid4()}"]
