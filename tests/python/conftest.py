"""A server to call."""

import grpc
import pytest

import running
from stub import Stub, modules


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    """A stub for a new server with an empty log."""
    generated = modules(tmp_path_factory.mktemp("stub"))
    with running.Server(tmp_path_factory.mktemp("data")) as server:
        with grpc.insecure_channel(server.address) as channel:
            yield Stub(generated, channel)
