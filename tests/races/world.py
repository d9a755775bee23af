"""`World`: one store, the processes that use it, a clock, and a look at what is stored in the end.

Every schedule of a scenario gets a world of its own. It is small and does nothing by itself: what
runs beside what is the scenario's business, and in which order the scheduler's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint as pause

from minisession import SessionConfig, SessionGone, SessionManager
from minisession._codec import decode, encode
from minisession._ids import hash_secret, join_id, new_handle, new_secret, split_id
from minisession.abc import Committed, Create, Record, Store
from tests.clock import Clock

Action = Callable[[], Coroutine[Any, Any, object]]
Connect = Callable[[], Store]
Handles = Callable[[float], Awaitable[list[str]]]

CONFIG = SessionConfig()
START = 1_800_000_000.0  # seconds since the epoch

__all__ = [
    "CONFIG",
    "START",
    "Action",
    "Connect",
    "Scenario",
    "World",
    "handle_of",
    "log_in",
    "log_out",
    "pause",
    "together",
    "write",
]


class World:
    """What one schedule of a scenario happens in.

    Attributes:
        connect: makes the store that one process uses.
        stored: the same store as it is behind every network: what is true.
        clock: the time for every process.

    Args:
        handles: lists the living sessions, where that is faster than the store's own `scan`.
        is_lifespan_run: without it the managers are not entered: no flusher, no sweeper, so that
            the orders of what a scenario does can be counted.
    """

    def __init__(
        self,
        connect: Connect,
        stored: Store,
        handles: Handles | None = None,
        *,
        is_lifespan_run: bool = True,
    ) -> None:
        self.connect = connect
        self.stored = stored
        self.clock = Clock(START)
        self._is_lifespan_run = is_lifespan_run
        self._handles = self._scanned_handles if handles is None else handles

    async def _scanned_handles(self, now: float) -> list[str]:
        return [summary.handle for summary in await self.stored.scan(now)]

    @asynccontextmanager
    async def process(
        self, config: SessionConfig = CONFIG, store: Store | None = None
    ) -> AsyncIterator[SessionManager]:
        """Run one process; when the block is left, everything that it handed over is stored.

        Args:
            config: its configuration.
            store: what it uses, where that is not an ordinary connection.
        """
        store = self.connect() if store is None else store
        sessions = SessionManager(store, config, clock=self.clock)
        if not self._is_lifespan_run:
            yield sessions
            return
        async with sessions:
            yield sessions

    async def begin(
        self, *, created: float = START, expires: float = START + CONFIG.idle, **values: Any
    ) -> str:
        """Store a session, without any process, and return its id."""
        handle, secret = new_handle(), new_secret()
        items = {key: encode(value, key) for key, value in values.items()}
        cookie_until = START + 2 * CONFIG.idle
        create = Create(
            handle, hash_secret(secret), items, created, expires, cookie_until, CONFIG.max_size
        )
        [outcome] = await self.stored.commit([create], START)
        assert isinstance(outcome, Committed)
        return join_id(handle, secret)

    # --- what is true --------------------------------------------------------------------------

    async def record(self, id: str) -> Record | None:
        """Return the living session that an id names, whatever its secret is worth."""
        return await self.stored.load(handle_of(id), self.clock())

    async def items(self, id: str) -> dict[str, Any] | None:
        """Return what is stored of a session, None if it does not live."""
        return _values(await self.record(id))

    async def everything(self) -> dict[str, dict[str, Any] | None]:
        """Return what is stored of every living session, by handle."""
        now = self.clock()
        handles = await self._handles(now)
        return {handle: _values(await self.stored.load(handle, now)) for handle in handles}

    async def is_current(self, id: str | None) -> bool:
        """Tell whether an id is the one by which a living session is known now."""
        pair = split_id(id or "")
        if pair is None:
            return False
        record = await self.stored.load(pair[0], self.clock())
        return record is not None and record.secret == hash_secret(pair[1])


Scenario = Callable[[World], Awaitable[None]]


def handle_of(id: str) -> str:
    """Return the public part of an id."""
    return id.partition(".")[0]


def _values(record: Record | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {key: decode(data) for key, data in record.items.items()}


async def together(*actions: Action) -> None:
    """Do several things at once, in an order that the scheduler decides."""
    async with anyio.create_task_group() as tasks:
        for action in actions:
            tasks.start_soon(action)


async def write(sessions: SessionManager, id: str, **values: Any) -> bool:
    """Use a session and write to it, as a request does; tell whether that is stored.

    It is not if the session had ended, or was given another id before this use of it began.
    """
    try:
        async with sessions.open(id) as session:
            if not session.is_started:
                return False
            await pause()
            session.update(values)
    except SessionGone:
        return False
    return True


async def log_in(sessions: SessionManager, id: str, **values: Any) -> str | None:
    """Give a session another id and write to it; return the id, None if that came too late."""
    try:
        async with sessions.open(id) as session:
            if not session.is_started:
                return None
            await pause()
            session.regenerate()
            session.update(values)
            await session.save()
            return session.id
    except SessionGone:
        return None


async def log_out(sessions: SessionManager, id: str) -> bool:
    """End a session; tell whether this was its end."""
    try:
        async with sessions.open(id) as session:
            if not session.is_started:
                return False
            await pause()
            session.destroy()
    except SessionGone:
        return False
    return True
