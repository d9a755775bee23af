"""What a change does to the tables, inside a transaction that somebody else began.

It owns the writing SQL. Whether a change counts is decided by `rules.admits`; only the commonest
case, a change of the current epoch to a living session, is decided by the condition of a statement,
which says the same. Whoever raises here has the whole transaction rolled back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from itertools import accumulate
from typing import Final, cast

from minisession.abc import (
    Change,
    Committed,
    Create,
    Destroy,
    Gone,
    Outcome,
    Touch,
    Write,
    admits,
    create_is_possible,
    size_of,
)
from minisession.errors import StoreCorrupt
from minisession.stores._row import conflict, too_large
from minisession.stores._writer import Answer, Purge, Request

from .rows import COLUMNS, SessionRow, checked, readable
from .schema import SOUND

CURRENT = f"WHERE handle = ? AND epoch = ? AND expires > ? AND {SOUND}"
# S608: what is put into the text of these statements are the constants above.
FIND = f"SELECT id, grace_until FROM session {CURRENT} AND size + ? <= ?"  # noqa: S608
# Found first and updated then: UPDATE ... RETURNING takes half as long again.
REFRESH = """
    UPDATE session SET expires = ?, cookie_until = ifnull(?, cookie_until), size = size + ?
    WHERE id = ?
"""
TOUCH = f"UPDATE session SET expires = max(expires, ?) {CURRENT}"  # noqa: S608
SELECT = f"SELECT {COLUMNS} FROM session WHERE handle = ?"  # noqa: S608
INSERT = """
    INSERT INTO session (handle, secret, created, expires, cookie_until, principal, size)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
UPDATE = """
    UPDATE session SET secret = ?, previous = ?, previous_loads = ?, grace_until = ?, epoch = ?,
    cleared = ?, expires = ?, cookie_until = ?, principal = ?, size = ? WHERE id = ?
"""
PUT = """
    INSERT INTO item (session, key, data, epoch) VALUES (?, ?, ?, ?)
    ON CONFLICT (session, key) DO UPDATE SET data = excluded.data, epoch = excluded.epoch
"""
SIZE = """
    SELECT ifnull(sum(length(CAST(key AS BLOB)) + length(data)), 0)
    FROM item WHERE session = ? AND data IS NOT NULL
"""
PURGE_BYTES: Final = 1_000_000
"""After so many bytes a purge ends, so that commits wait some milliseconds for it, not hundreds."""

OLDEST = "FROM session WHERE expires <= ? ORDER BY expires, id LIMIT ?"
EXPIRED_SIZES = f"SELECT size {OLDEST}"
EXPIRED = f"(SELECT id {OLDEST})"
# One statement for all of them: a thread that runs one statement for each takes the GIL each time.
DELETE_ITEMS = f"DELETE FROM item WHERE session IN {EXPIRED}"  # noqa: S608
DELETE_SESSIONS = f"DELETE FROM session WHERE id IN {EXPIRED}"  # noqa: S608
OLD_TOMBSTONES = """
    DELETE FROM item WHERE rowid IN (
        SELECT item.rowid FROM item JOIN session ON session.id = item.session
        WHERE item.data IS NULL AND session.grace_until <= ? LIMIT ?
    )
"""


def apply(db: sqlite3.Connection, request: Request, now: float) -> Answer:
    """Apply one request and answer it."""
    if isinstance(request, Purge):
        return _purge(db, request.limit, now)
    try:
        return _change(db, request, now)
    except StoreCorrupt as error:  # found before anything was written
        return error


def _change(db: sqlite3.Connection, change: Change, now: float) -> Outcome:
    match change:
        case Write():
            return _write(db, change, now)
        case Touch():
            return _touch(db, change, now)
        case Create():
            return _create(db, change, now)
        case Destroy():
            return _destroy(db, change, now)


def _row(db: sqlite3.Connection, handle: str) -> SessionRow | None:
    with readable(handle):
        values = db.execute(SELECT, (handle,)).fetchone()
    return None if values is None else checked(handle, values)


def _write(db: sqlite3.Connection, change: Write, now: float) -> Outcome:
    if change.clear or change.rotation or change.expect or change.principal is not None:
        return _write_by_the_rules(db, change, now)
    added = _weight(change)
    current = (change.handle, change.epoch, now, added, change.max_size)
    row = db.execute(FIND, current).fetchone()
    if row is None:
        return _write_by_the_rules(db, change, now)
    session, grace_until = row
    db.execute(REFRESH, (change.expires, change.cookie_until, added, session))
    _write_items(db, session, change.items, change.epoch, keep_tombstones=now < grace_until)
    return Committed(change.epoch)


def _write_by_the_rules(db: sqlite3.Connection, change: Write, now: float) -> Outcome:
    """Decide completely, then write: what is refused leaves no trace."""
    row = _row(db, change.handle)
    if row is None:
        return Gone()
    if not admits(row.facts, change, now, lambda key: _item(db, row.id, key)[1]):
        return Gone(replaced=row.expires > now)
    if change.expect:
        current = _item(db, row.id, change.expect.key)[0]
        if current != change.expect.value:
            return conflict(change, current)
    row.size = (0 if change.clear else row.size) + _weight(change)
    if row.size > change.max_size:
        before = int(db.execute(SIZE, (row.id,)).fetchone()[0])
        row.size = (0 if change.clear else before - _replaced(db, row.id, change)) + _weight(change)
        if row.size > max(before, change.max_size):
            return too_large(change.handle, row.size, change.max_size)
    _store(db, row, change, now)
    return Committed(row.epoch)


def _store(db: sqlite3.Connection, row: SessionRow, change: Write, now: float) -> None:
    in_grace = change.epoch < row.epoch
    if change.rotation:
        db.execute("DELETE FROM item WHERE session = ? AND data IS NULL", (row.id,))
        row.previous, row.secret = row.secret, change.rotation.secret
        row.previous_loads = change.rotation.previous_loads
        row.grace_until = change.rotation.grace_until
        row.epoch += 1
    if change.clear:
        db.execute("DELETE FROM item WHERE session = ?", (row.id,))
        row.cleared = row.epoch
    epoch = row.epoch - in_grace
    _write_items(db, row.id, change.items, epoch, keep_tombstones=now < row.grace_until)
    if not in_grace:
        _write_rest(row, change)
    _update(db, row)


def _write_rest(row: SessionRow, change: Write) -> None:
    row.expires = change.expires
    if change.cookie_until is not None:
        row.cookie_until = change.cookie_until
    if change.principal is not None:
        row.principal = change.principal or None


def _update(db: sqlite3.Connection, row: SessionRow) -> None:
    rotation = (row.secret, row.previous, row.previous_loads, row.grace_until, row.epoch)
    rest = (row.cleared, row.expires, row.cookie_until, row.principal, row.size)
    db.execute(UPDATE, (*rotation, *rest, row.id))


def _write_items(
    db: sqlite3.Connection,
    session: int,
    items: Mapping[str, bytes | None],
    epoch: int,
    *,
    keep_tombstones: bool,
) -> None:
    for key, data in items.items():
        if data is not None or keep_tombstones:
            db.execute(PUT, (session, key, data, epoch))
        else:
            db.execute("DELETE FROM item WHERE session = ? AND key = ?", (session, key))


def _item(db: sqlite3.Connection, session: int, key: str) -> tuple[bytes | None, int]:
    """Return what is stored under a key and in which epoch it was written or dropped last."""
    row = db.execute(
        "SELECT data, epoch FROM item WHERE session = ? AND key = ?", (session, key)
    ).fetchone()
    return row or (None, -1)


def _weight(change: Write | Create) -> int:
    """Return how many bytes the change adds if it replaces nothing."""
    return sum(size_of(key, data) for key, data in change.items.items() if data is not None)


def _replaced(db: sqlite3.Connection, session: int, change: Write) -> int:
    """Return how many bytes stand where the change puts or drops something."""
    stored = {key: _item(db, session, key)[0] for key in change.items}
    return sum(size_of(key, data) for key, data in stored.items() if data is not None)


def _touch(db: sqlite3.Connection, change: Touch, now: float) -> Outcome:
    parameters = (change.expires, change.handle, change.epoch, now)
    if db.execute(TOUCH, parameters).rowcount:
        return Committed(change.epoch)
    row = _row(db, change.handle)
    return Gone(replaced=row is not None and row.expires > now)


def _create(db: sqlite3.Connection, change: Create, now: float) -> Outcome:
    existing = _row(db, change.handle)
    if not create_is_possible(change, existing.facts if existing else None, now):
        return Gone()
    size = _weight(change)
    if size > change.max_size:
        return too_large(change.handle, size, change.max_size)
    if existing:
        _delete(db, existing.id)
    values = (change.handle, change.secret, change.created, change.expires, change.cookie_until)
    session = cast("int", db.execute(INSERT, (*values, change.principal or None, size)).lastrowid)
    _write_items(db, session, change.items, 0, keep_tombstones=False)
    return Committed(0)


def _destroy(db: sqlite3.Connection, change: Destroy, now: float) -> Outcome:
    """End a session. A damaged one ends by revocation alone, which asks for no epoch."""
    try:
        row = _row(db, change.handle)
    except StoreCorrupt:
        if change.epoch is not None:
            raise
        ids = db.execute("SELECT id FROM session WHERE handle = ?", (change.handle,)).fetchall()
        _delete(db, ids[0][0])
        return Committed(0)
    if row is None:
        return Gone()
    if not admits(row.facts, change, now, lambda _: -1):
        return Gone(replaced=row.expires > now)
    _delete(db, row.id)
    return Committed(row.epoch)


def _delete(db: sqlite3.Connection, session: int) -> None:
    db.execute("DELETE FROM session WHERE id = ?", (session,))
    db.execute("DELETE FROM item WHERE session = ?", (session,))


def _purge(db: sqlite3.Connection, limit: int, now: float) -> int:
    """Remove expired sessions, and as many tombstones that no late writer can meet any more.

    At least one if there is one, however large it is, and no further one beyond `PURGE_BYTES`.
    """
    sizes = [size for (size,) in db.execute(EXPIRED_SIZES, (now, limit))]
    number = sum(before < PURGE_BYTES for before in accumulate([0, *sizes[:-1]]))
    db.execute(DELETE_ITEMS, (now, number))
    removed = db.execute(DELETE_SESSIONS, (now, number)).rowcount
    db.execute(OLD_TOMBSTONES, (now, limit))
    return removed
