"""Threads under the race kit: they are real, run while the loop stands still, and are in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio
from anyio.lowlevel import checkpoint

from minisession import SessionManager
from minisession._worker import Work, start_worker
from minisession.stores._sqlite.batches import SQLiteBatches
from minisession.stores._writer import Answer, Job, Purge, Writer
from minisession.testing import RaceFound, explore, explore_all, virtual_time
from minisession.testing._races import threads

pytestmark = pytest.mark.parametrize("backend", ["asyncio", "trio"])

color: ContextVar[str] = ContextVar("color")


def orders(scenario: Callable[[list[str]], Awaitable[None]], backend: str) -> set[str]:
    """Run a scenario, which writes a log, in all its orders, and return the logs."""
    logs: set[str] = set()

    async def logged() -> None:
        log: list[str] = []
        await scenario(log)
        logs.add("".join(log))

    explore_all(logged, backend=backend)
    return logs


# --- worker threads -----------------------------------------------------------------------------


def test_a_thread_is_one_step_among_those_of_others(backend: str) -> None:
    async def scenario(log: list[str]) -> None:
        def work() -> None:
            log.append("(")
            log.append(")")

        async def step() -> None:
            log.append("a")
            await checkpoint()
            log.append("b")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, work)
            tasks.start_soon(step)

    assert orders(scenario, backend) == {"()ab", "a()b", "ab()"}


def test_a_thread_is_real_and_has_the_context_of_its_caller(backend: str) -> None:
    async def scenario() -> None:
        color.set("green")
        assert await anyio.to_thread.run_sync(color.get) == "green"
        assert await anyio.to_thread.run_sync(threading.get_ident) != threading.get_ident()

    explore(scenario, backend=backend, seeds=range(3))


def test_what_a_thread_raises_is_raised(backend: str) -> None:
    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError):
            await anyio.to_thread.run_sync(lambda: 1 // 0)

    explore(scenario, backend=backend, seeds=range(3))


def test_threads_end_with_the_search(backend: str) -> None:
    before = threading.active_count()

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(anyio.to_thread.run_sync, call_back)

    def call_back() -> None:
        anyio.from_thread.run(checkpoint)

    explore(scenario, backend=backend, seeds=range(20))

    assert threading.active_count() == before


def test_a_thread_calls_into_the_loop_and_others_run_meanwhile(backend: str) -> None:
    async def scenario(log: list[str]) -> None:
        async def in_the_loop() -> str:
            log.append("[")
            await checkpoint()
            log.append("]")
            return color.get()

        def work() -> None:
            log.append("(")
            color.set("blue")
            assert anyio.from_thread.run(in_the_loop) == "blue"
            anyio.from_thread.run_sync(log.append, "!")
            log.append(")")

        async def step() -> None:
            log.append("a")

        color.set("red")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, work)
            tasks.start_soon(step)
        assert color.get() == "red"

    assert orders(scenario, backend) == {
        "a([]!)", "(a[]!)", "([a]!)", "([]a!)", "([]!a)", "([]!)a",
    }  # fmt: skip


def test_what_the_loop_raises_is_raised_in_the_thread(backend: str) -> None:
    async def fail() -> None:
        raise KeyError("key")

    def work() -> str:
        with pytest.raises(KeyError):
            anyio.from_thread.run(fail)
        return "caught"

    async def scenario() -> None:
        assert await anyio.to_thread.run_sync(work) == "caught"

    explore(scenario, backend=backend, seeds=range(3))


def test_a_thread_whose_caller_is_cancelled_finds_out_when_it_asks(backend: str) -> None:
    ended: set[str] = set()

    def work(look: Callable[[], object]) -> None:
        try:
            anyio.from_thread.run(anyio.sleep, 1)
            look()
        except BaseException:
            ended.add("cancelled")
            raise
        ended.add("done")

    async def in_thread(look: Callable[[], object]) -> None:
        await anyio.to_thread.run_sync(work, look)

    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(in_thread, anyio.from_thread.check_cancelled)
            await anyio.sleep(2)
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(in_thread, str)
            await anyio.sleep(0.5)
            tasks.cancel_scope.cancel()

    explore(scenario, backend=backend, seeds=range(5))

    assert ended == {"done", "cancelled"}


@pytest.mark.parametrize("abandoned", [True, False])
def test_the_result_of_an_abandoned_thread_is_dropped(backend: str, *, abandoned: bool) -> None:
    results: list[str] = []

    async def scenario() -> None:
        with anyio.CancelScope() as scope:
            result = await anyio.to_thread.run_sync(
                lambda: anyio.from_thread.run_sync(scope.cancel) or "result",
                abandon_on_cancel=abandoned,
            )
            results.append(result)
            await checkpoint()

    explore(scenario, backend=backend, seeds=range(1))

    assert results == ([] if abandoned else ["result"])


def test_threads_of_the_backend_itself_are_under_control(backend: str) -> None:
    async def scenario() -> None:
        log: list[str] = []

        async def call() -> None:
            if backend == "trio":
                await trio.to_thread.run_sync(log.append, "thread")
            else:
                await asyncio.to_thread(log.append, "thread")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            log.append("task")
            await checkpoint()
            await checkpoint()
        assert sorted(log) == ["task", "thread"]

    explore(scenario, backend=backend, seeds=range(20))


def test_only_a_thread_under_control_may_call_into_the_loop(backend: str) -> None:
    async def scenario() -> None:
        token = anyio.lowlevel.current_token()
        with pytest.raises(RuntimeError, match="by a token or a BlockingPortal"):
            await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(checkpoint, token=token))

    explore(scenario, backend=backend, seeds=range(1))


def test_a_thread_that_waits_for_another_one_is_reported(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "PATIENCE", 0.05)
    events: list[threading.Event] = []

    async def scenario() -> None:
        released = threading.Event()
        events.append(released)

        def wait() -> None:
            released.wait()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, wait)
            tasks.start_soon(anyio.to_thread.run_sync, released.set)

    with pytest.raises(RaceFound, match="Does it wait for another task or thread"):
        explore(scenario, backend=backend, seeds=range(50))
    for event in events:
        event.set()


# --- workers: the threads of stores -------------------------------------------------------------


def test_the_work_of_a_worker_is_in_steps_among_those_of_others(backend: str) -> None:
    async def scenario(log: list[str]) -> None:
        def work() -> Work:
            log.append("(")
            yield 0
            log.append(")")

        worker = start_worker("a worker", work())
        log.append("a")
        await checkpoint()
        log.append("b")
        await checkpoint()
        assert worker.finish(None)

    assert orders(scenario, backend) == {"a()b", "a(b)", "ab()"}


def test_a_worker_waits_to_be_woken_and_for_time_to_pass(backend: str) -> None:
    async def scenario() -> None:
        times: list[float] = []
        began = virtual_time()

        def work() -> Work:
            yield None
            times.append(virtual_time() - began)
            yield 60
            times.append(virtual_time() - began)

        worker = start_worker("a worker", work())
        await anyio.sleep(5)
        assert times == []
        await anyio.to_thread.run_sync(worker.wake)
        await anyio.sleep(100)
        assert times == [5, 65]

    explore(scenario, backend=backend, seeds=range(20))


def test_what_a_worker_fails_with_is_found(backend: str) -> None:
    def work() -> Work:
        yield None
        raise ZeroDivisionError

    async def scenario() -> None:
        start_worker("a worker", work()).wake()
        await anyio.sleep_forever()

    with pytest.raises(RaceFound, match="ZeroDivisionError"):
        explore(scenario, backend=backend, seeds=range(1))


def test_a_worker_that_nobody_finishes_ends_with_the_run(backend: str) -> None:
    ended: list[str] = []

    def work() -> Work:
        try:
            yield None
        finally:
            ended.append("ended")

    async def scenario() -> None:
        start_worker("a worker", work())
        await anyio.sleep(1)

    explore(scenario, backend=backend, seeds=range(3))

    assert ended == ["ended"] * 3


# --- SQLite -------------------------------------------------------------------------------------


def test_a_commit_to_sqlite_is_handed_over_applied_and_answered_at_any_time(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    logs: set[str] = set()
    apply = SQLiteBatches.apply

    def logged(batches: SQLiteBatches, jobs: object) -> object:
        log.append("applied ")
        return apply(batches, jobs)  # type: ignore[arg-type]

    monkeypatch.setattr(SQLiteBatches, "apply", logged)

    async def scenario() -> None:
        async def save() -> None:
            session["key"] = "value"
            await session.save()
            log.append("answered ")

        async def step() -> None:
            for _ in range(3):
                log.append(". ")
                await checkpoint()

        async with (
            SessionManager(f"sqlite:///{tmp_path}/sessions.db", clock=virtual_time) as sessions,
            sessions.open() as session,
        ):
            log.clear()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(save)
                tasks.start_soon(step)
            logs.add("".join(log).strip())

    explore(scenario, backend=backend, seeds=range(80))

    assert logs >= {
        "applied answered . . .",
        "applied . answered . .",
        ". applied . answered .",
        ". . . applied answered",
        "applied . . . answered",
    }


def test_who_waits_for_a_commit_can_be_cancelled_before_and_after_it_is_applied(
    backend: str,
) -> None:
    async def scenario(log: list[str]) -> None:
        class Logging:
            def apply(self, jobs: Sequence[Job]) -> list[Answer]:
                log.append("applied ")
                return [0 for _ in jobs]

            def close(self) -> None:
                pass

        writer = Writer("a writer", Logging)
        scope = anyio.CancelScope()

        async def save() -> None:
            with scope:
                await writer.do([Purge(1)], 0.0)
                log.append("answered ")

        async def cancel() -> None:
            log.append("cancelled ")
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(save)
            tasks.start_soon(cancel)
        assert writer.close(0)

    assert orders(scenario, backend) == {
        "cancelled applied ",
        "applied cancelled ",  # and not answered: this is the moment in between
        "applied cancelled answered ",
        "applied answered cancelled ",
    }


def test_a_planted_race_beside_sqlite_is_found(backend: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        url = f"sqlite:///{tmp_path}/sessions.db"
        async with SessionManager(url, clock=virtual_time) as sessions:
            async with sessions.open() as begun:
                begun["count"] = 0
                await begun.save()
                id = begun.id

            async def increment() -> None:
                async with sessions.open(id) as session:
                    session["count"] += 1  # instead of: await session.update("count", ...)
                    await session.save()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(increment)
                tasks.start_soon(increment)
            async with sessions.open(id) as session:
                assert session["count"] == 2

    with pytest.raises(RaceFound) as caught:
        explore(scenario, backend=backend, seeds=range(50))

    assert caught.value.tried <= 10
