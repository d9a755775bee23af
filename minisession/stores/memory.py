"""`MemoryStore`: sessions in a dict. The model of the contract, and the store for tests.

What survives: nothing. The sessions end with the process, and no other process sees them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from heapq import nsmallest
from types import TracebackType
from typing import Self

from minisession.abc import Change, Outcome, Record, Summary

from ._row import Row, after


class MemoryStore:
    """Keeps sessions in this process, for tests and for single processes that may forget.

    Every method is over without waiting: between its start and its end no other task runs.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def __repr__(self) -> str:
        return f"<MemoryStore sessions={len(self._rows)}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def load_nowait(self, handle: str, now: float) -> Record | None:
        """Return the living session at once."""
        row = self._living(handle, now)
        return None if row is None else row.record()

    async def load(self, handle: str, now: float) -> Record | None:
        """Return the living session."""
        return self.load_nowait(handle, now)

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        """Apply each change."""
        return [self._apply(change, now) for change in changes]

    def _apply(self, change: Change, now: float) -> Outcome:
        row, outcome = after(self._rows.get(change.handle), change, now)
        if row is None:
            self._rows.pop(change.handle, None)
        else:
            self._rows[change.handle] = row
        return outcome

    def _living(self, handle: str, now: float) -> Row | None:
        row = self._rows.get(handle)
        return row if row is not None and row.expires > now else None

    async def scan(self, now: float, *, after: str = "", limit: int = 1000) -> list[Summary]:
        """Return living sessions with handles greater than `after`, ordered by handle."""
        rows = [r for r in self._rows.values() if r.handle > after and r.expires > now]
        return [row.summary() for row in nsmallest(limit, rows, key=lambda row: row.handle)]

    async def of_principal(self, principal: str, now: float) -> list[Summary]:
        """Return the living sessions that belong to `principal`, oldest first."""
        rows = [r for r in self._rows.values() if r.principal == principal and r.expires > now]
        return [row.summary() for row in sorted(rows, key=lambda row: (row.created, row.handle))]

    async def alive(self, handles: Collection[str], now: float) -> set[str]:
        """Return those of `handles` whose sessions live."""
        return {handle for handle in handles if self._living(handle, now) is not None}

    async def purge(self, now: float, limit: int) -> int:
        """Remove at most `limit` expired sessions."""
        expired = nsmallest(
            limit,
            (row for row in self._rows.values() if row.expires <= now),
            key=lambda row: row.expires,
        )
        for row in expired:
            del self._rows[row.handle]
        return len(expired)
