"""A connection that is struck at each of its suspension points: no response is cut in half.

The relay runs on one end of a socket pair; the client has sent all its requests before, so that
every run suspends alike.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable
from contextvars import copy_context
from typing import Any

import anyio
import pytest

from minisession.server import on_asyncio
from minisession.server.config import ServerConfig
from minisession.server.connection import Connection
from minisession.server.on_asyncio import LoopTransport
from minisession.server.relay import Relay
from minisession.server.service import Service
from minisession.server.transport import Transport
from tests.effort import Tally
from tests.server.kit import answer, get, http_app, read_body, reply, request
from tests.tripwire import EVERYWHERE, NATIVE, Blow, failed, sweep

pytestmark = pytest.mark.anyio

REQUESTS = (
    get("/first")
    + request("POST", "/second", "Transfer-Encoding: chunked", body=b"2\r\nhi\r\n0\r\n\r\n")
    + request("POST", "/unread", "Content-Length: 3", body=b"abc")
    + get("/last", "Connection: close")
)
ANSWERS = [
    answer(b"/first "),
    answer(b"/second hi"),
    answer(b"early"),
    answer(b"/last ").replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
]


@http_app
async def app(scope: Any, receive: Any, send: Any) -> None:
    await anyio.lowlevel.checkpoint()
    if scope["path"] == "/unread":
        await reply(send, b"early")
        return
    body = await read_body(receive)
    await anyio.lowlevel.checkpoint()
    if body is not None:
        await reply(send, scope["raw_path"] + b" " + body)


def read_all(client: socket.socket) -> bytes:
    """All that was sent; that requests were left unread is an error of its own on such a socket."""
    received = b""
    while True:
        with contextlib.suppress(ConnectionResetError):
            part = client.recv(65536)
            if not part:
                return received
            received += part


class Case:
    """One run of a relay. Mutable: the client's socket and the service of the run."""

    def __init__(self, tasks: Any, *, may_fail: bool = False) -> None:
        self.tasks = tasks
        self.may_fail = may_fail

    async def prepare(self) -> Awaitable[object]:
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.ours = ours
        transport = self.connect(
            LoopTransport(ours) if on_asyncio.is_running() else Transport(ours)
        )
        self.client.shutdown(socket.SHUT_WR)
        self.service = Service(
            app, ServerConfig(), self.tasks, copy_context(), {}, on_asyncio.is_running()
        )
        connection = Connection(self.service.config, transport, None, None)
        self.service.connections.add(connection)
        return Relay(self.service, connection).run()

    def connect(self, transport: Transport) -> Transport:
        """Have the client send its requests; return the transport to serve them on."""
        self.client.sendall(REQUESTS)
        return transport

    def received(self) -> bytes:
        return read_all(self.client)

    async def check(self) -> None:
        assert self.service.connections == set()
        assert self.ours.fileno() == -1
        with self.client:
            self.client.settimeout(5)
            received = self.received()
        # An error, or a native cancellation, that the app passes on is its failure: a 500.
        received, failure, _ = received.partition(b"HTTP/1.1 500 ")
        assert self.may_fail or not failure
        assert received in [b"".join(ANSWERS[:n]) for n in range(len(ANSWERS) + 1)]


@pytest.mark.parametrize("blow", EVERYWHERE)
async def test_a_connection_that_is_struck_is_closed_and_no_response_is_cut(
    blow: Blow, tally: Tally
) -> None:
    async with anyio.create_task_group() as tasks:
        case = Case(tasks, may_fail=blow is failed)

        points = await sweep(blow, case.prepare, case.check)

    assert points > 10
    tally("cancellation points", points)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # only there tasks cancel each other
@pytest.mark.parametrize("blow", NATIVE)
async def test_so_it_is_after_a_native_cancellation(blow: Blow, tally: Tally) -> None:
    async with anyio.create_task_group() as tasks:
        case = Case(tasks, may_fail=True)

        points = await sweep(blow, case.prepare, case.check)

    assert points > 10
    tally("cancellation points", points)
