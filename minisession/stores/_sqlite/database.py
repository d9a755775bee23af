"""`Database`: one file in use by one process: who may use it, when it opens, how it ends.

It owns the reader, the writer and the rule about forks. It outlives its `SQLiteStore` just long
enough to store what is queued.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import partial

from minisession.errors import StoreUnavailable
from minisession.stores._writer import Writer

from .batches import SQLiteBatches
from .reader import Reader

CLOSE_TIMEOUT = 10.0
"""Seconds to wait for what is queued when the store closes: twice the longest wait for a lock."""

logger = logging.getLogger("minisession.stores")


class Database:
    """The reader and the writer of one file. Does no I/O until one of them is used."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.reader = Reader(path)
        self.writer = Writer(f"writer of {path}", partial(SQLiteBatches, path, self.reader.close))
        self._pid: int | None = None
        """The process that has opened it, None while it is closed."""

    def use(self) -> None:
        """Note which process uses the file, and refuse any other; call it before everything else.

        A forked child cannot even open a connection of its own: SQLite keeps the locks of a file in
        a table of the process, which the child inherits, while the kernel does not give it the
        locks. It would believe that it holds them (https://sqlite.org/howtocorrupt.html, 2.6).

        Raises:
            StoreUnavailable: another process opened it and forked this one.
        """
        pid = os.getpid()
        if self._pid is None:
            self._pid = pid
        if self._pid != pid:
            raise StoreUnavailable(
                f"session database {self.path} was opened by process {self._pid} before it forked"
                f" this one ({pid}). Open the store after the fork: in the ASGI lifespan, or where"
                " the worker starts"
            )

    def close(self) -> None:
        """Store what is queued, then close; a later use opens it again.

        Does nothing in a process that was forked from the one that has opened it: what it inherits,
        it must not touch. Who uses it while it closes opens it again, and must close it again.
        """
        if self._pid not in (None, os.getpid()):
            return
        self.reader.close()
        if self.writer.close(CLOSE_TIMEOUT):
            self._pid = None
        else:
            logger.error("%s: changes still wait for the disk after %s s", self.path, CLOSE_TIMEOUT)

    def close_soon(self) -> None:
        """Do what `close` does in a thread that nobody waits for; here, if no thread is left."""
        name = f"closing of {self.path}"
        try:
            threading.Thread(target=self.close, name=name, daemon=True).start()
        except RuntimeError:
            self.close()
