"""Checkpoints: what has gathered in the write-ahead log is copied into the database.

It owns a thread with a connection of its own, because a checkpoint on the write path would make
some commits wait for it. A passive checkpoint disturbs nobody, but under constant load it never
reaches the end of the log, which would then grow without bound: beyond `WAL_LIMIT` the writer is
asked to finish the little that is left, between two of its transactions.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing

from minisession._worker import Work, Worker, start_worker
from minisession.errors import StoreUnavailable

from .connect import connect

INTERVAL = 1.0
"""Seconds between checkpoints. Longer makes the log larger, shorter copies hot pages more often."""

WAL_LIMIT = 4096
"""Pages, of 4 KiB each, from which on the log is started anew: 16 MiB, about a second of writes at
full speed. A longer log makes reads slower and the recovery after a crash longer."""

RESTART_TIMEOUT = 0.05
"""Seconds that the writer waits for readers (a backup, a shell) before it goes on without."""

logger = logging.getLogger("minisession.stores")


class Checkpointer:
    """Makes a checkpoint about each second in which there were commits.

    Attributes:
        log_is_long: the writer should call `restart_log`; set here, cleared there.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._closing = False
        self._worker: Worker | None = None
        self.log_is_long = False

    def note_commit(self) -> None:
        """Say that there is something to copy. Called by the writer alone.

        Raises nothing: what was committed is stored, also where no thread is left to copy it.
        """
        try:
            if self._worker is None:
                self._worker = start_worker(f"checkpoints of {self._path}", self._work())
        except RuntimeError as error:  # the next commit tries again
            logger.warning("no checkpoints of %s: %s", self._path, error)
        else:
            self._worker.wake()

    def close(self) -> None:
        """End the thread and wait for it."""
        self._closing = True
        if self._worker is not None:
            self._worker.finish(None)

    def _work(self) -> Work:
        while not self._closing:
            yield None
            yield INTERVAL
            if self._closing:
                return
            try:
                self._checkpoint()
            except (sqlite3.Error, StoreUnavailable) as error:
                # Nothing is lost: the log keeps it all, and the next one tries again.
                logger.warning("no checkpoint of %s: %s", self._path, error)

    def _checkpoint(self) -> None:
        with closing(connect(self._path, busy_timeout=0)) as connection:
            _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self.log_is_long = pages > WAL_LIMIT


def restart_log(connection: sqlite3.Connection, busy_timeout: float) -> None:
    """Copy what is left and have the next transaction write at the beginning of the log again.

    A reader that stays longer than `RESTART_TIMEOUT` prevents it; the next checkpoint asks again.
    """
    connection.execute(f"PRAGMA busy_timeout = {RESTART_TIMEOUT * 1000:.0f}")
    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {busy_timeout * 1000:.0f}")
