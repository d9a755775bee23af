"""`RemoteStore`: a real store with a network in between, which fails as networks do.

It keeps the store contract: a change is handed to a task of its own before `commit` suspends, so
losing the wait loses nothing. Every call suspends before and after it has its effect, which is
what makes interleavings that a store in memory never shows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import Enum
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from minisession.abc import Change, Outcome, Record, Store, Summary
from minisession.errors import SaveOutcomeUnknown, StoreUnavailable
from minisession.stores.memory import MemoryStore


class Fault(Enum):
    """What becomes of one commit."""

    NONE = "works"
    REFUSES = "says that nothing was stored"
    TOO_BUSY = "does not take the changes, which can be withdrawn"
    SILENT_BEFORE = "takes the changes, does nothing with them, and never answers"
    SILENT_AFTER = "stores the changes and never answers"
    UNSURE_BEFORE = "stores nothing and says that it does not know"
    UNSURE_AFTER = "stores the changes and says that it does not know"
    BREAKS = "raises something that no store may raise"


NOT_STORED = (Fault.REFUSES, Fault.TOO_BUSY)
IN_DOUBT = (
    Fault.SILENT_BEFORE,
    Fault.SILENT_AFTER,
    Fault.UNSURE_BEFORE,
    Fault.UNSURE_AFTER,
    Fault.BREAKS,
)


class _Job:
    def __init__(self, changes: Sequence[Change], now: float, fault: Fault) -> None:
        self.changes, self.now, self.fault = list(changes), now, fault
        self.done = anyio.Event()
        self.outcomes: list[Outcome] = []
        self.error: Exception | None = None


class RemoteStore:
    """A `MemoryStore` behind suspension points and faults.

    Attributes:
        inner: what is really stored.
        faults: what becomes of the next commits, one each; after them all is well, or `fault`.
        load_error: raised by every load while it is set.
        commits: the changes of each commit, as they came.
    """

    def __init__(self, inner: Store | None = None) -> None:
        self.inner: Store = MemoryStore() if inner is None else inner
        self.faults: list[Fault] = []
        self.fault = Fault.NONE
        self.load_error: Exception | None = None
        self.commits: list[list[Change]] = []
        self._waiting: list[_Job] = []
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._tasks is not None
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:  # in no scope of ours: a store may have one, from before, that it leaves here
            await self.inner.__aexit__(exc_type, exc, traceback)

    async def load(self, handle: str, now: float) -> Record | None:
        await anyio.lowlevel.checkpoint()
        if self.load_error is not None:
            raise self.load_error
        record = await self.inner.load(handle, now)
        await anyio.lowlevel.checkpoint()
        return record

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        assert self._tasks is not None, "RemoteStore works in a task of its own: enter it first"
        job = _Job(changes, now, self.next_fault())
        self.commits.append(job.changes)
        if job.fault is Fault.TOO_BUSY:
            self._waiting.append(job)
        else:
            self._tasks.start_soon(self._work, job)
        await job.done.wait()
        try:
            if job.error is not None:
                raise job.error
            return job.outcomes
        finally:
            del job  # with an error that leads back here, it would be a cycle

    def next_fault(self) -> Fault:
        return self.faults.pop(0) if self.faults else self.fault

    async def _work(self, job: _Job) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
            if job.fault in (Fault.NONE, Fault.SILENT_AFTER, Fault.UNSURE_AFTER, Fault.BREAKS):
                job.outcomes = await self.inner.commit(job.changes, job.now)
            await anyio.lowlevel.checkpoint()
        job.error = _errors[job.fault]() if job.fault in _errors else None
        if job.fault not in (Fault.SILENT_BEFORE, Fault.SILENT_AFTER):
            job.done.set()

    def withdraw(self, change: Change) -> bool:
        return any(change in job.changes for job in self._waiting)

    async def scan(self, now: float, *, after: str = "", limit: int = 1000) -> list[Summary]:
        return await self.inner.scan(now, after=after, limit=limit)

    async def of_principal(self, principal: str, now: float) -> list[Summary]:
        return await self.inner.of_principal(principal, now)

    async def alive(self, handles: Collection[str], now: float) -> set[str]:
        return await self.inner.alive(handles, now)

    async def purge(self, now: float, limit: int) -> int:
        return await self.inner.purge(now, limit)


_errors: dict[Fault, Callable[[], Exception]] = {
    Fault.REFUSES: lambda: StoreUnavailable("the store is not there; nothing was stored"),
    Fault.UNSURE_BEFORE: lambda: SaveOutcomeUnknown("the connection broke"),
    Fault.UNSURE_AFTER: lambda: SaveOutcomeUnknown("the connection broke"),
    Fault.BREAKS: lambda: RuntimeError("a bug in the store"),
}
