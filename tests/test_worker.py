"""A worker in its thread: it works, waits to be woken or for time to pass, and ends when it may."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue

import pytest

from minisession._worker import ThreadWorker, Work, start_worker, starter

TIMEOUT = 10  # seconds; none of these tests takes any of them, unless it fails


class Chatty:
    """Work that tells where it is, and waits as it is told; it ends when it may."""

    def __init__(self, *pauses: float | None) -> None:
        self.pauses = pauses
        self.said: SimpleQueue[str] = SimpleQueue()
        self.may_end = False

    def work(self) -> Work:
        for pause in self.pauses:
            self.said.put("waits")
            yield pause
            if self.may_end:
                break
        self.said.put("ends")

    def hears(self, word: str) -> bool:
        return self.said.get(timeout=TIMEOUT) == word


def test_the_work_is_done_in_a_daemon_of_that_name() -> None:
    threads: SimpleQueue[threading.Thread] = SimpleQueue()

    def work() -> Work:
        threads.put(threading.current_thread())
        yield 0

    worker = start_worker("a worker", work())

    thread = threads.get(timeout=TIMEOUT)
    assert (thread.name, thread.daemon) == ("a worker", True)
    assert worker.finish(TIMEOUT)
    assert not thread.is_alive()


def test_a_wake_ends_one_wait() -> None:
    chatty = Chatty(None, None)
    worker = ThreadWorker("a worker", chatty.work())
    assert chatty.hears("waits")

    worker.wake()
    assert chatty.hears("waits")
    assert chatty.said.empty()
    worker.wake()

    assert chatty.hears("ends")


def test_a_wake_before_the_wait_is_not_lost() -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def work() -> Work:
        arrived.set()
        assert go_on.wait(TIMEOUT)
        yield None

    worker = ThreadWorker("a worker", work())
    assert arrived.wait(TIMEOUT)
    worker.wake()
    go_on.set()

    assert joined(worker)


def test_time_passes_whoever_wakes() -> None:
    chatty = Chatty(0.05, None)
    began = time.monotonic()
    worker = ThreadWorker("a worker", chatty.work())
    assert chatty.hears("waits")

    worker.wake()  # counts for this wait, so the next one needs another
    assert chatty.hears("waits")

    assert time.monotonic() - began >= 0.05
    worker.wake()
    assert chatty.hears("ends")


def test_without_a_pause_it_goes_on() -> None:
    chatty = Chatty(0, 0, 0)

    assert joined(ThreadWorker("a worker", chatty.work()))


@pytest.mark.parametrize("pause", [None, 3600.0])
def test_finishing_ends_a_wait(pause: float | None) -> None:
    chatty = Chatty(pause, None)
    worker = ThreadWorker("a worker", chatty.work())
    assert chatty.hears("waits")

    chatty.may_end = True

    assert worker.finish(TIMEOUT)
    assert chatty.hears("ends")


def test_finishing_does_not_wait_for_ever() -> None:
    go_on = threading.Event()

    def work() -> Work:
        assert go_on.wait(TIMEOUT)
        yield 0

    worker = ThreadWorker("a worker", work())

    assert worker.finish(0.01) is False
    go_on.set()
    assert worker.finish(TIMEOUT) is True


def test_a_worker_that_finishes_itself_does_not_wait_for_itself() -> None:
    answers: SimpleQueue[bool] = SimpleQueue()
    workers: SimpleQueue[ThreadWorker] = SimpleQueue()

    def work() -> Work:
        answers.put(workers.get(timeout=TIMEOUT).finish(None))
        yield None

    worker = ThreadWorker("a worker", work())
    workers.put(worker)

    assert answers.get(timeout=TIMEOUT) is False
    assert joined(worker)


def test_who_starts_workers_is_a_matter_of_context() -> None:
    started: list[str] = []

    def start(name: str, work: Work) -> ThreadWorker:
        started.append(name)
        return ThreadWorker(name, work)

    def in_context(function: Callable[[], object]) -> None:
        starter.set(start)
        function()

    copy_context().run(in_context, lambda: start_worker("here", Chatty().work()))
    start_worker("elsewhere", Chatty().work())

    assert started == ["here"]


def joined(worker: ThreadWorker) -> bool:
    """Whether the work ends by itself: `finish` would help it."""
    worker._thread.join(TIMEOUT)
    return not worker._thread.is_alive()
