"""Cancels a coroutine at each of its suspension points in turn.

The same code for both backends: a coroutine is driven by hand, its suspensions are counted, and at
the one that was chosen somebody is told. Suspensions of other tasks do not count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import anyio

Make = Callable[[], Awaitable[object]]

MOST_POINTS = 200  # more suspensions than any single operation here has


class Tripwire(Awaitable[object]):
    """Awaits another awaitable, and calls `trip` when that has suspended for the n-th time."""

    def __init__(self, inner: Awaitable[object], n: int, trip: Callable[[], object]) -> None:
        self._inner = inner
        self._left = n
        self._trip = trip

    @property
    def has_tripped(self) -> bool:
        return self._left <= 0

    def __await__(self) -> Generator[Any, Any, object]:
        steps = self._inner.__await__()
        resume: Callable[[], Any] = lambda: next(steps)  # noqa: E731
        while True:
            try:
                suspended = resume()
            except StopIteration as end:
                return end.value
            self._left -= 1
            if self._left == 0:
                self._trip()
            try:
                value = yield suspended
            except BaseException as error:
                resume = _throwing(steps, error)
            else:
                resume = _sending(steps, value)


def _throwing(steps: Any, error: BaseException) -> Callable[[], Any]:
    return lambda: steps.throw(error)


def _sending(steps: Any, value: object) -> Callable[[], Any]:
    return lambda: steps.send(value)


async def cancelled_everywhere(make: Make) -> AsyncIterator[int]:
    """Run what `make` makes once per suspension point, and cancel its scope there.

    Yields the number of the point after each run, so that the caller can look at what is left;
    the last run, which reached its end before the point, is not cancelled.
    """
    for n in range(1, MOST_POINTS):
        with anyio.CancelScope() as scope:
            wire = Tripwire(make(), n, scope.cancel)
            await wire
        yield n
        if not wire.has_tripped:
            return
    raise AssertionError(f"more than {MOST_POINTS} suspensions")


async def natively_cancelled_everywhere(make: Make) -> AsyncIterator[int]:
    """The same with asyncio's `Task.cancel()`, which no shield of anyio stops."""
    for n in range(1, MOST_POINTS):

        async def wired(n: int = n) -> bool:
            task = asyncio.current_task()
            assert task is not None
            wire = Tripwire(make(), n, task.cancel)
            await wire
            return wire.has_tripped

        task = asyncio.ensure_future(wired())
        await asyncio.wait([task])
        yield n
        if not task.cancelled() and not task.result():
            return
    raise AssertionError(f"more than {MOST_POINTS} suspensions")
