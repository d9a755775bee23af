"""Disturbs a coroutine at each of its suspension points in turn.

The same code for both backends: a coroutine is driven by hand, its suspensions are counted, and at
the one that was chosen it is struck. Suspensions of other tasks do not count. What a blow is, how
an operation is made ready and what must hold afterwards are three things that know nothing of each
other; `sweep` puts them together.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any

import anyio

Prepare = Callable[[], Awaitable[Awaitable[object]]]
Check = Callable[[], Awaitable[None]]
Blow = Callable[[Awaitable[object], int], Awaitable[bool]]
"""Runs an operation, strikes at its n-th suspension, and tells whether there was one."""

MOST_POINTS = 300  # more suspensions than any single operation here has


class Mishap(Exception):
    """An error that nobody has foreseen."""


class Tripwire(Awaitable[object]):
    """Awaits another awaitable, and calls `trip` when that has suspended for the n-th time.

    Args:
        inner: what to await.
        n: the number of the suspension, from 1.
        trip: is given what `inner` waits for; an exception that it returns is raised in `inner`
            where it resumes.
        again: call `trip` at every later suspension too.
    """

    def __init__(
        self,
        inner: Awaitable[object],
        n: int,
        trip: Callable[[Any], BaseException | None],
        *,
        again: bool = False,
    ) -> None:
        self._inner = inner
        self._left = n
        self._trip = trip
        self._again = again

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
            error = self._suspends(suspended)
            try:
                value = yield suspended
            except BaseException as raised:
                resume = partial(steps.throw, raised)
            else:
                resume = (
                    partial(steps.send, value) if error is None else partial(steps.throw, error)
                )

    def _suspends(self, awaited: Any) -> BaseException | None:
        self._left -= 1
        if self._left == 0 or (self._again and self._left < 0):
            return self._trip(awaited)
        return None


async def sweep(blow: Blow, prepare: Prepare, check: Check) -> int:
    """Strike an operation at each of its suspension points in turn; return how many there are.

    Args:
        blow: how it is struck.
        prepare: makes ready, undisturbed, and returns the operation.
        check: looks at what is left, after each run and after the one that was not disturbed.
    """
    for n in range(1, MOST_POINTS):
        try:
            was_struck = await blow(await prepare(), n)
            await check()
        except Exception as error:
            error.add_note(f"after {blow.__name__} at suspension {n}")
            raise
        if not was_struck:
            return n - 1
    raise AssertionError(f"more than {MOST_POINTS} suspensions")


# --- blows on both backends ----------------------------------------------------------------------


async def cancelled(operation: Awaitable[object], n: int) -> bool:
    """Cancel the scope around the operation."""
    with anyio.CancelScope() as scope:
        wire = Tripwire(operation, n, lambda _: scope.cancel())
        await wire
    return wire.has_tripped


async def timed_out(operation: Awaitable[object], n: int) -> bool:
    """Let the deadline of the scope around the operation pass."""

    def expire(_: object) -> None:
        scope.deadline = -math.inf

    with anyio.CancelScope() as scope:
        wire = Tripwire(operation, n, expire)
        await wire
    return wire.has_tripped


async def failed(operation: Awaitable[object], n: int) -> bool:
    """Raise a `Mishap` out of what the operation waits for; the operation may raise that."""
    wire = Tripwire(operation, n, lambda _: Mishap())
    try:
        await wire
    except Mishap:
        assert wire.has_tripped
    return wire.has_tripped


# --- blows that only asyncio knows: `Task.cancel()`, which no shield of anyio stops ---------------


async def natively_cancelled(operation: Awaitable[object], n: int) -> bool:
    """Cancel the operation's task."""
    return await _in_a_task(operation, n, lambda task, _: task.cancel())


async def natively_cancelled_late(operation: Awaitable[object], n: int) -> bool:
    """Cancel the task when what it waits for has come, and before it runs again."""

    def cancel_late(task: asyncio.Task[None], awaited: asyncio.Future[object] | None) -> None:
        if awaited is None:  # the task only lets others run
            task.cancel()
        else:
            awaited.add_done_callback(lambda _: task.cancel())

    return await _in_a_task(operation, n, cancel_late)


async def natively_cancelled_again(operation: Awaitable[object], n: int) -> bool:
    """Cancel the task there and at every suspension after that."""
    return await _in_a_task(operation, n, lambda task, _: task.cancel(), again=True)


async def _in_a_task(
    operation: Awaitable[object],
    n: int,
    strike: Callable[[asyncio.Task[None], Any], object],
    *,
    again: bool = False,
) -> bool:
    def trip(awaited: object) -> None:
        strike(task, awaited)

    wire = Tripwire(operation, n, trip, again=again)

    async def run() -> None:
        await wire

    task = asyncio.get_running_loop().create_task(run())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()  # nothing of ours may hide the cancellation
    return wire.has_tripped


EVERYWHERE = (cancelled, timed_out, failed)
NATIVE = (natively_cancelled, natively_cancelled_late, natively_cancelled_again)
