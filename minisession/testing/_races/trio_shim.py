"""trio under control of a schedule: one task step at a time, in any order.  # backend shim

trio takes all tasks that are ready as one batch, in an order that its private `_r` shuffles. In
batches, two tasks that only pass checkpoints go in step; in reality one of them waits for a socket
or a thread, for any time. So all but one task of a batch are put back and are in the next one.
Time is virtual: trio's own MockClock jumps to the next deadline when nothing else is left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any

import trio
import trio.lowlevel
import trio.testing
from anyio._core._eventloop import get_async_backend
from trio._core import _run

from .anyio_shim import controlled_threads
from .ready import Ready
from .run import Run, Scenario
from .stuck import Stuck, places
from .threads import Threads

__all__ = ["controlled", "run_scenario"]

_NEEDED = ("_r", "_ALLOW_DETERMINISTIC_SCHEDULING", "GLOBAL_RUN_CONTEXT")


class ControlledOrder:
    """Stands where trio has its random numbers, and chooses the next step."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._clock = trio.testing.MockClock(autojump_threshold=0)
        self._steps: Ready[Any] = Ready(attrgetter("_counter"), run.choose)
        self._ready: set[Any] = set()
        self._spawned: set[Any] = set()

    async def main(self, scenario: Scenario) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        with trio.CancelScope() as self._everything:
            await scenario()

    # --- what trio asks of its random numbers --------------------------------------------------

    def shuffle(self, batch: list[Any]) -> None:
        """Leave one task in the batch and put the others back. What trio does for itself is no
        choice: it comes first.
        """
        if not batch:
            self._check_progress()
            return
        steps, batch[:] = batch[:], [task for task in batch if self._is_of_trio(task)]
        if not batch:
            batch.append(self._one_of(steps))
            steps.remove(batch[0])
        _runner().runq.extend(task for task in steps if task not in batch)

    def _is_of_trio(self, task: Any) -> bool:
        nursery = task.parent_nursery
        if nursery is None:
            return True
        runner = _runner()
        is_inner = nursery.parent_task is not runner.init_task
        return not (is_inner or task is runner.main_task or task in self._spawned)

    def _one_of(self, tasks: list[Any]) -> Any:
        for task in tasks:
            if task not in self._ready:
                self._ready.add(task)
                self._steps.add(task)
        task = self._steps.take()
        self._ready.remove(task)
        return task

    def _check_progress(self) -> None:
        """Nothing was ready: either the clock has jumped, or there is nothing to wait for."""
        runner = _runner()
        timer = runner.deadlines.next_deadline() != float("inf")
        if timer or runner.runq or runner.waiting_for_idle:
            return
        tasks = [task for task in runner.tasks if not self._is_of_trio(task)]
        waiting = places((task.name, task.coro) for task in sorted(tasks, key=_age))
        self._run.end(Stuck(f"nothing is ready and no timer runs\n{waiting}"))

    # --- what the run asks of its backend ------------------------------------------------------

    def now(self) -> float:
        return self._clock.current_time()

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        def spawn() -> None:
            self._spawned.add(
                trio.lowlevel.spawn_system_task(
                    function, name=name, context=self._run.context.copy()
                )
            )

        if threading.get_ident() == self._thread:
            spawn()
        else:
            self._token.run_sync_soon(spawn)

    def cancel_everything(self) -> None:
        for task in _runner().tasks:
            status = task._cancel_status
            while status is not None:
                status._scope.shield = False
                status = status.parent
        self._everything.cancel()


_age = attrgetter("_counter")


def _runner() -> Any:
    context: Any = _run.GLOBAL_RUN_CONTEXT
    return context.runner


@contextmanager
def controlled(threads: Threads) -> Iterator[None]:
    """Prepare the backend for the runs of a search."""
    missing = [name for name in _NEEDED if not hasattr(_run, name)]
    if missing:
        raise RuntimeError(
            f"this trio ({trio.__version__}) has no {', '.join(missing)} in trio._core._run, by"
            " which `explore` controls the order of its tasks; 0.27 to 0.35 have them"
        )
    allowed = _run._ALLOW_DETERMINISTIC_SCHEDULING
    numbers = _run._r
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    to_thread = trio.to_thread.run_sync
    trio.to_thread.run_sync = partial(_to_thread, threads)  # type: ignore[assignment]
    try:
        with controlled_threads(get_async_backend("trio"), threads):
            yield
    finally:
        trio.to_thread.run_sync = to_thread
        _run._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # type: ignore[misc]
        _run._r = numbers


async def _to_thread(
    threads: Threads,
    sync_fn: Callable[..., Any],
    *args: Any,
    thread_name: str | None = None,  # noqa: ARG001  # they are named by us
    abandon_on_cancel: bool = False,
    limiter: trio.CapacityLimiter | None = None,
) -> Any:
    call = partial(sync_fn, *args)
    return await threads.run(call, abandon_on_cancel=abandon_on_cancel, limiter=limiter)


def run_scenario(scenario: Scenario, run: Run) -> None:
    """Run a scenario to its end, and whatever it has left behind; raise what it raises."""
    order = ControlledOrder(run)
    run.loop = order
    _run._r = order  # type: ignore[assignment]
    run.context.run(lambda: trio.run(order.main, scenario, clock=order._clock))
