"""Many requests in a process of their own, and what is there before and after them.

    python -m tests.leaks.endurance <asyncio|trio> <memory|a path> <requests>

Visitors log in and out, count and stream through the middleware over a store that fails, and some
requests are cancelled midway. Prints two measurements as JSON, one after the warm-up. Files are
counted before the store opens and after it has closed: it opens some when it gets round to it.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import threading
import weakref
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from minisession import SessionMiddleware
from minisession.abc import Store
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import Browser, ask, running
from tests.clock import Clock
from tests.faults.storm import Storm, Visitor, application

VISITORS = 16
A_YEAR = 365 * 86_400.0
DEADLINES = 1_500  # trio forgets the cancelled ones beyond 1,000, asyncio those beyond 100


class Crowd:
    """Visitors who come again and again, and what their process holds when they have left."""

    def __init__(self, inner: Store) -> None:
        self.store = Storm(inner, seed=1)
        self.clock = Clock()
        self.app = SessionMiddleware(application, self.store, clock=self.clock)

    async def come(self, requests: int) -> None:
        """Send so many requests, from visitors who are new."""
        async with anyio.create_task_group() as tasks:
            for number in range(VISITORS):
                tasks.start_soon(partial(self._come, number, requests // VISITORS))

    async def _come(self, number: int, requests: int) -> None:
        visitor, hasty = Visitor(self.app, number), Browser(self.app)
        for count in range(requests):
            if count % 10 == 0:
                await self._leave_early(hasty, count // 10 % 8)
            else:
                await visitor.visit()
            del visitor.dead[:-1]

    async def _leave_early(self, browser: Browser, turns: int) -> None:
        async def cancel(scope: anyio.CancelScope) -> None:
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                tasks.start_soon(cancel, scope)
                await ask(self.app, "/put/1", cookie=browser.cookie)

    async def measure(self) -> dict[str, Any]:
        """Let all sessions expire; then look at everything."""
        self.clock.advance(A_YEAR)
        while await self.store.purge(self.clock(), 10_000):
            pass
        for _ in range(10):  # what was started behind a response has its turn
            await anyio.lowlevel.checkpoint()
        return await holdings()


async def holdings() -> dict[str, Any]:
    """What this process holds now."""
    await _forget_what_is_cancelled()
    gc.collect()
    return {
        "objects": Counter(_name(type(thing)) for thing in gc.get_objects() if not _is_dead(thing)),
        "rss": int(_statm().split()[1]) * os.sysconf("SC_PAGESIZE"),
        "tasks": len(anyio.get_running_tasks()),
        "threads": threading.active_count(),
    }


async def _forget_what_is_cancelled() -> None:
    """Have the loop drop deadlines that were cancelled: it does so when they are many and most.

    Until then asyncio holds each with its context, and so with a session: a hundred at most.
    """
    with ExitStack() as many:
        for _ in range(DEADLINES):
            many.enter_context(anyio.move_on_after(A_YEAR))
    await anyio.lowlevel.checkpoint()


def _is_dead(thing: object) -> bool:
    """Tell whether this refers to nothing any more: a connection of SQLite keeps up to 200 such
    references to cursors that it once had.
    """
    return isinstance(thing, weakref.ref) and thing() is None


def _statm() -> str:
    return Path("/proc/self/statm").read_text()


def open_files() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


async def main(where: str, requests: int) -> None:
    crowd = Crowd(MemoryStore() if where == "memory" else SQLiteStore(where))
    files = open_files()
    async with running(crowd.app):
        await crowd.come(max(requests // 4, 1_600))
        before = await crowd.measure()
        await crowd.come(requests)
        after = await crowd.measure()
    before["files"], after["files"] = files, open_files()
    print(json.dumps([before, after]))


if __name__ == "__main__":
    logging.disable()
    backend, where, requests = sys.argv[1:]
    anyio.run(main, where, int(requests), backend=backend)
