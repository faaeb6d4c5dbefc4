"""What several suites call, and where."""

import uuid

import pytest

import harness
import stub
from given import given


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    """The stub's modules."""
    return stub.modules(tmp_path_factory.mktemp("stub"))


@pytest.fixture(scope="session")
def browser():
    """One for all, as Playwright has one at a time."""
    # Takes a second, which only who needs it is to wait for.
    from browsing import Browser

    with Browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def kafka():
    """The cluster that TEST_KAFKA_BROKERS names."""
    return harness.Kafka(**given("kafka", "--sasl", needs="password"))


@pytest.fixture
def topic(kafka):
    """A new topic, with no Herald on it."""
    name = f"test-{uuid.uuid4()}"
    kafka.create(name)
    return name
