"""What both clients have in common: where the server is, and the request of an action."""

from __future__ import annotations

import uuid
from typing import Any

# The attempts at a call, and the seconds that each may take, unless told.
ATTEMPTS = 5
DEADLINE = 5.0

OPTIONS = [
    # A connection that died silently is noticed during calls. The server asks in between, so that
    # load balancers and NATs do not forget it.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The waits are the caller's: gRPC itself would not even try for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Room for any batch of events, and for a catalogue of 10,000 items.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
]


def address(server: str) -> tuple[str, bool]:
    """Host and port of `http://HOST:PORT`, and whether it is https. ValueError: it is neither."""
    scheme, found, target = server.rpartition("://")
    if not target or "/" in target or (found and scheme not in ("http", "https")):
        raise ValueError(f"{server!r} is no server; write it like http://127.0.0.1:50051")
    return target, scheme == "https"


def with_request_id(request: Any) -> tuple[Any, str]:
    """The request and its request id. An action that has none gets one, in a copy."""
    if "validate_only" not in request.DESCRIPTOR.fields_by_name:
        return request, ""
    if not request.request_id:
        given, request = request, type(request)()
        request.CopyFrom(given)
        request.request_id = str(uuid.uuid4())
    return request, request.request_id
