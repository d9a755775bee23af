"""A page on the bundled server, and a client on a real socket that may go at any byte.

What comes back is read as an `Answer`, as far as it came, so that the same must hold for it as for
an answer without a network. Nothing is known of the server but `serve` and its configuration.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from enum import Enum

import anyio

from tests.asgi_client import Answer
from tests.machine import open_files

Address = tuple[str, int | None]  # as servers report it; for TCP with a port

NAME = "MINISESSID"  # the cookie over plain http

_NO_LINGER = struct.pack("ii", 1, 0)


class Farewell(Enum):
    """How a client goes."""

    CLOSES = "closes the connection"
    RESETS = "resets the connection"
    ENDS = "says that it sends no more, and goes when the server does"


def request(cookie: str | None) -> bytes:
    """Return a GET that ends the connection; `cookie` is the whole Cookie field."""
    lines = ["GET / HTTP/1.1", "Host: a", "Connection: close"]
    lines += [] if cookie is None else [f"Cookie: {cookie}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def connect(address: Address) -> socket.socket:
    """Connect, which on this machine nobody has to wait for, and so starts no task."""
    connected = socket.create_connection(address)
    connected.setblocking(False)
    return connected


async def say_goodbye(connected: socket.socket, farewell: Farewell) -> bytes:
    """Go; return what still came before that."""
    rest = b""
    if farewell is Farewell.ENDS:
        connected.shutdown(socket.SHUT_WR)
        rest = await read(connected)
    if farewell is Farewell.RESETS:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    connected.close()
    return rest


async def read(connected: socket.socket, size: int = 1 << 20) -> bytes:
    """Read that many bytes, or what there is before the server closes, in whatever way."""
    received = b""
    while len(received) < size:
        await anyio.wait_readable(connected)
        try:
            piece = connected.recv(size - len(received))
        except ConnectionError:
            break
        if not piece:
            break
        received += piece
    return received


def as_answer(received: bytes) -> Answer:
    """Return what the client knows after these bytes."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return Answer()
    first, *fields = head.split(b"\r\n")
    pairs = [
        (name.lower(), value.strip()) for name, _, value in (f.partition(b":") for f in fields)
    ]
    start = {
        "type": "http.response.start",
        "status": int(first.split(b" ")[1]),
        "headers": pairs,
    }
    part = {"type": "http.response.body", "body": body, "more_body": not _is_whole(pairs, body)}
    return Answer([start, part])


def _is_whole(fields: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
    length = dict(fields).get(b"content-length")
    return body.endswith(b"0\r\n\r\n") if length is None else len(body) >= int(length)


def open_sockets() -> int:
    """Count the sockets of this process."""
    return sum(target.startswith("socket:") for target in open_files())
