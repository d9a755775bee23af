"""Transactions: what the writer's thread does with the jobs it has taken.

It owns the writing connection, and what a failure means: for the whole batch, for one change, or
for the connection. It knows neither the meaning of a change nor who waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence

from minisession.errors import SaveOutcomeUnknown, StoreError, StoreUnavailable
from minisession.stores._writer import Answer, Job, Purge

from .apply import apply
from .checkpoints import Checkpointer, restart_log
from .connect import BUSY_TIMEOUT, connect, version_of
from .errors import code_of, explain, is_busy
from .schema import VERSION

logger = logging.getLogger("minisession.stores")

CERTAINLY_NOT_STORED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL)
"""Codes of a failed COMMIT after which no commit mark can be in the log."""


class SQLiteBatches:
    """Applies each batch in one transaction; if that fails, each half of it in its own.

    Halving finds the change that cannot be stored, and costs its neighbours little. A database that
    is locked or cannot be opened is asked once or twice for a batch, not once for each change.

    Args:
        path: of the database.
        replaced: called when the file turned out to be another one than before.
    """

    def __init__(self, path: str, replaced: Callable[[], None]) -> None:
        self._path = path
        self._replaced = replaced
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._checkpoints = Checkpointer(path)

    def apply(self, jobs: Sequence[Job]) -> list[Answer]:
        """Apply the jobs in order and answer each."""
        try:
            return self._in_one_transaction(jobs)
        except StoreError as error:  # about the database, so about all of them
            return [type(error)(*error.args) for _ in jobs]
        except Exception as error:  # noqa: BLE001  # about one: the others must not suffer
            if len(jobs) == 1:
                return [self._refusal(jobs[0], error)]
            half = len(jobs) // 2
            return self.apply(jobs[:half]) + self.apply(jobs[half:])

    def close(self) -> None:
        """Copy the log into the database, empty it, and close."""
        self._checkpoints.close()
        if self._connection is None:
            return
        with contextlib.suppress(sqlite3.Error):  # the log stays, and is as durable as before
            self._connection.execute("PRAGMA busy_timeout = 0")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._drop()

    def _in_one_transaction(self, jobs: Sequence[Job]) -> list[Answer]:
        connection = self._begin()
        try:
            answers = [apply(connection, job.request, job.now) for job in jobs]
            self._commit(connection)
        except BaseException:
            self._drop()  # which rolls back
            raise
        self._after_commit(connection)
        return answers

    def _begin(self) -> sqlite3.Connection:
        """Begin a transaction. IMMEDIATE: one that reads first and is upgraded later fails at once,
        whatever the busy time-out, if somebody else has written meanwhile.

        A newer release may have changed the file since it was opened. Nobody can do so any more
        until this transaction ends.
        """
        connection = self._open()
        try:
            connection.execute("BEGIN IMMEDIATE")
            version = version_of(connection)
        except UnicodeDecodeError as error:
            self._drop()
            raise explain(error, self._path) from error
        except sqlite3.Error as error:
            if not is_busy(error):
                self._drop()
            raise explain(error, self._path) from error
        if version != VERSION:
            self._drop()
            raise StoreUnavailable(
                f"session database {self._path} was changed by another minisession (schema"
                f" {version}; this one writes {VERSION}); nothing was stored. Upgrade all"
                " processes that share it together"
            )
        return connection

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if code_of(error) in CERTAINLY_NOT_STORED:
                raise
            reason = explain(error, self._path)
            raise SaveOutcomeUnknown(f"{reason}; it is not known what was stored") from error

    def _refusal(self, job: Job, error: Exception) -> StoreError:
        """Return the answer to a job that failed alone. Its message shows no value."""
        if isinstance(error, UnicodeDecodeError) or (
            isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode")
        ):
            return explain(error, self._path)
        logger.error("a change cannot be stored: %s", type(error).__name__)
        what = "purge" if isinstance(job.request, Purge) else f"session {job.request.handle}"
        return StoreError(f"{what}: this change cannot be stored ({type(error).__name__})")

    def _after_commit(self, connection: sqlite3.Connection) -> None:
        self._checkpoints.note_commit()
        if self._checkpoints.log_is_long:
            self._checkpoints.log_is_long = False
            try:
                restart_log(connection, BUSY_TIMEOUT)
            except sqlite3.Error as error:
                logger.warning("the log of %s stays long: %s", self._path, error)
                self._drop()

    def _open(self) -> sqlite3.Connection:
        """Return the connection; a new one if the file was deleted or replaced.

        Whatever is written to a file without a name is lost at the next start.
        """
        if self._connection is not None and _identity_of(self._path) != self._identity:
            logger.warning("%s was deleted or replaced; it is opened anew", self._path)
            self._drop()
            self._replaced()
        if self._connection is None:
            self._connection = connect(self._path)
            self._identity = _identity_of(self._path)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
