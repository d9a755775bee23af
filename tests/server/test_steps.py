"""Steps: a context per coroutine without a task per coroutine."""

from __future__ import annotations

from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import pytest

from minisession.server.steps import Steps

pytestmark = pytest.mark.anyio

name: ContextVar[str] = ContextVar("name", default="nobody")


def ignore(is_running: bool) -> None:
    """Watches nothing."""


async def test_what_a_coroutine_sets_stays_in_its_context() -> None:
    async def rename() -> None:
        name.set("Ada")
        await anyio.lowlevel.checkpoint()
        assert name.get() == "Ada"

    context = copy_context()
    await Steps(rename(), context, ignore)

    assert name.get() == "nobody"
    assert context[name] == "Ada"


async def test_tasks_and_threads_of_a_coroutine_inherit_its_context() -> None:
    found: list[str] = []

    async def look() -> None:
        found.append(name.get())

    async def spread() -> None:
        name.set("Ada")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
        found.append(await anyio.to_thread.run_sync(name.get))

    await Steps(spread(), copy_context(), ignore)

    assert found == ["Ada", "Ada"]


async def test_an_error_comes_out_as_it_is() -> None:
    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise KeyError("right")

    with pytest.raises(KeyError, match="right"):
        await Steps(fail(), copy_context(), ignore)


async def test_a_cancellation_reaches_the_coroutine_in_its_context() -> None:
    found: list[str] = []

    async def wait() -> None:
        name.set("Ada")
        try:
            await anyio.sleep_forever()
        finally:
            found.append(name.get())

    with anyio.move_on_after(0.01):
        await Steps(wait(), copy_context(), ignore)

    assert found == ["Ada"]


async def test_somebody_is_told_when_the_coroutine_runs_and_when_it_waits() -> None:
    seen: list[Any] = []

    async def work() -> None:
        seen.append("first")
        await anyio.lowlevel.checkpoint()
        seen.append("second")

    await Steps(work(), copy_context(), seen.append)

    assert seen[:3] == [True, "first", False]
    assert seen[-2:] == [True, "second"]


def test_a_coroutine_that_nobody_runs_on_is_closed_in_its_context() -> None:
    found: list[str] = []

    class Suspension:
        def __await__(self) -> Any:
            yield

    async def suspend() -> None:
        name.set("Ada")
        try:
            await Suspension()
        finally:
            found.append(name.get())

    steps = Steps(suspend(), copy_context(), ignore)
    next(steps)

    steps.close()

    assert found == ["Ada"]
