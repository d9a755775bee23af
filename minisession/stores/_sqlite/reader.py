"""Loading and listing: what only reads the database.

`Reader` owns one connection, for loads that must answer at once; lists, which may take their time,
have a connection each. Every statement is a read transaction of its own and fetches everything, so
it sees all that was committed before it and holds nothing back afterwards.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection
from contextlib import closing
from typing import Any

from minisession.abc import Record, Summary

from .connect import connect
from .errors import explain, is_busy
from .rows import COLUMNS, readable, record_of

# S608: what is put into the text of this statement is a constant.
LOAD = f"""
    SELECT {", ".join("session." + name for name in COLUMNS.split(", "))}, item.key, item.data
    FROM session LEFT JOIN item ON item.session = session.id AND item.data IS NOT NULL
    WHERE session.handle = ? AND session.expires > ? ORDER BY item.rowid
"""  # noqa: S608
SUMMARY = "SELECT handle, created, expires, principal FROM session"
SCAN = f"{SUMMARY} WHERE handle > ? AND expires > ? ORDER BY handle LIMIT ?"
OF_PRINCIPAL = f"{SUMMARY} WHERE principal = ? AND expires > ? ORDER BY created, handle"

MAX_PARAMETERS = 500  # of one statement; SQLite may be built with as few as 999


class Reader:
    """Loads sessions at once, from any thread.

    Mutable state: `_connection`, only under `_lock`, which is held for one SELECT. It is not
    waited for others' locks (busy time-out 0), except at the first use, which opens the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def load(self, handle: str, now: float) -> Record | None:
        """Return the living session, None if it is absent or expired.

        Raises:
            StoreCorrupt: its row is damaged.
            StoreUnavailable: the database cannot be read.
        """
        with self._lock, readable(handle):
            rows = self._select(handle, now)
        return record_of(handle, rows) if rows else None

    def _select(self, handle: str, now: float) -> list[tuple[Any, ...]]:
        connection = self._opened()
        try:
            return connection.execute(LOAD, (handle, now)).fetchall()
        except UnicodeDecodeError as error:
            self._drop()
            raise explain(error, self._path) from error
        except sqlite3.DatabaseError as error:
            if not hasattr(error, "sqlite_errorcode"):
                raise
            if not is_busy(error):
                self._drop()
            raise explain(error, self._path) from error

    def open(self) -> None:
        """Open the connection, which makes the file if there is none.

        Raises:
            StoreUnavailable: the database cannot be opened.
        """
        with self._lock:
            self._opened()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self._path, busy_timeout=0)
        return self._connection

    def close(self) -> None:
        """Close the connection; the next load opens another."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def scan(path: str, now: float, after: str, limit: int) -> list[Summary]:
    """Return living sessions with handles greater than `after`, ordered by handle."""
    return _summaries(path, SCAN, (after, now, limit))


def of_principal(path: str, principal: str, now: float) -> list[Summary]:
    """Return the living sessions of a principal, oldest first."""
    try:
        principal.encode()
    except UnicodeEncodeError:  # such a name is refused, so nobody has it
        return []
    return _summaries(path, OF_PRINCIPAL, (principal, now))


def alive(path: str, handles: Collection[str], now: float) -> set[str]:
    """Return those of `handles` whose sessions live."""
    wanted = list(handles)
    found: set[str] = set()
    for start in range(0, len(wanted), MAX_PARAMETERS):
        part = wanted[start : start + MAX_PARAMETERS]
        marks = ", ".join("?" * len(part))
        query = f"SELECT handle FROM session WHERE expires > ? AND handle IN ({marks})"  # noqa: S608
        found.update(row[0] for row in _query(path, query, (now, *part)))
    return found


def _summaries(path: str, query: str, parameters: tuple[object, ...]) -> list[Summary]:
    return [Summary(*row) for row in _query(path, query, parameters)]


def _query(path: str, query: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
    with closing(connect(path)) as connection:
        try:
            return connection.execute(query, parameters).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise explain(error, path) from error
