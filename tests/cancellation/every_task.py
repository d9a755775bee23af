"""Counts the suspensions of all tasks that are started while it watches, and strikes at one.

For a program of many tasks, such as a server, which nobody can drive by hand as `Tripwire` drives
one operation. It is the place that knows how each backend runs its tasks.  # backend shim
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from tests.tripwire import Tripwire

Strike = Callable[[], object]


class EveryTask:
    """Strikes once, at the n-th suspension of any task that has been started meanwhile.

    Attributes:
        has_struck: whether it came to that.
    """

    def __init__(self, n: int, strike: Strike) -> None:
        self._left = n
        self._strike = strike

    @property
    def has_struck(self) -> bool:
        return self._left <= 0

    def suspends(self) -> None:
        """Count one suspension."""
        self._left -= 1
        if self._left == 0:
            self._strike()

    @contextmanager
    def watching(self, backend: str) -> Iterator[None]:
        """Count what is started in this block."""
        with (self._on_trio if backend == "trio" else self._on_asyncio)():
            yield

    @contextmanager
    def _on_trio(self) -> Iterator[None]:
        instrument = _Instrument(self)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(instrument)

    @contextmanager
    def _on_asyncio(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(self._new_task)  # type: ignore[arg-type]  # of a private protocol
        try:
            yield
        finally:
            loop.set_task_factory(before)

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **more: Any
    ) -> asyncio.Task[Any]:
        async def counted() -> Any:
            return await Tripwire(coroutine, 1, lambda _: self.suspends(), again=True)

        return asyncio.Task(counted(), loop=loop, **more)


class _Instrument(trio.abc.Instrument):
    def __init__(self, watch: EveryTask) -> None:
        self._watch = watch
        self._started: set[trio.lowlevel.Task] = set()

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self._started.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._started.discard(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self._started:
            self._watch.suspends()
