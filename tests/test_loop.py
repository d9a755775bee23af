"""A thread speaks to the loop: at once, from anywhere, and also when nobody is there any more."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from functools import partial

import anyio
import anyio.to_thread
import pytest
import trio

from minisession._loop import CallSoon, current_loop


def in_a_thread(call_soon: CallSoon, function: object) -> None:
    thread = threading.Thread(target=call_soon, args=(function,))
    thread.start()
    thread.join(10)


@pytest.mark.anyio
async def test_a_thread_has_the_loop_call_something_soon() -> None:
    called = anyio.Event()
    where: list[int] = []

    def function() -> None:
        where.append(threading.get_ident())
        called.set()

    in_a_thread(current_loop(), function)
    with anyio.fail_after(10):
        await called.wait()

    assert where == [threading.get_ident()]


@pytest.mark.anyio
async def test_the_loop_calls_in_the_order_of_asking_and_never_before_the_next_await() -> None:
    calls: list[int] = []
    done = anyio.Event()
    call_soon = current_loop()

    for number in range(3):
        call_soon(partial(calls.append, number))
    call_soon(done.set)
    before = list(calls)
    with anyio.fail_after(10):
        await done.wait()

    assert before == []
    assert calls == [0, 1, 2]


@pytest.mark.anyio
async def test_two_answers_of_one_loop_are_equal() -> None:
    assert current_loop() == current_loop()
    assert len({current_loop(), current_loop()}) == 1


@pytest.mark.anyio
async def test_a_worker_thread_is_on_no_loop() -> None:
    with pytest.raises(RuntimeError):
        await anyio.to_thread.run_sync(current_loop)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_has_ended_is_no_error(backend: str) -> None:
    async def answer() -> CallSoon:
        return current_loop()

    call_soon = anyio.run(answer, backend=backend)
    calls: list[str] = []

    call_soon(lambda: calls.append("called"))

    assert calls == []


def test_loops_of_two_runs_differ() -> None:
    async def answer() -> CallSoon:
        return current_loop()

    answers = [anyio.run(answer, backend=backend) for backend in ("asyncio", "trio", "asyncio")]

    assert len(set(answers)) == 3


def test_outside_any_loop_it_says_so() -> None:
    with pytest.raises(RuntimeError):
        current_loop()


def test_trio_as_a_guest_of_asyncio_is_found_first() -> None:
    async def guest() -> CallSoon:
        return current_loop()

    async def host() -> tuple[CallSoon, CallSoon]:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[CallSoon] = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=lambda outcome: ended.set_result(outcome.unwrap()),
        )
        return await ended, current_loop()

    of_guest, of_host = asyncio.run(host())

    assert of_guest != of_host


def test_it_imports_neither_backend() -> None:
    script = """
import sys
from minisession._loop import current_loop
try:
    current_loop()
except RuntimeError as error:
    print(error, {"asyncio", "trio"} & set(sys.modules))
"""

    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert run.stdout == "no running event loop set()\n"


@pytest.mark.anyio
async def test_a_trio_that_cannot_say_whether_it_runs_is_found_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("trio.lowlevel.in_trio_task")  # as before trio 0.29
    called = anyio.Event()

    current_loop()(called.set)

    with anyio.fail_after(10):
        await called.wait()


def test_a_trio_that_is_being_imported_is_not_running(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer() -> CallSoon:
        with monkeypatch.context() as patch:
            patch.delattr("trio.lowlevel.current_task")
            return current_loop()

    assert isinstance(anyio.run(answer, backend="asyncio"), CallSoon)
