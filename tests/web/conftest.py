"""Logs for the servers whose page is looked at."""

import uuid

import pytest

from given import given


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
