"""`Home`: where the tasks of an open store live, between its opening and its closing.

It owns their beginning and their end, and refuses to know what they do. They are started in the
context in which the store was opened, so none of them keeps a request alive; and a cancellation of
whoever opened the store does not reach them: what was handed over is to be stored, and it is
`close` that ends them.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVarTuple

import anyio
from anyio.abc import TaskGroup, TaskStatus

logger = logging.getLogger("minisession.stores")

Ts = TypeVarTuple("Ts")


class Home:
    """Starts tasks that outlive whoever asks for them."""

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._scope = anyio.CancelScope(shield=True)
        self._tasks: TaskGroup | None = None
        self._last_acts: list[Callable[[], None]] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take tasks in for the block, and cancel what is left of them at its end."""
        problem: BaseException | None = None
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._live)
            try:
                yield
            except BaseException as error:  # noqa: BLE001  # the group would raise it in a group
                problem = error
            finally:
                self._scope.cancel()
        self._tasks = None
        for act in self._last_acts:
            act()
        try:
            if problem is not None:
                raise problem
        finally:
            del problem  # a frame that holds what it raises lives on, and all it knows

    async def _live(self, *, task_status: TaskStatus[None]) -> None:
        with self._scope:
            async with anyio.create_task_group() as self._tasks:
                task_status.started()
                await anyio.sleep_forever()

    @property
    def is_closing(self) -> bool:
        """Whether nothing that is started now would get anywhere."""
        return self._scope.cancel_called

    def at_the_end(self, act: Callable[[], None]) -> None:
        """Have a function called when the last task has ended."""
        self._last_acts.append(act)

    def start(self, function: Callable[[*Ts], Coroutine[Any, Any, None]], *args: *Ts) -> None:
        """Start a task. What it raises ends it alone. From the store's own loop only."""
        assert self._tasks is not None, "open it first"  # noqa: S101
        self._context.run(self._tasks.start_soon, _guarded, partial(function, *args))


async def _guarded(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Log what a task raises: a bug in one of them must not end the store, and the lifespan."""
    try:
        await function()
    except Exception:  # whatever it is: in the group it would end all other tasks, too
        logger.exception("a task of a Redis store failed in a way nobody thought of")
