"""The store contract: what a place that keeps sessions must do, and may rely on.

Small enough to implement in an afternoon, strict enough that every promise rests on it.
`minisession.testing.check_store` states each clause as a test. What goes in and out are the frozen
values of `minisession.abc`; no store ever sees an id, a secret or a decoded value.

1. A change is applied wholly or not at all, and is durable, as far as the store's docstring
   promises, once its outcome is `Committed`.
2. A change never creates; `Create` never changes. What has ended stays ended.
3. Whether a change still counts is decided by `rules.admits`, in the same atomic step.
4. Each change of a batch has an outcome of its own, in order; one that fails does not disturb its
   neighbours. A batch need not be atomic.
5. A change is handed over before `commit` first suspends: cancelling the wait loses nothing.
   Changes of one session are applied in the order in which they were handed over.
6. What cannot be read is reported as `StoreCorrupt` and left as it is. Absent and expired are None.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from ._core.change import (
    Change,
    Committed,
    Create,
    Destroy,
    Expect,
    Facts,
    Gone,
    Outcome,
    Record,
    Rotation,
    Summary,
    Touch,
    Write,
    size_of,
)
from ._core.rules import admits, create_is_possible

__all__ = [
    "Change",
    "Committed",
    "Create",
    "Destroy",
    "Expect",
    "Facts",
    "Gone",
    "Inspection",
    "Inspects",
    "LoadsNowait",
    "Outcome",
    "Record",
    "Rotation",
    "Store",
    "Summary",
    "Touch",
    "Withdraws",
    "Write",
    "admits",
    "create_is_possible",
    "size_of",
]


class Store(Protocol):
    """A place that keeps sessions. `now` is always in seconds since the epoch.

    Constructing a store does no I/O. It opens what it needs at its first use, or in
    `async with store:`, which also closes it. One that needs a task of its own works only there,
    and raises `StoreUnavailable` elsewhere.
    """

    async def __aenter__(self) -> Self:
        """Open what the store owns: threads, connections."""
        ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Close it, after everything that was handed over has been stored."""

    async def load(self, handle: str, now: float) -> Record | None:
        """Return the living session, None if it is absent or expired.

        Raises:
            StoreCorrupt: it is there and cannot be read; names the handle.
            StoreUnavailable: the store could not be asked.
        """
        ...

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        """Apply each change and return one outcome for each, in order.

        An outcome is `Committed`, `Gone`, `Conflict` with the current value (compare-and-set),
        `SessionTooLarge`, or the `StoreError` that this change met: `StoreUnavailable` if certainly
        nothing of it was stored and trying again makes sense, `SaveOutcomeUnknown` if it may have
        been stored, any other if it can never be. Raising one says it for all of them.
        """
        ...

    async def scan(self, now: float, *, after: str = "", limit: int = 1000) -> list[Summary]:
        """Return living sessions with handles greater than `after`, ordered by handle."""
        ...

    async def of_principal(self, principal: str, now: float) -> list[Summary]:
        """Return the living sessions that belong to `principal`, oldest first."""
        ...

    async def alive(self, handles: Collection[str], now: float) -> set[str]:
        """Return those of `handles` whose sessions live."""
        ...

    async def purge(self, now: float, limit: int) -> int:
        """Remove at most `limit` expired sessions; return how many were removed.

        It may be fewer although more are left, where they are large; 0 means that none is left.
        A store from which they go by themselves returns 0.
        """
        ...


@runtime_checkable
class LoadsNowait(Protocol):
    """A store that can load without waiting; sessions then load at their first touch."""

    def load_nowait(self, handle: str, now: float) -> Record | None:
        """Do what `load` does, at once, from any thread."""
        ...


@runtime_checkable
class Withdraws(Protocol):
    """A store that queues changes and can take them back before its writer takes them."""

    def withdraw(self, change: Change) -> bool:
        """Take back a change that nobody waits for any more.

        Returns True if it is certainly not stored and never will be; False if it may be, and for
        a change that was handed over twice.
        """
        ...


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a store says of its place as a whole. None: it cannot say, or not without reading all.

    Attributes:
        format: what is kept there and in which version, for people: "SQLite, schema 1".
        expired: sessions that have expired and wait for a purge.
        bytes: the room that everything together takes.
        free: how much of that is empty, for new sessions.
    """

    format: str
    expired: int | None = None
    bytes: int | None = None
    free: int | None = None


@runtime_checkable
class Inspects(Protocol):
    """A store that has more to say to `minisession store`, which looks at it from outside.

    A store without it is counted, read and purged too, by the methods of `Store`.
    """

    def is_there(self) -> bool:
        """Tell, before the store is opened, whether there is anything; opening may make it.

        A server, of which nobody knows that before, is there.

        Raises:
            StoreUnavailable: there is something that opening would change, or refuse.
        """
        ...

    async def inspect(self, now: float) -> Inspection:
        """Return what is known of the place, in a time that does not grow with every value."""
        ...

    async def verify(self) -> list[str]:
        """Look, however long it takes, for damage that loading the living sessions would not meet.

        Returns a sentence for each find: what it is, and what to do. It may name handles and keys,
        never a value.
        """
        ...
