"""How a thread speaks to an event loop: the one place that knows asyncio from trio.  # backend shim

It owns the answer to "which loop am I on, and how does another thread run something there?", for
which anyio has only a blocking form. It imports neither backend: what has not been imported is
not running. It refuses to know what is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

__all__ = ["CallSoon", "current_loop"]


@dataclass(frozen=True, slots=True)
class CallSoon:
    """Runs functions on one event loop, from any thread. Two of the same loop are equal."""

    _submit: Callable[[Callable[[], object]], Any]

    def __call__(self, function: Callable[[], object]) -> None:
        """Have the loop call `function` soon, without waiting for it.

        The function must not raise: on trio that would end the whole run. A loop that has ended
        is no error: whoever waited there is gone, and nothing else is lost.
        """
        try:
            self._submit(function)
        except (
            RuntimeError
        ):  # both say "closed" by it (trio.RunFinishedError is one), and only that
            return


def current_loop() -> CallSoon:
    """Return the way into the event loop that runs the calling task.

    Raises:
        RuntimeError: no asyncio or trio task is running in this thread.
    """
    # trio first: as a guest it runs inside a loop of asyncio, which would answer as well.
    trio = sys.modules.get("trio.lowlevel")
    if trio is not None and _is_in_task_of(trio):
        return CallSoon(trio.current_trio_token().run_sync_soon)
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        return CallSoon(asyncio.get_running_loop().call_soon_threadsafe)
    raise RuntimeError("no running event loop")


def _is_in_task_of(trio: ModuleType) -> bool:
    # getattr: another thread may be in the middle of importing it. Its `in_trio_task` would say
    # the same, but is newer (0.29) than what we allow.
    current_task = getattr(trio, "current_task", None)
    if current_task is None:
        return False
    try:
        current_task()
    except RuntimeError:
        return False
    return True
