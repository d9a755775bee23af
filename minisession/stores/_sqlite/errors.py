"""What SQLite says, in words that help: which file, what is wrong, what to do about it.

It owns the translation of result codes (https://sqlite.org/rescode.html) and decides nothing else.
A damaged file is `StoreUnavailable` like a locked one: nothing was stored, nobody may be taken for
anonymous. `StoreCorrupt` speaks of one session only.
"""

from __future__ import annotations

import sqlite3

from minisession.errors import StoreUnavailable

DAMAGED = (
    "is damaged. Stop the application, keep the file for inspection, and restore a backup or"
    " let `sqlite3 {path} .recover` save what can be saved"
)

EXPLANATIONS = {
    sqlite3.SQLITE_BUSY: "is locked by another program. End it, or let it commit: a transaction of"
    " somebody else must not stay open for seconds",
    sqlite3.SQLITE_LOCKED: "is locked by another connection of this process",
    sqlite3.SQLITE_FULL: "cannot grow: the disk or the quota is full. Free some space; what was"
    " stored before is safe",
    sqlite3.SQLITE_READONLY: "cannot be written. Give this user write access to the file, to those"
    " beside it (-wal, -shm) and to the directory; check that the file system is not mounted"
    " read-only",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened. Check that the directory exists, that the path"
    " names a file, and that this user may write in the directory",
    sqlite3.SQLITE_PERM: "cannot be opened: this user lacks the permission",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the operating system reports an input/output"
    " error. Check the disk, its quota and the limits of this process",
    sqlite3.SQLITE_NOTADB: "is not an SQLite database, or its beginning is damaged. Name another"
    " file, or restore a backup",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_PROTOCOL: "is locked in a way that SQLite gave up on. Is it on a network file"
    " system? WAL needs a local one",
}


def code_of(error: sqlite3.Error) -> int:
    """Return the primary result code, 0 if SQLite itself did not raise the error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether somebody else merely holds a lock: the connection is as good as before."""
    return code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def explain(error: sqlite3.Error | UnicodeDecodeError, path: str) -> StoreUnavailable:
    """Return the error that says which file, what is wrong and what to do.

    SQLite's own words are in it. They name tables and codes, never a value. Where they quote a
    damaged name, Python cannot read them, and says so by a UnicodeDecodeError.
    """
    if isinstance(error, UnicodeDecodeError):
        return StoreUnavailable(f"session database {path} {DAMAGED.format(path=path)}")
    explanation = EXPLANATIONS.get(code_of(error), "cannot be used").format(path=path)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StoreUnavailable(f"session database {path} {explanation} ({name}: {error})")
