"""Starts the proofs that were selected, beside all other tests."""

import pytest

from background import Proofs

UNDER_WAY = pytest.StashKey[Proofs]()


def pytest_collection_finish(session):
    if session.config.option.collectonly:
        return
    names = [it.callspec.params["name"] for it in session.items if it.module.__name__ == "test_proofs"]
    session.config.stash[UNDER_WAY] = Proofs(names)


def pytest_sessionfinish(session):
    if under_way := session.config.stash.get(UNDER_WAY, None):
        under_way.end()


@pytest.fixture(scope="module")
def proofs(request):
    """Those under way, with nothing beside them any more."""
    under_way = request.config.stash[UNDER_WAY]
    under_way.have_room()
    return under_way
