"""The plain writes of a batch, each step of them in one statement for all.

A plain write puts and drops keys of a living session and does nothing else: nearly every change is
one. Done one by one they take three statements each, and whoever runs a statement gives the GIL
away and must win it back from the event loop's thread. Together, a change of 32 costs two thirds of
the processor time, one of 128 half, and a batch of any size six turns of the GIL.

Whether a write counts is the condition of `_found`, which says what `rules.admits` says of the
current epoch. What it does not find may count all the same: apply.py decides that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeGuard

from minisession.abc import Create, Write, size_of

from .schema import SOUND

Row = tuple[Any, ...]

MAX_LOT = 128
"""Rows in one statement, which SQLite allows more than 32,000 parameters."""


def is_plain(change: object) -> TypeGuard[Write]:
    """Tell whether a change is a plain write."""
    return isinstance(change, Write) and not (
        change.clear or change.rotation or change.expect or change.principal is not None
    )


def weight(change: Write | Create) -> int:
    """Return how many bytes the change adds if it replaces nothing."""
    return sum(size_of(key, data) for key, data in change.items.items() if data is not None)


def write_together(db: sqlite3.Connection, changes: Sequence[tuple[Write, float]]) -> set[str]:
    """Apply plain writes, each with its time, to as many different sessions.

    Returns the handles of those that are written. The others have changed nothing.
    """
    rows, puts, drops, written = [], [], [], set()
    for place, session, added, keep_tombstones in _found(db, changes):
        change, _ = changes[place]
        written.add(change.handle)
        rows.append((session, change.expires, change.cookie_until, added))
        for key, data in change.items.items():
            if data is not None or keep_tombstones:
                puts.append((session, key, data, change.epoch))
            else:
                drops.append((session, key))
    _run(db, _refresh, rows)
    _run(db, _put, puts)
    _run(db, _drop, drops)
    return written


def _found(
    db: sqlite3.Connection, changes: Sequence[tuple[Write, float]]
) -> Iterator[tuple[int, int, int, int]]:
    """Yield of each change that counts its place, its session, the bytes that it adds, and whether
    tombstones are kept."""
    asked = [
        (place, change.handle, change.epoch, now, weight(change), change.max_size)
        for place, (change, now) in enumerate(changes)
    ]
    for lot in _lots(asked):
        (text,) = db.execute(_find(len(lot)), _flat(lot)).fetchone()
        for numbers in text.split(";") if text else ():
            place, session, added, keep_tombstones = map(int, numbers.split())
            yield place, session, added, keep_tombstones


def _run(db: sqlite3.Connection, statement: Callable[[int], str], rows: Sequence[Row]) -> None:
    for lot in _lots(rows):
        db.execute(statement(len(lot)), _flat(lot))


def _lots(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut into lots of 1, 2, 4, 8 ... rows: so few sizes that each statement is prepared once."""
    begin = 0
    while begin < len(rows):
        size = min(1 << ((len(rows) - begin).bit_length() - 1), MAX_LOT)
        yield rows[begin : begin + size]
        begin += size


def _flat(lot: Sequence[Row]) -> Row:
    return tuple(chain.from_iterable(lot))


def _values(columns: int, rows: int) -> str:
    return ",".join([f"({','.join('?' * columns)})"] * rows)


# S608: what is put into the text of these statements are question marks and the constant above.


@cache
def _find(rows: int) -> str:
    """One row for all, because to fetch one gives the GIL away, too."""
    return f"""
        WITH change (place, name, of_epoch, now, added, max_size) AS (VALUES {_values(6, rows)})
        SELECT group_concat(place || ' ' || id || ' ' || added || ' ' || (now < grace_until), ';')
        FROM change CROSS JOIN session ON handle = name
        WHERE epoch = of_epoch AND expires > now AND size + added <= max_size AND {SOUND}
    """  # noqa: S608


@cache
def _refresh(rows: int) -> str:
    return f"""
        WITH change (of_session, until, cookie, added) AS (VALUES {_values(4, rows)})
        UPDATE session SET expires = until, cookie_until = ifnull(cookie, cookie_until),
        size = size + added FROM change WHERE id = of_session
    """  # noqa: S608


@cache
def _put(rows: int) -> str:
    return f"""
        INSERT INTO item (session, key, data, epoch) VALUES {_values(4, rows)}
        ON CONFLICT (session, key) DO UPDATE SET data = excluded.data, epoch = excluded.epoch
    """  # noqa: S608


@cache
def _drop(rows: int) -> str:
    """By row ids: SQLite would compare every item there is with a list of pairs."""
    return f"""
        WITH change (of_session, name) AS (VALUES {_values(2, rows)})
        DELETE FROM item WHERE rowid IN (
            SELECT item.rowid FROM change CROSS JOIN item ON session = of_session AND key = name
        )
    """  # noqa: S608
