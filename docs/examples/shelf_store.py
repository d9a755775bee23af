"""A store of your own, on Python's `shelve`: a dict in a file."""

import dbm
import fcntl
import os
import pickle
import shelve
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from minisession.abc import (
    Change,
    Committed,
    Create,
    Destroy,
    Facts,
    Gone,
    Outcome,
    Record,
    Summary,
    Touch,
    Write,
    admits,
    create_is_possible,
    size_of,
)
from minisession.errors import (
    Conflict,
    SaveOutcomeUnknown,
    SessionTooLarge,
    StoreError,
    StoreUnavailable,
)
from minisession.testing import Clause, check_clause, clauses

# --8<-- [start:row]
Row = tuple[Record, dict[str, int], int]
"""What is kept of a session: its record, the epoch in which each key was written or dropped last,
and the epoch in which all was cleared. A key with an epoch and without an item is a tombstone."""


def facts_of(row: Row) -> Facts:
    """Return what the rules must know of a session."""
    record, _, cleared = row
    return Facts(record.epoch, record.expires, record.grace_until, record.previous_loads, cleared)


def size(record: Record) -> int:
    """Return what a session weighs."""
    return sum(size_of(key, data) for key, data in record.items.items())


# --8<-- [end:row]


# --8<-- [start:rules]
def created(change: Create, old: Row | None, now: float) -> Row | Outcome:
    """Return a new session, or why there is none."""
    if not create_is_possible(change, None if old is None else facts_of(old), now):
        return Gone()
    times = change.created, change.expires, change.cookie_until
    record = Record(change.handle, change.secret, 0, dict(change.items), *times)
    record = replace(record, principal=change.principal or None)
    if size(record) > change.max_size:
        return SessionTooLarge(f"{size(record):,} bytes; allowed are {change.max_size:,}")
    return record, dict.fromkeys(change.items, 0), -1


def changed(change: Write | Touch, row: Row) -> Row | Outcome:
    """Return what becomes of a session in which a change counts, or why nothing does."""
    record = row[0]
    if isinstance(change, Touch):
        return replace(record, expires=max(record.expires, change.expires)), *row[1:]
    if change.expect and record.items.get(change.expect.key) != change.expect.value:
        return Conflict("somebody was quicker", record.items.get(change.expect.key))
    new = written(change, row)
    if size(new[0]) > max(change.max_size, size(record)):  # what makes it smaller is welcome
        return SessionTooLarge(f"{size(new[0]):,} bytes; allowed are {change.max_size:,}")
    return new


def written(change: Write, row: Row) -> Row:
    """Clear, rotate, put and drop, in this order; then the rest, unless the write is late."""
    record, epochs, cleared = row
    items: dict[str, bytes | None] = {} if change.clear else {**record.items}
    if new := change.rotation:
        epochs = {key: epochs[key] for key in items}  # who was late for the one before is too late
        record = replace(record, secret=new.secret, previous=record.secret, epoch=record.epoch + 1)
        record = replace(record, previous_loads=new.previous_loads, grace_until=new.grace_until)
    items |= change.items
    record = replace(record, items={key: data for key, data in items.items() if data is not None})
    epoch = change.epoch + bool(new)  # that of the session, or the one before if it is late
    if epoch == record.epoch:
        cookie = record.cookie_until if change.cookie_until is None else change.cookie_until
        principal = record.principal if change.principal is None else change.principal or None
        record = replace(record, expires=change.expires, cookie_until=cookie, principal=principal)
    return record, epochs | dict.fromkeys(change.items, epoch), epoch if change.clear else cleared


# --8<-- [end:rules]


# --8<-- [start:store]
class ShelfStore:
    """Keeps sessions in a `shelve`, for an application with a few dozen visitors.

    What survives: all that was acknowledged survives the end of the process. One that is killed in
    the middle of a commit may damage the file. Processes of one machine can share it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    async def __aenter__(self) -> Self:
        return self  # nothing stays open between two calls

    async def __aexit__(self, *_: object) -> None:
        return None

    @contextmanager
    def _rows(self, failure: type[StoreError] = StoreUnavailable) -> Iterator[shelve.Shelf[Row]]:
        """Open the file, and hold everybody else off."""
        try:
            with self._path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                with shelve.open(self._path) as rows:  # noqa: S301  # nobody else may write there
                    yield rows
        # Never an empty store instead: it would log everybody out.
        except (OSError, ValueError, EOFError, pickle.UnpicklingError, *dbm.error) as error:
            raise failure(f"{self._path} cannot be used: {type(error).__name__}") from error

    async def load(self, handle: str, now: float) -> Record | None:
        """Return the living session."""
        with self._rows() as rows:
            row = rows.get(handle)
        return row[0] if row and row[0].expires > now else None

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        """Apply the changes. There is no await in it, so no task is cancelled half-way."""
        with self._rows(SaveOutcomeUnknown) as rows:  # those before the one that fails are stored
            return [self._apply(rows, change, now) for change in changes]

    def _apply(self, rows: shelve.Shelf[Row], change: Change, now: float) -> Outcome:
        row = rows.get(change.handle)
        if isinstance(change, Create):
            new = created(change, row, now)
        elif row is None:
            return Gone()
        elif not admits(facts_of(row), change, now, lambda key: row[1].get(key, -1)):
            return Gone(replaced=row[0].expires > now)
        elif isinstance(change, Destroy):
            del rows[change.handle]
            return Committed(row[0].epoch)
        else:
            new = changed(change, row)
        if not isinstance(new, tuple):
            return new
        rows[change.handle] = new  # one step: wholly, or not at all
        return Committed(new[0].epoch)

    def _living(self, now: float) -> list[Summary]:
        with self._rows() as rows:
            living = [each for key in sorted(rows) if (each := rows[key][0]).expires > now]
        return [Summary(each.handle, each.created, each.expires, each.principal) for each in living]

    async def scan(self, now: float, *, after: str = "", limit: int = 1000) -> list[Summary]:
        """Return living sessions by handle."""
        return [each for each in self._living(now) if each.handle > after][:limit]

    async def of_principal(self, principal: str, now: float) -> list[Summary]:
        """Return the living sessions of somebody, oldest first."""
        theirs = [each for each in self._living(now) if each.principal == principal]
        return sorted(theirs, key=lambda each: each.created)

    async def alive(self, handles: Collection[str], now: float) -> set[str]:
        """Return which of them live."""
        return {each.handle for each in self._living(now)} & set(handles)

    async def purge(self, now: float, limit: int) -> int:
        """Remove what has expired."""
        with self._rows() as rows:
            expired = [handle for handle in rows if rows[handle][0].expires <= now][:limit]
            for handle in expired:
                del rows[handle]
        return len(expired)


# --8<-- [end:store]


# --8<-- [start:test]
@pytest.mark.anyio  # anyio's own plugin for pytest: on asyncio, and on trio
@pytest.mark.parametrize("clause", clauses(persistent=True), ids=lambda clause: clause.__name__)
async def test_the_store_keeps(clause: Clause, tmp_path: Path) -> None:
    """Each clause, in a file of its own."""
    await check_clause(clause, lambda: ShelfStore(tmp_path / "sessions"))


# --8<-- [end:test]
