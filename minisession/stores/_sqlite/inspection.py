"""The file as a whole: how much is in it, and is it sound?

It reads, with a connection of its own, and changes nothing. What is wrong with one living session
is found by loading it; here is looked for what no load would meet.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from minisession.abc import Inspection

from .connect import connect
from .errors import explain
from .schema import VERSION

MOST_FINDS = 100  # of each kind; who has more needs no list

EXPIRED = "SELECT count(*) FROM session WHERE expires <= ?"
TEXTS = "SELECT id, handle, ifnull(principal, '') FROM session"
OWNERLESS = "FROM item WHERE session NOT IN (SELECT id FROM session)"
EXPIRE_ROW = "UPDATE session SET expires = 0 WHERE id = {}"


def is_there(path: str) -> bool:
    """Tell whether there is a database; what is not there, or is empty still, is not made one.

    Raises:
        StoreUnavailable: there is something that cannot be read, or is of another version.
    """
    if not (os.path.exists(path) and _size_of(path)):
        return False
    with _reading(path):
        return True


def inspect(path: str, now: float) -> Inspection:
    """Return how many sessions wait for a purge, and the room that file and log take.

    Raises:
        StoreUnavailable: the database cannot be read.
    """
    with _reading(path) as connection:
        (expired,) = connection.execute(EXPIRED, (now,)).fetchone()
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        (free_pages,) = connection.execute("PRAGMA freelist_count").fetchone()
        room = _size_of(path) + _size_of(f"{path}-wal")
    return Inspection(f"SQLite, schema {VERSION}", expired, room, free_pages * page_size)


def verify(path: str) -> list[str]:
    """Return a sentence for each damage that is found in the file.

    Raises:
        StoreUnavailable: the database cannot be read at all.
    """
    with _reading(path) as connection:
        # Of damaged pages nothing else can be said.
        return _damaged_pages(connection, path) or [
            *_damaged_texts(connection, path),
            *_ownerless_values(connection, path),
        ]


@contextmanager
def _reading(path: str) -> Iterator[sqlite3.Connection]:
    with closing(connect(path, migrate=False)) as connection:
        connection.text_factory = bytes  # a damaged text is a find, no error
        try:
            yield connection
        except sqlite3.Error as error:
            raise explain(error, path) from error


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _damaged_pages(connection: sqlite3.Connection, path: str) -> list[str]:
    """Ask SQLite, whose answers name tables, columns, pages and rows, never a value."""
    rows = connection.execute(f"PRAGMA integrity_check({MOST_FINDS})").fetchall()
    found = [text.decode(errors="replace") for (text,) in rows]
    if found == ["ok"]:
        return []
    advice = f"stop the application and restore a backup, or try `sqlite3 {path} .recover`"
    return [f"session database {path}: {what}; {advice}" for what in found]


def _damaged_texts(connection: sqlite3.Connection, path: str) -> list[str]:
    """Find handles and principals that are no UTF-8: no list of sessions can be read past them."""
    damaged = [row for row, *texts in connection.execute(TEXTS) if not all(map(_is_text, texts))]
    return [
        f"session database {path}: the handle or principal in row {row} of `session` is damaged;"
        f" to have it purged: sqlite3 {path} '{EXPIRE_ROW.format(row)}'"
        for row in damaged[:MOST_FINDS]
    ]


def _ownerless_values(connection: sqlite3.Connection, path: str) -> list[str]:
    (number,) = connection.execute(f"SELECT count(*) {OWNERLESS}").fetchone()
    if not number:
        return []
    return [
        f"session database {path}: {number:,} stored values belong to no session; to remove them:"
        f" sqlite3 {path} 'DELETE {OWNERLESS}'"
    ]


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
