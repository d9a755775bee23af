"""A thread of one's own, for work that would stop the loop: it works, waits to be woken, and ends.

It owns the thread and its waiting, and refuses to know what the work is. The work is a generator:
between two `yield`s it does something that nobody else may see half done, and each `yield` says
what it waits for then:

    yield None      until it is woken
    yield seconds   so long, whoever wakes it
    yield 0         for nothing; but here, too, everything else may happen in between

So whoever sets `starter` can do the same work step by step without any thread: that is how
`minisession.testing` puts what a thread does under the control of a schedule.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Protocol

__all__ = ["ThreadWorker", "Work", "Worker", "start_worker", "starter"]

Work = Generator[float | None, None, None]


class Worker(Protocol):
    """Does some work, and can be woken."""

    def wake(self) -> None:
        """End the wait for this, or the next one; from any thread, never waits."""
        ...

    def finish(self, timeout: float | None) -> bool:
        """End every wait from now on, and wait until the work has ended, at most `timeout` seconds.

        What the work looks at must tell it by then that it is to end. Returns whether it has.
        """
        ...


class ThreadWorker:
    """Does its work in a thread, which is a daemon: it keeps no process from ending.

    Mutable state: `_woken` and `_finishing`, both only under `_condition`.
    """

    def __init__(self, name: str, work: Work) -> None:
        # Reentrant, because a garbage collection under it may end the worker of a forgotten store.
        self._condition = threading.Condition(threading.RLock())
        self._woken = False
        self._finishing = False
        self._thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """End the wait for this, or the next one."""
        with self._condition:
            if not self._woken:
                self._woken = True
                self._condition.notify()

    def finish(self, timeout: float | None) -> bool:
        """End every wait from now on, and wait for the end; a worker does not wait for itself."""
        with self._condition:
            self._finishing = True
            self._condition.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self, work: Work) -> None:
        for pause in work:
            if pause != 0:
                self._wait(pause)

    def _wait(self, pause: float | None) -> None:
        with self._condition:
            self._condition.wait_for(
                lambda: self._finishing or (pause is None and self._woken), pause
            )
            self._woken = False


starter: ContextVar[Callable[[str, Work], Worker]] = ContextVar(
    "minisession.worker", default=ThreadWorker
)
"""What starts workers here; by its context, so that no other loop or thread is affected."""


def start_worker(name: str, work: Work) -> Worker:
    """Start a worker; `name` is for those who look at stacks.

    Raises:
        RuntimeError: no more threads, or the interpreter is about to exit.
    """
    return starter.get()(name, work)
