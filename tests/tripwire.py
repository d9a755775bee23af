"""Cancels a coroutine at each of its suspension points in turn.

The same code for both backends: a coroutine is driven by hand, its suspensions are counted, and at
the one that was chosen somebody is told. Suspensions of other tasks do not count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import anyio

Prepare = Callable[[], Awaitable[Awaitable[object]]]
Check = Callable[[], Awaitable[None]]

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


async def cancel_everywhere(prepare: Prepare, check: Check) -> int:
    """Cancel an operation's scope at each of its suspension points in turn; count the points.

    Args:
        prepare: makes ready, undisturbed, and returns the operation.
        check: looks at what is left, after each run and after the one that was not cancelled.
    """
    for n in range(1, MOST_POINTS):
        operation = await prepare()
        with anyio.CancelScope() as scope:
            wire = Tripwire(operation, n, scope.cancel)
            await wire
        await check()
        if not wire.has_tripped:
            return n - 1
    raise AssertionError(f"more than {MOST_POINTS} suspensions")


async def cancel_natively_everywhere(prepare: Prepare, check: Check) -> int:
    """The same with asyncio's `Task.cancel()`, which no shield of anyio stops."""
    for n in range(1, MOST_POINTS):
        operation = await prepare()
        task = asyncio.ensure_future(_cancelling_itself(operation, n))
        await asyncio.wait([task])
        was_cancelled = task.cancelled() or task.exception() is not None or task.result()
        await check()
        if not was_cancelled:
            return n - 1
    raise AssertionError(f"more than {MOST_POINTS} suspensions")


async def _cancelling_itself(operation: Awaitable[object], n: int) -> bool:
    task = asyncio.current_task()
    assert task is not None
    wire = Tripwire(operation, n, task.cancel)
    await wire
    return wire.has_tripped
