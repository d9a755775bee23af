"""`Run`: one run of one scenario under one schedule. What is the same on both backends is here.

It owns what may end a run besides the scenario itself: no step is ready and no timer runs, there
are too many steps, the schedule has no more choices, or a thread's work fails. A run that is ended
is cancelled as a whole and takes the first step that is ready until everything is over.

There is one run at a time in a process, because trio keeps its order of tasks in a global.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, Protocol

from minisession._worker import starter

from .schedule import Schedule
from .stuck import Endless
from .threads import Threads
from .workers import DrivenWorker, Work

__all__ = ["Loop", "Run", "Scenario", "virtual_time"]

Scenario = Callable[[], Awaitable[None]]

MAX_STEPS = 20_000
"""Steps of one run. A request takes some 50; what takes so many more goes round in circles."""

UNWINDING = 2_000
"""Steps in which a run that was ended must be over."""

EPOCH = 1_800_000_000.0
"""What `virtual_time` says at the beginning of a run: some day in 2027."""


class Loop(Protocol):
    """What a run asks of its backend, of which there are two shims."""

    def now(self) -> float:
        """Return the seconds of virtual time since the beginning."""
        ...

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Start a task that does not keep the run from ending; from any thread."""
        ...

    def cancel_everything(self) -> None:
        """Cancel all tasks, whatever shields them."""
        ...


class Run:
    """One run of one scenario.

    Attributes:
        loop: the backend; set by its shim before anything runs.
        problem: why the run was ended; None if nobody but the scenario has ended it.
        broken_off: what the source of the schedule raised, which says nothing of the scenario.
        context: that of the scenario.
    """

    loop: Loop

    def __init__(self, schedule: Schedule, threads: Threads) -> None:
        self.schedule = schedule
        self.threads = threads
        self.problem: BaseException | None = None
        self.broken_off: BaseException | None = None
        self.context: Context = copy_context()
        self.context.run(starter.set, self._start_worker)
        self._steps_left = MAX_STEPS

    def choose(self, n: int) -> int:
        """Choose one of n steps, or the first when the run has been ended."""
        self._steps_left -= 1
        if not self._steps_left:
            self.end(Endless(f"after {MAX_STEPS:,} steps the scenario has not ended"))
        if self.problem is not None:
            return 0
        try:
            return self.schedule.choose(n)
        except BaseException as error:  # noqa: BLE001  # the loop must end in an orderly way first
            self.broken_off = error
            self.end(error)
            return 0

    def end(self, problem: BaseException) -> None:
        """End the run because of a problem.

        A second one is raised where it occurs, whatever that breaks: what does not even end when
        it is cancelled cannot end in an orderly way.
        """
        if self.problem is not None:
            raise problem
        self.problem = problem
        self._steps_left = UNWINDING
        self.loop.cancel_everything()

    def _start_worker(self, name: str, work: Work) -> DrivenWorker:
        worker = DrivenWorker(work, self.end)
        self.loop.spawn(worker.drive, name)
        return worker


_current: Run | None = None


@contextmanager
def current(run: Run) -> Iterator[None]:
    """Make a run the one that `virtual_time` means."""
    global _current  # noqa: PLW0603  # as said above: one at a time
    _current = run
    try:
        yield
    finally:
        _current = None


def virtual_time() -> float:
    """Return the time of the running scenario, in seconds since the epoch.

    It stands still while something can be done, and jumps when all that is left is to wait. For
    what has a clock of its own: `SessionManager("memory://", clock=virtual_time)`.

    Raises:
        RuntimeError: no scenario runs.
    """
    if _current is None:
        raise RuntimeError(
            "virtual_time() is the time in a scenario that `explore` runs, and none is running"
        )
    return EPOCH + _current.loop.now()
