"""From a path to a connection that is fit for use: the right file, our tables, WAL, time-outs.

It owns the making and checking of files; what is done with a connection is others' business. A file
that is not ours is refused before anything of it is changed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

from minisession.errors import StoreUnavailable

from .errors import explain, is_busy
from .schema import APPLICATION_ID, OLDEST_SQLITE, VERSION, statements_from

BUSY_TIMEOUT = 4.0
"""Seconds to wait for other processes: below the 5 s of `save_timeout`, so that the store's own
error, which says what to do, comes before the deadline's, which cannot."""

WAL = "PRAGMA journal_mode = WAL"

_creating = threading.Lock()


def connect(
    path: str, *, busy_timeout: float = BUSY_TIMEOUT, migrate: bool = True
) -> sqlite3.Connection:
    """Open a database, making it if it is not there, in autocommit mode.

    Without `migrate`, a file of an older version is refused and left as it is.

    Raises:
        StoreUnavailable: with the path, the reason and what to do.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreUnavailable(
            f"this Python was built with SQLite {sqlite3.sqlite_version}; sessions in SQLite need"
            f" {'.'.join(map(str, OLDEST_SQLITE))} or newer"
        )
    try:
        _create_file(path)
        connection = _connect(path)
    except OSError as error:
        raise StoreUnavailable(
            f"session database {path} cannot be created: {error.strerror}. Check that the"
            f" directory {Path(path).parent} exists and that this user may write in it"
        ) from error
    except sqlite3.Error as error:
        raise explain(error, path) from error
    try:
        if not migrate:
            _refuse_older(connection, path)
        _prepare(connection, path)
        connection.execute(f"PRAGMA busy_timeout = {busy_timeout * 1000:.0f}")
    except (sqlite3.Error, UnicodeDecodeError) as error:
        connection.close()
        raise explain(error, path) from error
    except StoreUnavailable:
        connection.close()
        raise
    return connection


def _create_file(path: str) -> None:
    """Make the file with mode 0600 if there is none; SQLite gives `-wal` and `-shm` the same.

    Only a file that is new is opened here: closing any descriptor of a file drops the locks that
    SQLite holds on it in this process (https://sqlite.org/howtocorrupt.html, 2.2). The lock is for
    two threads that come first at the same time.
    """
    with _creating:
        try:
            # Where a link leads: to make what is missing there, O_EXCL does not follow it.
            real = os.path.realpath(path)
            descriptor = os.open(real, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        os.close(descriptor)


def _connect(path: str) -> sqlite3.Connection:
    """Open a connection whose users, in whatever threads, see to it that one uses it at a time."""
    return sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )


def _refuse_older(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("BEGIN")
    version = _our_version(connection, path)
    connection.execute("COMMIT")
    if version not in (0, VERSION):
        raise StoreUnavailable(
            f"session database {path} was written by an older minisession (schema {version}; this"
            f" one keeps {VERSION}) and was left as it is. The first application that opens it"
            " with this one brings it up to date"
        )


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("BEGIN")  # what is read here must be of one moment: others may create now
    version = _our_version(connection, path)
    connection.execute("COMMIT")
    _use_wal(connection, path)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # checkpoints.py does it
    if version != VERSION:
        _bring_up_to_date(connection, path)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of the schema that the file claims to have."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _our_version(connection: sqlite3.Connection, path: str) -> int:
    """Return the version of our schema in the file, 0 if it is empty. Runs in a transaction."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = version_of(connection)
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == APPLICATION_ID and version > VERSION:
        raise StoreUnavailable(
            f"session database {path} was written by a newer minisession (schema {version}; this"
            f" one knows {VERSION}) and was left as it is. Upgrade minisession here (pip install"
            " --upgrade minisession), or name another file"
        )
    if version < 0 or (application != APPLICATION_ID and (application or version or tables)):
        raise StoreUnavailable(
            f"{path} is a database of another program and was left as it is. Give the sessions a"
            " file of their own: store='sqlite:///sessions.db'"
        )
    return version


def _use_wal(connection: sqlite3.Connection, path: str) -> None:
    """Switch to WAL, which stays. SQLite may answer "busy" here without waiting, so wait here."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            (mode,) = connection.execute(WAL).fetchone()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            break
    if mode != "wal":
        raise StoreUnavailable(
            f"session database {path} cannot use a write-ahead log (journal mode {mode!r}). Is it"
            " on a network file system? Sessions need a local one, or a store that is a server"
        )


def _bring_up_to_date(connection: sqlite3.Connection, path: str) -> None:
    """Create the tables, or change those of an older version, unless another process was quicker.

    One transaction: a file is of one version or of the other.
    """
    connection.execute("BEGIN IMMEDIATE")
    for statement in statements_from(_our_version(connection, path)):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
