"""`Writer`: one thread that applies what many tasks hand over, as much at once as has queued up.

It owns the queue, the thread and the waking of those who wait; it knows no file format and no SQL.
Every stay in the queue has one of two ends, decided under one lock: a job is *taken* by the thread,
and then it is answered, or *withdrawn*, and then nobody ever sees it again.

    submit ──> queued ──> taken ──> answered
                  └─────> withdrawn

Mutable state: `_queued`, `_worker` and `_stopping`, all three only under `_lock`. There is a worker
with the thread whenever something is queued; `close` waits for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Protocol, cast

import anyio

from minisession._loop import CallSoon, current_loop
from minisession._worker import Work, Worker, start_worker
from minisession.abc import Change, Outcome
from minisession.errors import SaveOutcomeUnknown, StoreUnavailable

__all__ = ["Answer", "Batches", "Job", "Purge", "Request", "Writer"]

MAX_BATCH = 128
"""Jobs in one transaction: some 5 ms of work. More of them commit no faster (SQLite: of 32 each
takes 45 µs of processor time, of 128 35, of 512 as well), wake as many tasks at once, which stalls
the loop, and leave the thread idle meanwhile."""

MAX_WOKEN = 32
"""Tasks that the loop wakes at once: others take turns with them, and no batch stalls it."""

logger = logging.getLogger("minisession.stores")


@dataclass(frozen=True, slots=True)
class Purge:
    """Remove at most `limit` expired sessions; the answer is how many were removed."""

    limit: int


Request = Change | Purge
Answer = Outcome | int


@dataclass(eq=False, slots=True)
class Ticket:
    """What one call waits for: the answers to all that it handed over."""

    call_soon: CallSoon
    answers: list[Answer | None]
    missing: int
    answered: anyio.Event = field(default_factory=anyio.Event)


@dataclass(eq=False, slots=True)
class Job:
    """One request with its time, on its way to the thread."""

    request: Request
    now: float
    ticket: Ticket
    place: int
    """Where its answer belongs among those of the ticket."""
    twice: bool = False
    """The same object was handed over again: taking one of the two back would promise too much."""

    def answer(self, answer: Answer) -> bool:
        """Note the answer; tell whether it was the last that the ticket waited for."""
        self.ticket.answers[self.place] = answer
        self.ticket.missing -= 1
        return self.ticket.missing == 0


class Batches(Protocol):
    """What the thread does with jobs. Made, used and closed in the thread alone."""

    def apply(self, jobs: Sequence[Job]) -> list[Answer]:
        """Apply the jobs in order and answer each. An error that concerns one job is its answer."""
        ...

    def close(self) -> None:
        """Give back what it holds; called when the thread ends."""
        ...


class Writer:
    """Hands requests to a thread of its own, and their answers back to the waiting tasks.

    The queue needs no bound of its own: a session has at most one change in flight, and who waits
    for it is a request that the server has accepted. A bound here could only make the hand-over
    wait, and then a cancelled task would lose its change.

    Args:
        name: of the thread, for those who look at stacks.
        batches: makes what does the work; called in the thread.
    """

    def __init__(self, name: str, batches: Callable[[], Batches]) -> None:
        self._name = name
        self._batches = batches
        # Reentrant, because a garbage collection under it may run `close`.
        self._lock = threading.RLock()
        self._queued: dict[int, Job] = {}
        self._worker: Worker | None = None
        self._stopping = False

    async def do(self, requests: Sequence[Request], now: float) -> list[Answer]:
        """Hand over the requests at once, then wait for their answers.

        Everything has been handed over before the first suspension; who is cancelled while waiting
        leaves the requests to the thread, which does them.
        """
        if not requests:
            return []
        ticket = self._submit(requests, now)
        await ticket.answered.wait()
        return cast("list[Answer]", ticket.answers)

    def _submit(self, requests: Sequence[Request], now: float) -> Ticket:
        ticket = Ticket(current_loop(), [None] * len(requests), len(requests))
        with self._lock:
            worker = self._working()
            for place, request in enumerate(requests):
                self._enqueue(Job(request, now, ticket, place))
            worker.wake()
        return ticket

    def _working(self) -> Worker:
        if self._worker is None:
            try:
                self._worker = start_worker(self._name, self._work())
            except RuntimeError as error:  # no more threads, or the interpreter is about to exit
                raise StoreUnavailable(f"{self._name}: {error}; nothing was stored") from error
        return self._worker

    def _enqueue(self, job: Job) -> None:
        first = self._queued.setdefault(id(job.request), job)
        if first is not job:
            first.twice = True
            self._queued[id(job)] = job

    def withdraw(self, request: Request) -> bool:
        """Take back a request that the thread has not taken yet.

        Returns True if it is certain that it was not done and never will be.
        """
        with self._lock:
            job = self._queued.get(id(request))
            if job is None or job.twice:
                return False
            del self._queued[id(request)]
        self._answer([job], [StoreUnavailable("the change was withdrawn before it was stored")])
        return True

    def close(self, timeout: float) -> bool:
        """Let the thread do what is queued and end; wait for that at most `timeout` seconds.

        Returns True if it has ended, False if it still works. A later request starts a new one.
        """
        with self._lock:
            worker = self._worker
            if worker is None:
                return True
            self._stopping = True
        return worker.finish(timeout)

    def _work(self) -> Work:
        """What the thread does, and where it waits."""
        batches = self._batches()
        try:
            while (jobs := self._take()) is not None:
                if not jobs:
                    yield None
                    continue
                answers = _apply(batches, jobs)
                yield 0  # it is stored, and nobody knows it yet
                self._answer(jobs, answers)
        finally:
            batches.close()

    def _take(self) -> list[Job] | None:
        """Take what is queued; None means that the work is to end."""
        with self._lock:
            if not self._queued and self._stopping:
                self._worker, self._stopping = None, False
                return None
            keys = list(islice(self._queued, MAX_BATCH))
            return [self._queued.pop(key) for key in keys]

    def _answer(self, jobs: list[Job], answers: list[Answer]) -> None:
        """Wake those whose answers are complete, each loop once."""
        complete: dict[CallSoon, list[Ticket]] = {}
        with self._lock:  # a withdrawal may answer another job of the same ticket
            for job, answer in zip(jobs, answers, strict=True):
                if job.answer(answer):
                    complete.setdefault(job.ticket.call_soon, []).append(job.ticket)
        for call_soon, tickets in complete.items():
            call_soon(partial(_wake, call_soon, tickets))


def _wake(call_soon: CallSoon, tickets: list[Ticket]) -> None:
    for ticket in tickets[:MAX_WOKEN]:
        ticket.answered.set()
    if len(tickets) > MAX_WOKEN:
        call_soon(partial(_wake, call_soon, tickets[MAX_WOKEN:]))


def _apply(batches: Batches, jobs: list[Job]) -> list[Answer]:
    """Apply the jobs; a bug there must neither end the thread nor leave anybody waiting."""
    try:
        return batches.apply(jobs)
    except Exception as error:
        logger.exception("applying %d changes failed in a way nobody thought of", len(jobs))
        message = f"the store failed in an unforeseen way ({type(error).__name__}); see the log"
        return [SaveOutcomeUnknown(message) for _ in jobs]
