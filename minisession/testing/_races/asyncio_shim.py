"""asyncio under control of a schedule: one task step at a time, in any order.  # backend shim

asyncio promises first come, first served to callbacks, and its own code relies on it; to tasks it
promises nothing. So callbacks keep their order and run before the next step, which is any of those
that are ready. Time is virtual: it jumps to the next timer when nothing else is left. There are no
sockets.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from typing import Any, NoReturn

from anyio._core._eventloop import get_async_backend

from .anyio_shim import controlled_threads
from .ready import Ready
from .run import Run, Scenario
from .stuck import Stuck, places
from .threads import Threads

__all__ = ["controlled", "run_scenario"]


SPINNING = 100
"""Rounds of callbacks without a step. Longer chains only look again and again whether something has
happened, as anyio does to cancel a task that cannot be cancelled yet; time passes meanwhile."""


class ControlledLoop(asyncio.BaseEventLoop):
    """An event loop without a selector, whose every step the run chooses."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self._virtual = 0.0
        self._callbacks: list[asyncio.Handle] = []
        self._steps: Ready[tuple[int, asyncio.Handle]] = Ready(lambda step: step[0], run.choose)
        self._timers: list[asyncio.TimerHandle] = []
        self._rounds = 0
        self._births: dict[asyncio.Task[Any], int] = {}
        self.set_exception_handler(self._report)

    # --- what asyncio asks of a loop -----------------------------------------------------------

    def time(self) -> float:
        return self._virtual

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        task = getattr(callback, "__self__", None)
        if isinstance(task, asyncio.Task):
            birth = self._births.setdefault(task, len(self._births))
            self._steps.add((birth, handle))
        else:
            self._callbacks.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # other threads run only while this one stands still

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing to do: a cancelled timer is left out when its time has come."""

    def run_in_executor(  # type: ignore[override]
        self,
        executor: object,  # noqa: ARG002  # all threads are ours here
        func: Callable[..., Any],
        *args: Any,
    ) -> asyncio.Future[Any]:
        call = self._run.threads.run(partial(func, *args), abandon_on_cancel=True)
        return self.create_task(call)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError(
            "a scenario that `explore` runs cannot wait for sockets, pipes or processes: nobody"
            " can repeat when they are ready. Speak to the application directly"
        )

    add_reader = _refuse  # pyright: ignore[reportAssignmentType]
    add_writer = _refuse  # pyright: ignore[reportAssignmentType]
    create_connection = create_server = _refuse
    subprocess_exec = subprocess_shell = connect_read_pipe = connect_write_pipe = _refuse

    # --- one step after the other --------------------------------------------------------------

    def _run_once(self) -> None:
        """Run the callbacks that are there, then one step, or let time pass."""
        self._ring_timers()
        callbacks, self._callbacks = self._callbacks, []
        for handle in callbacks:
            if not handle.cancelled():
                handle._run()
        if len(self._steps):
            self._rounds = 0
            _, handle = self._steps.take()
            if not handle.cancelled():
                handle._run()
            return
        self._rounds += 1
        is_idle = not self._callbacks or self._rounds > SPINNING
        if is_idle and not self._stopping:  # type: ignore[attr-defined]
            self._let_time_pass()

    def _ring_timers(self) -> None:
        while self._timers and (
            self._timers[0].cancelled() or self._timers[0].when() <= self._virtual
        ):
            timer = heapq.heappop(self._timers)
            if not timer.cancelled():
                self._callbacks.append(timer)

    def _let_time_pass(self) -> None:
        if self._timers:
            self._virtual = self._timers[0].when()
            return
        waiting = places((task.get_name(), task.get_coro()) for task in self.unfinished())
        self._run.end(Stuck(f"nothing is ready and no timer runs\n{waiting}"))

    def _report(self, _: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self._run.problem is None and isinstance(error, BaseException):
            self._run.end(error)

    # --- what the run asks of its backend ------------------------------------------------------

    def now(self) -> float:
        return self._virtual

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self.create_task(function(), name=name, context=self._run.context.copy())

    def cancel_everything(self) -> None:
        for task in self.unfinished():
            self._cancel(task)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        """Cancel a task, once it has begun: what a task group wraps must not end unawaited."""
        coroutine = task.get_coro()
        assert coroutine is not None  # noqa: S101  # only an eager task has none
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:  # type: ignore[arg-type]
            self.call_soon(self._cancel, task)
        else:
            task.cancel()

    def unfinished(self) -> list[asyncio.Task[Any]]:
        """The tasks that have not ended, the oldest first."""
        return [task for task in self._births if not task.done()]


@contextmanager
def controlled(threads: Threads) -> Iterator[None]:
    """Prepare the backend for the runs of a search."""
    with controlled_threads(get_async_backend("asyncio"), threads):
        yield


def run_scenario(scenario: Scenario, run: Run) -> None:
    """Run a scenario to its end, and whatever it has left behind; raise what it raises."""
    loop = ControlledLoop(run)
    run.loop = loop
    try:
        loop.run_until_complete(loop.create_task(_call(scenario), context=run.context))
    finally:
        try:
            _end_the_rest(loop)
        finally:
            loop.close()


async def _call(scenario: Scenario) -> None:
    await scenario()


def _end_the_rest(loop: ControlledLoop) -> None:
    while tasks := loop.unfinished():
        loop.cancel_everything()
        loop.run_until_complete(asyncio.wait(tasks))
    loop.run_until_complete(loop.shutdown_asyncgens())
