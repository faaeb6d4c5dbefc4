"""A client made from the schema with stock tools, for all tests that call a server."""

import importlib
import pathlib
import sys

import grpc
import grpc_tools.protoc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import running

# Far more than any call takes.
DEADLINE = 30

SCHEMA = running.REPOSITORY / "proto" / "game.proto"
# What stock protoc needs to find the schema, and what it imports.
INCLUDES = [f"-I{SCHEMA.parent}", f"-I{pathlib.Path(grpc_tools.__file__).parent / '_proto'}"]


def modules(folder):
    """The generated modules: messages and services."""
    code = grpc_tools.protoc.main(
        ["protoc", *INCLUDES, f"--python_out={folder}", f"--grpc_python_out={folder}", SCHEMA.name]
    )
    assert code == 0, "protoc refuses the schema"
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("game_pb2"), importlib.import_module("game_pb2_grpc")
    finally:
        sys.path.remove(str(folder))


def message_class(folder, name):
    """The class of a message by the schema in another folder, which does not get in the way of
    the stub's.
    """
    set_file = folder / "set"
    includes = [f"-I{folder}", *INCLUDES[1:]]
    code = grpc_tools.protoc.main(
        ["protoc", *includes, "--include_imports", f"--descriptor_set_out={set_file}", SCHEMA.name]
    )
    assert code == 0, "protoc refuses the schema"
    return message_factory.GetMessageClass(pool(set_file.read_bytes()).FindMessageTypeByName(name))


def pool(descriptor_set):
    """What a descriptor set describes, apart from all else."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file:
        pool.Add(file)
    return pool


def newer_event(folder):
    """A message class of the events of a later Herald, which knows one payload more."""
    schema = SCHEMA.read_text()
    payload = "    PurchaseRefunded purchase_refunded = 23;\n"
    assert payload in schema
    schema = schema.replace(payload, f"{payload}    ItemTraded item_traded = 40;\n")
    schema += "message ItemTraded {\n  string item_id = 1;\n  string for_item_id = 2;\n}\n"
    newer = folder / "newer"
    newer.mkdir()
    (newer / "game.proto").write_text(schema)
    return message_class(newer, "game.v1.GameEvent")


class Stub:
    """The messages, and clients on one channel."""

    def __init__(self, modules, channel):
        self.pb, services = modules
        self.channel = channel
        self.game = services.GameServiceStub(channel)
        self.feed = services.EventFeedServiceStub(channel)


def code_and_details(error):
    """What a call failed with: its code, and the details by type."""
    status = rpc_status.from_call(error)
    assert status is not None, f"the status has no details: {error}"
    details = {}
    for detail in status.details:
        for kind in (
            error_details_pb2.BadRequest,
            error_details_pb2.ErrorInfo,
            error_details_pb2.RetryInfo,
        ):
            if detail.Is(kind.DESCRIPTOR):
                message = kind()
                detail.Unpack(message)
                details[kind.__name__] = message
    return error.code(), details


def refused(call, request):
    """The status of a call that fails, and its details by type."""
    with pytest.raises(grpc.RpcError) as error:
        call(request, timeout=DEADLINE)
    return code_and_details(error.value)
