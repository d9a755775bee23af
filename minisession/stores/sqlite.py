"""`SQLiteStore`: sessions in one file on this machine, for any number of processes.

It says what is promised and owns nothing else: the file, its connections and its threads are in
`_sqlite`, the queue before the writer in `_writer`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Self, cast

from minisession.abc import Change, Inspection, Outcome, Record, Summary
from minisession.errors import ConfigError, StoreError

from ._sqlite import inspection, reader
from ._sqlite.database import Database
from ._writer import Purge

__all__ = ["SQLiteStore"]


class SQLiteStore:
    """Keeps sessions in an SQLite database in WAL mode, which it makes with mode 0600.

    What survives: everything acknowledged survives a crash of the process and of the machine, and a
    loss of power, as far as the disk keeps what it has confirmed (`synchronous=FULL`: every batch
    is synced before it is acknowledged).

    One thread writes and takes what has queued up meanwhile into one transaction; loads are read
    where they are asked for, in some 20 µs. Several processes may use one file, on one machine:
    the write-ahead log needs shared memory, so not over a network file system. The store opens at
    its first use and is flushed when the interpreter exits; `async with store:` does both on time.

    A damaged row is `StoreCorrupt` for whoever loads or changes it, and is left as it is; only a
    `Destroy` with epoch None (revocation), or `purge` after its end, removes it. A damaged file is
    `StoreUnavailable`.

    Args:
        path: of the database file; relative to the directory in which the store is constructed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        if not name or name.startswith(":memory:"):
            raise ConfigError(
                f"SQLiteStore({name!r}): sessions need a file; allowed is the path of one, as in"
                " SQLiteStore('sessions.db'). For sessions that end with the process:"
                " store='memory://'"
            )
        self._database = Database(os.path.abspath(name))
        # When nobody has the store any more, and at the latest when the interpreter exits.
        weakref.finalize(self, self._database.close)

    def __repr__(self) -> str:
        return f"<SQLiteStore {self._database.path}>"

    async def __aenter__(self) -> Self:
        await self._database.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._database.leave()

    def load_nowait(self, handle: str, now: float) -> Record | None:
        """Return the living session at once, from any thread.

        Raises:
            StoreCorrupt: its row is damaged.
            StoreUnavailable: the database cannot be read; says why and what to do.
        """
        self._database.use()
        return self._database.reader.load(handle, now)

    async def load(self, handle: str, now: float) -> Record | None:
        """Return the living session, as `load_nowait` does."""
        return self.load_nowait(handle, now)

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        """Hand the changes to the writer, at once, and wait until they are stored.

        Who is cancelled while waiting leaves them to the writer, which stores them. Never raises a
        `StoreError`: each change has its own outcome.
        """
        self._database.use()
        return cast("list[Outcome]", await self._database.writer.do(changes, now))

    def withdraw(self, change: Change) -> bool:
        """Take back a change that the writer has not taken yet."""
        return self._database.writer.withdraw(change)

    async def scan(self, now: float, *, after: str = "", limit: int = 1000) -> list[Summary]:
        """Return living sessions with handles greater than `after`, ordered by handle."""
        return await self._database.in_thread(reader.scan, self._database.path, now, after, limit)

    async def of_principal(self, principal: str, now: float) -> list[Summary]:
        """Return the living sessions that belong to `principal`, oldest first."""
        return await self._database.in_thread(
            reader.of_principal, self._database.path, principal, now
        )

    async def alive(self, handles: Collection[str], now: float) -> set[str]:
        """Return those of `handles` whose sessions live."""
        return await self._database.in_thread(reader.alive, self._database.path, handles, now)

    async def purge(self, now: float, limit: int) -> int:
        """Remove at most `limit` expired sessions, and as many tombstones without a purpose.

        Fewer where they are large: others' commits wait for it.
        """
        self._database.use()
        (answer,) = await self._database.writer.do([Purge(limit)], now)
        if isinstance(answer, StoreError):
            raise answer
        return cast("int", answer)

    def is_there(self) -> bool:
        """Tell whether the file exists; opening the store would make it.

        Raises:
            StoreUnavailable: it is none of ours, or of another version of the schema.
        """
        return inspection.is_there(self._database.path)

    async def inspect(self, now: float) -> Inspection:
        """Return how many sessions wait for a purge, and the room that file and log take."""
        return await self._database.in_thread(inspection.inspect, self._database.path, now)

    async def verify(self) -> list[str]:
        """Look for damage in the file as a whole, which takes seconds for each gigabyte."""
        return await self._database.in_thread(inspection.verify, self._database.path)
