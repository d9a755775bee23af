"""`Alarm`: wakes one task, from any thread. Knows nothing of what the task does then."""

from __future__ import annotations

from threading import get_ident

import anyio

from minisession._loop import current_loop


class Alarm:
    """Rings for one waiting task. A ring before the wait is not lost; two rings wake it once."""

    def __init__(self) -> None:
        self._thread: int | None = None
        self._rung = False

    def arm(self) -> None:
        """Let rings wake a task of the running loop from now on."""
        self._call_soon = current_loop()
        self._event = anyio.Event()
        self._rung = False
        self._thread = get_ident()

    def disarm(self) -> None:
        """Let nobody ring any more."""
        self._thread = None

    def is_at_home(self) -> bool:
        """Tell whether the calling thread runs the loop that the alarm is armed on."""
        return self._thread == get_ident()

    def ring(self) -> None:
        """Wake the task that waits, or the next that will. From any thread; never waits."""
        if self._rung:
            return
        self._rung = True
        if self.is_at_home():
            self._event.set()
        else:
            self._call_soon(self._event.set)

    async def wait(self) -> None:
        """Wait for a ring since the last wait."""
        await self._event.wait()
        self._event = type(self._event)()  # of this loop's kind: anyio.Event() looks it up first
        self._rung = False
