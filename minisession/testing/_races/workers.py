"""`DrivenWorker`: the thread of a store as a task of the loop, so that the schedule decides on it.

What such a thread does between two waits is one step, and before and after it others may run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import anyio
import anyio.lowlevel

from minisession._alarm import Alarm
from minisession._worker import Work

__all__ = ["DrivenWorker", "Work"]


class DrivenWorker:
    """Does a worker's work, one step at a time; see `minisession._worker`.

    Args:
        work: the work.
        failed: called with what it raised, which no thread's work should.
    """

    def __init__(self, work: Work, failed: Callable[[BaseException], None]) -> None:
        self._work = work
        self._failed = failed
        self._alarm: Alarm | None = None
        self._woken_early = False
        self._ended = False

    def wake(self) -> None:
        """End the wait for this, or the next one."""
        if self._alarm is None:
            self._woken_early = True
        else:
            self._alarm.ring()

    def finish(self, timeout: float | None) -> bool:  # noqa: ARG002  # nothing here takes time
        """Do at once all that is left, in the calling thread; returns whether that is the end."""
        waits = 0
        while not self._ended and not self._is_at_it() and waits < 2:
            waits += self._step() is None
        self.wake()
        return self._ended

    async def drive(self) -> None:
        """Do the work, as a task."""
        self._alarm = Alarm()
        self._alarm.arm()
        if self._woken_early:
            self._alarm.ring()
        try:
            while True:
                pause = self._step()
                if self._ended:
                    return
                await self._wait(self._alarm, pause)
        finally:
            self._alarm = None
            self._work.close()

    async def _wait(self, alarm: Alarm, pause: float | None) -> None:
        if pause is None:
            await alarm.wait()
        else:
            await anyio.sleep(pause)

    def _is_at_it(self) -> bool:
        return inspect.getgeneratorstate(self._work) == inspect.GEN_RUNNING

    def _step(self) -> float | None:
        try:
            return next(self._work)
        except StopIteration:
            self._ended = True
        except Exception as error:  # noqa: BLE001  # it ends the run, as what was found
            self._ended = True
            self._failed(error)
        return None
