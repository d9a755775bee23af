"""What an operation may leave behind: nothing.

`Left` remembers what there was before, and requires that it is the same again: tasks, borrowed
threads, locks, queues. It looks into the manager and the stores, because a lock that stays locked
shows itself to a user only much later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread

from minisession import SessionManager
from minisession.stores.files import FilesStore
from minisession.stores.sqlite import SQLiteStore
from tests.machine import open_files

PATIENCE = 10  # seconds for what has been cancelled to end; it takes a small part of that

NOBODY = "A" * 22  # the handle of no session


class Left:
    """Compares what is there with what there was when it was made."""

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager
        self._tasks = running_tasks()

    async def landed(self) -> None:
        """Wait until everything that was handed over is stored, and its tasks have ended."""
        await anyio.wait_all_tasks_blocked()
        await self.manager.revoke(NOBODY)  # whatever was queued before it is done after it
        await until_nothing(lambda: running_tasks() > self._tasks)

    def require_nothing(self) -> None:
        """Fail if a task, a thread or a lock is still in use, or something is still queued."""
        manager, committer = self.manager, self.manager._committer
        assert running_tasks() == self._tasks
        assert borrowed_threads() == 0
        assert not manager._turns
        assert not committer._unflushed
        assert not committer._touches
        if isinstance(manager.store, SQLiteStore):
            assert not manager.store._database.writer._queued
            assert not manager.store._database.reader._lock.locked()
        if isinstance(manager.store, FilesStore):
            assert not manager.store._place.writer._queued


def running_tasks() -> int:
    """Count the tasks of this loop."""
    return len(anyio.get_running_tasks())


def borrowed_threads() -> float:
    """Count the worker threads in use."""
    return anyio.to_thread.current_default_thread_limiter().borrowed_tokens


async def until_nothing(of: Callable[[], object]) -> None:
    """Let others run until nothing of something is left; fail with what still is."""
    with anyio.move_on_after(PATIENCE):
        while of():
            await anyio.lowlevel.checkpoint()
    assert not of()


def descriptors(folder: Path) -> list[str]:
    """Return which open files of this process are in a folder: what a store has not given back."""
    return [target for target in open_files() if target.startswith(str(folder))]
