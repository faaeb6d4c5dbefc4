"""The feed as one stream, from as many as it takes.

    for response in tail(client, pb.StreamEventsRequest(after_cursor=stored)):
        for delivered in response.batch.events:
            ...
        store(response.cursor)

A cursor that is stored after its events were dealt with loses none in a crash; some may come again.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator
from typing import Any

import grpc

from herald.client import Client
from herald.game.v1 import game_pb2 as pb
from herald.resume import Place

__all__ = ["tail"]


Responses = Generator[pb.StreamEventsResponse, None, None]


def tail(client: Client, request: pb.StreamEventsRequest) -> Responses:
    """What `request` asks for, one response after another, each with its cursor. A stream that
    breaks, or is silent for three heartbeat intervals, is opened again behind the newest cursor,
    without an end. Two responses at most are read ahead. Closing the generator ends it, and so does
    closing the client from another thread, with an error.

    HeraldError: trying again cannot help, as with CURSOR_EXPIRED.
    """
    place = Place(request)
    while True:
        try:
            client.check_open()
            call = client.feed.StreamEvents(place.request())
            with contextlib.closing(_messages(call, place.patience)) as messages:
                for message in messages:
                    place.take(message)
                    yield message
                    if place.is_over():
                        return
                    if message.HasField("closing"):
                        wait = place.closed(message.closing)
                        break
                else:
                    wait = place.broken()
        except grpc.RpcError as failed:
            wait = place.broken(failed)
        client.closed.wait(wait)


def _messages(call: Any, patience: float) -> Responses:
    """What a stream brings until it ends, or is silent for `patience` seconds."""
    # One that waits here and one in the reader's hand: who reads slowly slows the server down.
    read: queue.Queue = queue.Queue(maxsize=1)
    ended = None

    def reader() -> None:
        end: Exception = StopIteration()
        try:
            for message in call:
                read.put(message)
        except Exception as failed:
            # Whatever it is: the owner waits for an end.
            end = failed
        read.put(end)

    threading.Thread(target=reader, name="herald tail", daemon=True).start()
    try:
        while True:
            try:
                message = read.get(timeout=patience)
            except queue.Empty:
                return
            if isinstance(message, Exception):
                ended = message
                break
            yield message
    finally:
        call.cancel()
        # The reader comes to its end now, and has to be rid of what it holds.
        while ended is None:
            last = read.get()
            ended = last if isinstance(last, Exception) else None
    if not isinstance(ended, StopIteration):
        raise ended
