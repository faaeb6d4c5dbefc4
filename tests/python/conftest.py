"""The stub, made from the schema with stock tools, and a server to call with it."""

import importlib
import pathlib
import sys

import grpc
import grpc_tools.protoc
import pytest

import running


class Stub:
    """The generated modules, and clients on one channel."""

    def __init__(self, folder, channel):
        sys.path.insert(0, str(folder))
        try:
            self.pb = importlib.import_module("game_pb2")
            services = importlib.import_module("game_pb2_grpc")
        finally:
            sys.path.remove(str(folder))
        self.channel = channel
        self.game = services.GameServiceStub(channel)
        self.feed = services.EventFeedServiceStub(channel)


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    """A stub for a new server with an empty log."""
    folder = tmp_path_factory.mktemp("stub")
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    code = grpc_tools.protoc.main(
        [
            "protoc",
            f"-I{running.REPOSITORY / 'proto'}",
            f"-I{well_known}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            "game.proto",
        ]
    )
    assert code == 0, "protoc refuses the schema"
    with running.Server(tmp_path_factory.mktemp("data")) as server:
        with grpc.insecure_channel(server.address) as channel:
            yield Stub(folder, channel)
