"""The writer's queue, with what it does to jobs under the test's control."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import anyio
import anyio.lowlevel
import pytest

from minisession import _loop
from minisession.abc import Destroy
from minisession.errors import SaveOutcomeUnknown, StoreUnavailable
from minisession.stores import _writer
from minisession.stores._writer import MAX_BATCH, MAX_WOKEN, Answer, Job, Writer

from .kit import NOW

pytestmark = pytest.mark.anyio


class Recorder:
    """Answers each job with its number, once the gate is open; remembers its batches."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.closed = 0

    def apply(self, jobs: Sequence[Job]) -> list[Answer]:
        self.batches.append(len(jobs))
        self.threads.add(threading.get_ident())
        assert self.gate.wait(10)
        return list(range(len(jobs)))

    def close(self) -> None:
        self.closed += 1


def changes(number: int) -> list[Destroy]:
    return [Destroy(f"h{index}", None) for index in range(number)]


@contextmanager
def writer(recorder: Recorder) -> Iterator[Writer]:
    made = Writer("a writer", lambda: recorder)
    yield made
    recorder.gate.set()
    assert made.close(10)


async def test_what_queues_up_meanwhile_is_one_batch() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    with writer(recorder) as made:
        async with anyio.create_task_group() as group:
            group.start_soon(made.do, changes(1), NOW)
            await anyio.wait_all_tasks_blocked()
            while not recorder.batches:  # noqa: ASYNC110  # what a thread does sets no event
                await anyio.sleep(0.001)
            for _ in range(30):
                group.start_soon(made.do, changes(1), NOW)
            await anyio.wait_all_tasks_blocked()
            recorder.gate.set()

    assert recorder.batches == [1, 30]
    assert recorder.closed == 1


async def test_a_batch_wakes_those_who_wait_some_at_a_time() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    turn = 0
    woken: Counter[int] = Counter()

    async def hand_over() -> None:
        await made.do(changes(1), NOW)
        woken[turn] += 1

    with writer(recorder) as made:
        async with anyio.create_task_group() as group:
            group.start_soon(hand_over)
            await anyio.wait_all_tasks_blocked()
            while not recorder.batches:  # noqa: ASYNC110  # what a thread does sets no event
                await anyio.sleep(0.001)
            for _ in range(MAX_BATCH):
                group.start_soon(hand_over)
            await anyio.wait_all_tasks_blocked()
            recorder.gate.set()
            while woken.total() < 1 + MAX_BATCH:
                turn += 1
                await anyio.lowlevel.checkpoint()

    assert recorder.batches == [1, MAX_BATCH]
    assert max(woken.values()) <= 2 * MAX_WOKEN + 1  # two lots may come between two turns


async def test_a_batch_has_a_bound() -> None:
    recorder = Recorder()
    with writer(recorder) as made:
        answers = await made.do(changes(2 * MAX_BATCH + 1), NOW)

    assert recorder.batches == [MAX_BATCH, MAX_BATCH, 1]
    assert answers == [*range(MAX_BATCH), *range(MAX_BATCH), 0]


async def test_nothing_to_do_starts_no_thread() -> None:
    recorder = Recorder()
    with writer(recorder) as made:
        assert await made.do([], NOW) == []

    assert recorder.closed == 0


async def test_after_closing_the_next_request_starts_another_thread() -> None:
    recorder = Recorder()
    with writer(recorder) as made:
        await made.do(changes(1), NOW)
        assert made.close(10)
        await made.do(changes(1), NOW)

    assert recorder.closed == 2
    assert recorder.batches == [1, 1]


async def test_closing_does_first_what_is_queued() -> None:
    recorder = Recorder()
    with writer(recorder) as made:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await made.do(changes(3 * MAX_BATCH), NOW)
        assert made.close(10)

    assert sum(recorder.batches) == 3 * MAX_BATCH


async def test_closing_does_not_wait_for_ever() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    with writer(recorder) as made:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await made.do(changes(1), NOW)

        assert made.close(0.01) is False


async def test_the_last_withdrawal_of_a_call_ends_its_wait() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    wanted = changes(2)
    answers: list[Answer] = []

    async def wait() -> None:
        answers.extend(await made.do(wanted, NOW))

    with writer(recorder) as made:
        async with anyio.create_task_group() as group:
            group.start_soon(made.do, changes(1), NOW)
            while not recorder.batches:  # noqa: ASYNC110
                await anyio.sleep(0.001)
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()

            assert [made.withdraw(change) for change in wanted] == [True, True]
            await anyio.wait_all_tasks_blocked()
            assert [type(answer) for answer in answers] == [StoreUnavailable] * 2
            recorder.gate.set()

    assert recorder.batches == [1]


async def test_a_bug_in_what_is_done_leaves_nobody_waiting_and_the_thread_alive(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Buggy(Recorder):
        def apply(self, jobs: Sequence[Job]) -> list[Answer]:
            if not self.batches:
                self.batches.append(len(jobs))
                raise ZeroDivisionError
            return super().apply(jobs)

    recorder = Buggy()
    with writer(recorder) as made:
        first = await made.do(changes(2), NOW)
        second = await made.do(changes(2), NOW)

    assert [type(answer) for answer in first] == [SaveOutcomeUnknown] * 2
    assert "ZeroDivisionError" in str(first[0])
    assert second == [0, 1]
    assert "nobody thought of" in caplog.text


async def test_without_a_thread_nothing_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    recorder = Recorder()
    change = changes(1)
    with writer(recorder) as made:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(StoreUnavailable, match="can't start new thread"):
                await made.do(change, NOW)
        await made.do(change, NOW)

    assert recorder.batches == [1]


async def test_each_loop_is_woken_once_for_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Callable[[], object]] = []
    real = _loop.current_loop

    class Counting:
        def __init__(self) -> None:
            self.call_soon = real()

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Counting)

        def __hash__(self) -> int:
            return 0

        def __call__(self, function: Callable[[], object]) -> None:
            calls.append(function)
            self.call_soon(function)

    monkeypatch.setattr(_writer, "current_loop", Counting)
    recorder = Recorder()
    recorder.gate.clear()
    with writer(recorder) as made:
        async with anyio.create_task_group() as group:
            for _ in range(MAX_WOKEN):
                group.start_soon(made.do, changes(1), NOW)
            await anyio.wait_all_tasks_blocked()
            recorder.gate.set()

    assert len(calls) == len(recorder.batches) <= 2
