"""A browser, and the page of a server in it."""

import pytest

import stub
from browsing import Browser


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    return stub.modules(tmp_path_factory.mktemp("stub"))


@pytest.fixture(scope="session")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def log(tmp_path):
    """A folder for an embedded log."""
    return tmp_path / "log"
