"""What all connections of one server share. It holds things together and does nothing itself."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any

import anyio
from anyio.abc import TaskGroup

from . import on_asyncio
from .blame import is_cancelled
from .config import ServerConfig
from .connection import Connection
from .date import DateCache
from .forwarded import TrustedProxies
from .scope import ASGIApp

logger = logging.getLogger("minisession.server")


@dataclass(eq=False)
class Service:
    """The app, and what is needed to serve it.

    Mutable: `connections` (those whose socket is open), `is_stopping` (from then on every response
    is the last one of its connection) and `_room` (set as soon as a connection ends).

    Attributes:
        context: the context of the server's start; every request starts in a copy of it.
        is_on_asyncio: which of the two backends runs the server.
        tls: how connections are encrypted; None for plain ones.
        proxies: who is believed when it says who sent a request; None if nobody is.
        state: the lifespan's state; every request gets a shallow copy.
    """

    app: ASGIApp
    config: ServerConfig
    tasks: TaskGroup
    context: Context
    state: dict[str, Any]
    is_on_asyncio: bool = False
    tls: ssl.SSLContext | None = None
    proxies: TrustedProxies | None = None
    date: DateCache = field(default_factory=DateCache)
    connections: set[Connection] = field(default_factory=set)
    is_stopping: bool = False
    _room: anyio.Event | None = None

    @property
    def is_full(self) -> bool:
        """Whether there are as many connections as are allowed."""
        return len(self.connections) >= self.config.max_connections

    @property
    def wants_idle(self) -> bool:
        """Whether connections are to go on while they are idle."""
        return not self.is_stopping and self._room is None

    async def wait_for_room(self) -> None:
        """Wait until there is room for another connection; idle ones make room meanwhile."""
        while self.is_full:
            if self._room is None:
                self._room = anyio.Event()
            self.make_room(1)
            await self._room.wait()

    def make_room(self, count: int) -> None:
        """End those connections that have waited longest for a next request."""
        idle = [each for each in self.connections if each.is_idle]
        for each in nsmallest(count, idle, key=lambda connection: connection.idle_until):
            each.stop_if_idle()

    async def recover(self) -> None:
        """Have the calling task go on, if an app has cancelled it and forgotten about that."""
        if self.is_on_asyncio and on_asyncio.is_cancelling() and not is_cancelled():
            await on_asyncio.absorb_cancellation()

    def spawn(self, function: Callable[..., Any], *args: Any) -> None:
        """Run an async function in a task of its own, in a fresh copy of the start's context."""
        self.context.run(self.tasks.start_soon, function, *args)

    def release(self, connection: Connection) -> None:
        """Close a connection and forget it."""
        self.connections.discard(connection)
        connection.close()
        if self._room is not None:
            self._room.set()
            self._room = None
