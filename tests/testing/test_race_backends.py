"""The race kit on each backend: what asyncio and trio do in ways of their own."""

from __future__ import annotations

import asyncio

import anyio
import anyio.to_thread
import pytest
import trio
from anyio.lowlevel import checkpoint

from minisession._worker import Work, start_worker
from minisession.testing import RaceFound, explore, explore_all

# --- asyncio ------------------------------------------------------------------------------------


def test_callbacks_keep_their_order_and_run_before_the_next_step() -> None:
    async def scenario() -> None:
        log: list[str] = []
        loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(checkpoint)
            loop.call_soon(log.append, "1")
            loop.call_later(0, log.append, "3")
            cancelled = loop.call_soon(log.append, "never")
            loop.call_soon_threadsafe(log.append, "2")
            cancelled.cancel()
            await checkpoint()
            assert log[:2] == ["1", "2"]
        assert log == ["1", "2", "3"]

    explore_all(scenario, backend="asyncio")


def test_timers_ring_in_their_order_unless_they_are_cancelled() -> None:
    async def scenario() -> None:
        log: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_later(2, log.append, "second")
        loop.call_later(1, log.append, "first")
        loop.call_later(1.5, log.append, "never").cancel()
        await asyncio.sleep(3)
        assert log == ["first", "second"]
        assert loop.time() == 3

    explore(scenario, backend="asyncio", seeds=range(3))


def test_what_a_callback_raises_is_found() -> None:
    async def scenario() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    with pytest.raises(RaceFound, match="ZeroDivisionError"):
        explore(scenario, backend="asyncio", seeds=range(1))


def test_callbacks_that_look_again_and_again_do_not_stop_time() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        def look() -> None:
            if loop.time() < 5:
                loop.call_soon(look)

        look()
        await asyncio.sleep(1)
        await asyncio.sleep(10)

    explore(scenario, backend="asyncio", seeds=range(2))


def test_tasks_that_are_left_behind_end_with_the_run() -> None:
    ended: list[str] = []

    async def stay() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    async def scenario() -> None:
        asyncio.get_running_loop().create_task(stay())  # carelessly
        await asyncio.sleep(1)

    explore(scenario, backend="asyncio", seeds=range(3))

    assert ended == ["ended"] * 3


def test_asynchronous_generators_that_are_left_behind_are_closed() -> None:
    closed: list[str] = []

    async def scenario() -> None:
        async def count() -> object:
            try:
                yield 1
                yield 2
            finally:
                closed.append("closed")

        numbers = count()
        assert await anext(numbers) == 1  # type: ignore[call-overload]
        kept.append(numbers)

    kept: list[object] = []
    explore(scenario, backend="asyncio", seeds=range(2))

    assert closed == ["closed"] * 2


def test_sockets_are_refused() -> None:
    async def scenario() -> None:
        with pytest.raises(RuntimeError, match="cannot wait for sockets"):
            await asyncio.get_running_loop().create_connection(asyncio.Protocol, "localhost", 1)

    explore(scenario, backend="asyncio", seeds=range(1))


# --- trio ---------------------------------------------------------------------------------------


def test_what_a_token_calls_soon_is_called_before_the_next_step() -> None:
    async def scenario() -> None:
        log: list[str] = []
        trio.lowlevel.current_trio_token().run_sync_soon(log.append, "called")
        await trio.sleep(1)
        assert log == ["called"]

    explore(scenario, backend="trio", seeds=range(3))


@pytest.mark.parametrize("name", ["_r", "_ALLOW_DETERMINISTIC_SCHEDULING"])
def test_a_trio_that_cannot_be_controlled_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(f"trio._core._run.{name}")

    with pytest.raises(RuntimeError, match=f"this trio .* has no {name} in trio._core._run"):
        explore(checkpoint, backend="trio")


# --- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_worker_can_be_started_in_a_thread(backend: str) -> None:
    async def scenario() -> None:
        log: list[str] = []

        def work() -> Work:
            log.append("began")
            yield None
            log.append("ended")

        def start() -> None:
            start_worker("a worker", work()).wake()

        await anyio.to_thread.run_sync(start)
        await anyio.sleep(1)
        assert log == ["began", "ended"]

    explore(scenario, backend=backend, seeds=range(5))
