"""Runs concurrent code in an order that `random` decides, on both backends.

What runs next is a function of the global `random`, so a property test with `st.random_module()`
among its arguments explores schedules, and replays and shrinks the one that fails. (Without it
Hypothesis resets `random` for every example and sees a single schedule.) trio shuffles its tasks
by itself, and lets Hypothesis seed that; asyncio gets the loop below. Time does not pass on trio.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeVarTuple

import anyio
import trio.testing

BACKENDS = ["asyncio", "trio"]

_Ts = TypeVarTuple("_Ts")


class ShuffledLoop(asyncio.SelectorEventLoop):
    """An event loop that takes the ready tasks in any order, and everything else in its own.

    asyncio promises first come, first served to callbacks, and its own code relies on it; to tasks
    it promises nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[Callable[[], object]] = []

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if not isinstance(getattr(callback, "__self__", None), asyncio.Task):
            return super().call_soon(callback, *args, context=context)
        context = copy_context() if context is None else context
        self._steps.append(partial(context.run, callback, *args))
        return super().call_soon(self._take_any_step, context=Context())

    def _take_any_step(self) -> None:
        self._steps.pop(random.randrange(len(self._steps)))()


def run(backend: str, program: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a program to its end in one schedule."""
    options: dict[str, Any] = {"loop_factory": ShuffledLoop}
    if backend == "trio":
        options = {"clock": trio.testing.MockClock(autojump_threshold=0)}
    anyio.run(program, backend=backend, backend_options=options)
