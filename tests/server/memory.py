"""A whole connection of the server without a socket: relay, exchange and all, on one transport in
memory. What arrives in which pieces, and how much goes out at a time, is under the test's control.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context

import anyio
import anyio.lowlevel

from minisession.server.config import ServerConfig
from minisession.server.connection import Connection
from minisession.server.date import DateCache
from minisession.server.relay import Relay
from minisession.server.scope import ASGIApp
from minisession.server.service import Service
from minisession.server.transport import Transport
from tests.server.conversation import DATE

CLIENT, SERVER = ("192.0.2.1", 1000), ("192.0.2.2", 80)


class MemoryTransport(Transport):
    """Gives one piece after the other, each only after a wait, and keeps what is sent."""

    def __init__(self, pieces: Iterable[bytes], send_size: int) -> None:
        self._pieces = deque(piece for piece in pieces if piece)
        self._send_size = send_size
        self._is_receivable = False
        self._room = send_size
        self.written = bytearray()
        self.is_closed = False

    def receive_nowait(self) -> bytes | None:
        if not self._is_receivable:
            return None
        self._is_receivable = not self._pieces  # the end stays
        return self._pieces.popleft() if self._pieces else b""

    async def wait_receivable(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._is_receivable = True

    def send_nowait(self, data: bytes | memoryview) -> int:
        assert not self.is_closed, "written after the end"
        taken = bytes(data[: self._room])
        self.written += taken
        self._room -= len(taken)
        return len(taken)

    async def wait_sendable(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._room = self._send_size

    def untaken(self) -> int:
        return 0

    def wake_receiver(self) -> None:
        """Do nothing: every wait here is short."""

    def stop_receiving(self) -> None:
        self._pieces.clear()

    def stop_sending(self) -> bool:
        self._send_size = 0
        return True

    def stop(self) -> None:
        self.stop_receiving()
        self.stop_sending()

    def close(self) -> None:
        self.is_closed = True

    def reset(self) -> None:
        self.close()


class FixedDate(DateCache):
    """A date that tests can compare."""

    def __call__(self) -> bytes:
        return DATE


async def serve_in_memory(
    app: ASGIApp,
    pieces: Iterable[bytes],
    config: ServerConfig | None = None,
    send_size: int = 1 << 16,
    connect: Callable[[Iterable[bytes], int], MemoryTransport] = MemoryTransport,
) -> bytes:
    """Serve one connection on which these pieces come, then the end; return what was written."""
    config = config or ServerConfig()
    transport = connect(pieces, send_size)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            service = Service(app, config, tasks, copy_context(), {}, date=FixedDate())
            connection = Connection(config, transport, CLIENT, SERVER)
            service.connections.add(connection)
            await Relay(service, connection).run()
    assert transport.is_closed
    assert not service.connections
    return bytes(transport.written)
