"""Entering and leaving a manager, struck at every suspension point.

A manager that could not be entered holds nothing, and one that is left holds nothing either:
no thread, no connection, no task. What was written in between is stored, and it can be entered
again.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from minisession import SessionManager
from tests.cancellation.conftest import STORES, Setting, Sweep
from tests.cancellation.left import borrowed_threads, descriptors, running_tasks, until_nothing
from tests.cancellation.trial import BEFORE
from tests.tripwire import NATIVE, Mishap, cancelled

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "setting",
        [
            Setting(backend, blow, store)
            for store in ("sqlite", "files")
            for backend, blows in [("asyncio", [cancelled, *NATIVE]), ("trio", [cancelled])]
            for blow in blows
        ],
        ids=str,
        indirect=True,
    ),
]


def threads_of(folder: Path) -> list[str]:
    """Return the names of the threads that work for a store in a folder."""
    return [thread.name for thread in threading.enumerate() if str(folder) in thread.name]


class Life:
    """A manager that is entered, used and left, again and again."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.sessions = SessionManager(STORES[store](folder))
        self.id = ""
        self.has_written = False

    async def begin(self) -> None:
        """Store a session, and see that nothing is left of that."""
        async with self.sessions, self.sessions.open() as one:
            one.update(BEFORE)
            await one.save()
            self.id = str(one.id)
        self.has_written = False
        self.tasks = running_tasks()

    async def live(self) -> None:
        """Enter, write, leave with the writing still under way, and with somebody else at work."""
        async with self.sessions:
            async with self.sessions.open(self.id) as one:
                one["n"] = 1
                self.has_written = True
            async with self.sessions.open(self.id) as other:
                other["cart"] = ["tea"]

    async def require_nothing_left(self) -> None:
        """Fail if anything of the manager is still there, once its threads have had their time."""
        await until_nothing(lambda: running_tasks() - self.tasks)
        await until_nothing(borrowed_threads)
        await until_nothing(lambda: threads_of(self.folder))
        await until_nothing(lambda: descriptors(self.folder))
        assert not self.sessions.is_running
        assert not self.sessions._committer.flushes()

    async def require_stored(self) -> None:
        """Fail if something is missing, or the manager does not work any more."""
        async with self.sessions, self.sessions.open(self.id) as one:
            assert one["n"] == (1 if self.has_written else 0)
            assert await one.update("n", lambda n: n + 1) == one["n"]


async def test_a_manager_that_is_entered_and_left_leaves_nothing_behind(
    tmp_path: Path, setting: Setting, swept: Sweep
) -> None:
    life = Life(tmp_path, setting.store)

    async def prepare() -> Awaitable[object]:
        await life.begin()
        return life.live()

    async def check() -> None:
        await life.require_nothing_left()
        await life.require_stored()

    assert await swept(prepare, check) > 5


@pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
async def test_leaving_a_manager_beside_a_task_that_still_writes_leaves_nothing_behind(
    tmp_path: Path, setting: Setting, swept: Sweep, raises: bool
) -> None:
    life = Life(tmp_path, setting.store)

    async def live() -> None:
        async with life.sessions, life.sessions.open(life.id) as one:

            async def save() -> None:
                await one.save()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(save)
                one["n"] = 1
                life.has_written = True
            if raises:
                raise Mishap

    async def run() -> None:
        try:
            await live()
        except Mishap:
            return

    async def prepare() -> Awaitable[object]:
        await life.begin()
        return run()

    async def check() -> None:
        await life.require_nothing_left()
        await life.require_stored()

    assert await swept(prepare, check) > 3


async def test_leaving_a_manager_before_a_session_stores_what_that_has_written(
    tmp_path: Path, setting: Setting, swept: Sweep
) -> None:
    life = Life(tmp_path, setting.store)

    async def live() -> None:
        async with AsyncExitStack() as stack, life.sessions:
            one = await stack.enter_async_context(life.sessions.open(life.id))
            one["n"] = 1
            life.has_written = True

    async def prepare() -> Awaitable[object]:
        await life.begin()
        return live()

    async def check() -> None:
        await life.require_nothing_left()
        await life.require_stored()

    assert await swept(prepare, check) > 3
