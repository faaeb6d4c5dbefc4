"""Calls that are tried again with the same request id.

from herald.client import Client
from herald.game.v1 import game_pb2 as pb

with Client("http://127.0.0.1:50051") as client:
    request = pb.PurchaseItemRequest(player_id="ann", item_id="sword")
    receipt = client.call(client.game.PurchaseItem, request).receipt
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc

from herald import calls
from herald.errors import Backoff, HeraldError, Local, Violation
from herald.game.v1 import game_pb2_grpc

__all__ = ["Client", "HeraldError", "Violation"]


class Client:
    """A connection to one server, made at the first call. Threads can share it."""

    game: game_pb2_grpc.GameServiceStub
    """The bare calls of game clients."""
    feed: game_pb2_grpc.EventFeedServiceStub
    """The bare calls of the feed."""

    def __init__(self, server: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        """A client of `server`, such as http://127.0.0.1:50051. https is encrypted, with the
        system's roots unless there are `credentials`. ValueError: it is no server.
        """
        target, encrypted = calls.address(server)
        if encrypted:
            credentials = credentials or grpc.ssl_channel_credentials()
            self._channel = grpc.secure_channel(target, credentials, calls.OPTIONS)
        else:
            self._channel = grpc.insecure_channel(target, calls.OPTIONS)
        self.closed = threading.Event()
        self.game = game_pb2_grpc.GameServiceStub(self._channel)
        self.feed = game_pb2_grpc.EventFeedServiceStub(self._channel)

    def call(
        self,
        method: Callable[..., Any],
        request: Any,
        *,
        deadline: float = calls.DEADLINE,
        attempts: int = calls.ATTEMPTS,
    ) -> Any:
        """Makes a call with one answer, such as `client.game.PurchaseItem`, and makes it again
        while that can help: `attempts` times in all, each with a `deadline` in seconds. An action
        without a request id gets one. HeraldError: what the last attempt failed with.
        """
        request, request_id = calls.with_request_id(request)
        backoff, in_doubt = Backoff(), False
        for attempt in range(1, max(1, attempts) + 1):
            try:
                self.check_open()
                return method(request, timeout=deadline)
            except grpc.RpcError as failed:
                error = HeraldError(failed, request_id, in_doubt)
            in_doubt = error.maybe_done
            over = attempt >= attempts or not error.retryable
            if over or self.closed.wait(backoff.next(error.retry_delay)):
                break
        raise error

    def check_open(self) -> None:
        """Local: the client is closed."""
        if self.closed.is_set():
            raise Local(grpc.StatusCode.CANCELLED, "the client is closed")

    def close(self) -> None:
        """Ends all calls, feeds and waits."""
        self.closed.set()
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
