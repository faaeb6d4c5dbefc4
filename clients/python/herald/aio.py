"""`herald.client` and `herald.tail` for asyncio. What holds there holds here; a task that is
cancelled ends its call or its feed.

    async with Client("http://127.0.0.1:50051") as client:
        async for response in tail(client, pb.StreamEventsRequest()):
            ...
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import grpc

from herald import calls
from herald.errors import Backoff, HeraldError, Local, Violation
from herald.game.v1 import game_pb2 as pb
from herald.game.v1 import game_pb2_grpc
from herald.resume import Place

__all__ = ["Client", "HeraldError", "Violation", "tail"]


class Client:
    """A connection to one server, made at the first call, for the event loop it was made in."""

    game: game_pb2_grpc.GameServiceStub
    """The bare calls of game clients."""
    feed: game_pb2_grpc.EventFeedServiceStub
    """The bare calls of the feed."""

    def __init__(self, server: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        """As that of `herald.client`."""
        target, encrypted = calls.address(server)
        if encrypted:
            credentials = credentials or grpc.ssl_channel_credentials()
            self._channel = grpc.aio.secure_channel(target, credentials, calls.OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(target, calls.OPTIONS)
        self._closed = asyncio.Event()
        self.game = game_pb2_grpc.GameServiceStub(self._channel)
        self.feed = game_pb2_grpc.EventFeedServiceStub(self._channel)

    async def call(
        self,
        method: Callable[..., Any],
        request: Any,
        *,
        deadline: float = calls.DEADLINE,
        attempts: int = calls.ATTEMPTS,
    ) -> Any:
        """As that of `herald.client`."""
        request, request_id = calls.with_request_id(request)
        backoff, in_doubt = Backoff(), False
        for attempt in range(1, max(1, attempts) + 1):
            try:
                with self.open():
                    return await method(request, timeout=deadline)
            except grpc.RpcError as failed:
                error = HeraldError(failed, request_id, in_doubt)
            in_doubt = error.maybe_done
            over = attempt >= attempts or not error.retryable
            if over or await self.closed_within(backoff.next(error.retry_delay)):
                break
        raise error

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Where the client is used. Local: it is closed, of which gRPC makes a cancelled task."""
        try:
            self._check_open()
            yield
        except asyncio.CancelledError:
            if not (task := asyncio.current_task()) or not task.cancelling():
                self._check_open()
            raise

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Local(grpc.StatusCode.CANCELLED, "the client is closed")

    async def closed_within(self, seconds: float) -> bool:
        """Waits so long; ends early, and is true, when the client is closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        return self._closed.is_set()

    async def close(self) -> None:
        """Ends all calls, feeds and waits."""
        self._closed.set()
        await self._channel.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def tail(
    client: Client, request: pb.StreamEventsRequest
) -> AsyncGenerator[pb.StreamEventsResponse, None]:
    """As that of `herald.tail`."""
    place = Place(request)
    while True:
        try:
            with client.open():
                call = client.feed.StreamEvents(place.request())
            try:
                while (message := await _next(client, call, place.patience)) is not None:
                    place.take(message)
                    yield message
                    if place.is_over():
                        return
                    if message.HasField("closing"):
                        wait = place.closed(message.closing)
                        break
                else:
                    wait = place.broken()
            finally:
                call.cancel()
        except grpc.RpcError as failed:
            wait = place.broken(failed)
        await client.closed_within(wait)


async def _next(client: Client, call: Any, patience: float) -> pb.StreamEventsResponse | None:
    """What a stream brings next; None at its end, or when it is silent for `patience` seconds."""
    try:
        with client.open():
            async with asyncio.timeout(patience):
                message = await call.read()
    except TimeoutError:
        return None
    return None if message is grpc.aio.EOF else message
