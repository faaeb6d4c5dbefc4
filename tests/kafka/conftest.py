"""The Kafka that scripts/test starts, and Heralds on it.

Each test has topics of its own, so that tests can share the broker.
"""

import contextlib
import uuid

import pytest

from harness import Herald


@pytest.fixture
def topic():
    """A name that nobody has used."""
    return f"test-{uuid.uuid4()}"


@pytest.fixture
def herald(request, modules, topic, tmp_path):
    """Starts Heralds: on the topic of the test, with the flags given.

    They are stopped in the end, and have to stop well.
    """
    with contextlib.ExitStack() as stack:

        def start(*flags, topic=topic, brokers=None):
            brokers = brokers or request.getfixturevalue("kafka").brokers
            return stack.enter_context(Herald(modules, tmp_path, brokers, topic, *flags))

        yield start
