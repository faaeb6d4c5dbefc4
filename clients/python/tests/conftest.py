"""A server that does what a test tells it, and the two clients."""

import asyncio
import concurrent.futures
import itertools
import pathlib
import sys
import threading

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import herald.aio
import herald.client
import herald.tail
from herald import errors
from herald.errors import HeraldError
from herald.game.v1 import game_pb2 as pb
from herald.game.v1 import game_pb2_grpc

# What takes longer hangs.
SECONDS = 60


def refusal(code, *details):
    """What a server aborts a call with."""
    status = status_pb2.Status(code=getattr(code_pb2, code), message="told by a test")
    for detail in details:
        status.details.append(any_pb2.Any())
        status.details[-1].Pack(detail)
    return rpc_status.to_status(status)


def reason(code, reason, *details, domain="herald"):
    return refusal(code, error_details_pb2.ErrorInfo(reason=reason, domain=domain), *details)


class Server(game_pb2_grpc.GameServiceServicer, game_pb2_grpc.EventFeedServiceServicer):
    """Answers each call with the next of `answers`: a list of messages for a stream, which stays
    open behind a None; a response; or a status to fail with.
    """

    def __init__(self, *answers):
        self.requests = []
        self._answers = iter(answers)
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
        game_pb2_grpc.add_GameServiceServicer_to_server(self, self._server)
        game_pb2_grpc.add_EventFeedServiceServicer_to_server(self, self._server)
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def PurchaseItem(self, request, context):
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, grpc.Status):
            context.abort_with_status(answer)
        return answer

    def StreamEvents(self, request, context):
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, grpc.Status):
            context.abort_with_status(answer)
        for message in answer:
            if message is None:
                over = threading.Event()
                context.add_callback(over.set)
                over.wait(SECONDS)
                return
            yield message

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()


class Threads:
    """`herald.client` and `herald.tail`."""

    def buy(self, server, **options):
        with herald.client.Client(server.url) as client:
            return client.call(client.game.PurchaseItem, pb.PurchaseItemRequest(), **options)

    def tail(self, server, count=None, **request):
        """The first so many responses, and what it has failed with."""
        seen = []
        with herald.client.Client(server.url) as client:
            responses = herald.tail.tail(client, pb.StreamEventsRequest(**request))
            try:
                seen.extend(itertools.islice(responses, count))
            except HeraldError as error:
                # extend keeps what has come before.
                return seen, error
            responses.close()
        return seen, None


class Asyncio:
    """`herald.aio`."""

    def buy(self, server, **options):
        async def buy():
            async with herald.aio.Client(server.url) as client:
                return await client.call(
                    client.game.PurchaseItem, pb.PurchaseItemRequest(), **options
                )

        return asyncio.run(buy())

    def tail(self, server, count=None, **request):
        async def tail():
            seen = []
            async with herald.aio.Client(server.url) as client:
                responses = herald.aio.tail(client, pb.StreamEventsRequest(**request))
                try:
                    async for response in responses:
                        seen.append(response)
                        if len(seen) == count:
                            break
                except HeraldError as error:
                    return seen, error
                await responses.aclose()
            return seen, None

        return asyncio.run(asyncio.wait_for(tail(), SECONDS))


@pytest.fixture(params=[Threads, Asyncio], ids=["threads", "asyncio"])
def client(request):
    return request.param()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(errors, "FIRST_WAIT", 0.01)
