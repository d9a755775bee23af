"""`FilesStore`: each session a file in one folder on this machine, for any number of processes.

It says what is promised and owns nothing else: folders, files and locks are in `_files`, the queue
before the writer in `_writer`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Self, cast

from minisession.abc import Change, Inspection, Outcome, Record, Summary
from minisession.errors import ConfigError, StoreUnavailable

from ._files import inspection, reader
from ._files.place import Place
from ._files.purge import Tour

__all__ = ["FilesStore"]


class FilesStore:
    """Keeps each session in a file of its own, in 256 folders in one, with modes 0600 and 0700.

    What survives: everything acknowledged survives a crash of the process and of the machine, and a
    loss of power, as far as the disk keeps what it has confirmed: files are written under another
    name, synced, renamed, and their folder is synced, before a change is acknowledged.

    One thread writes and takes what has queued up meanwhile into one batch, in which a session is
    read and written once. Loads are read where they are asked for, in some 50 µs. Several processes
    on one machine may use one folder; each of the 256 has a lock. The store opens at its first use
    and is flushed when the interpreter exits; `async with store:` does both on time.

    A file that is torn, empty, damaged or foreign is `StoreCorrupt` for whoever loads or changes
    it, and is left as it is, even by a `Create`. A `Destroy` with epoch None (revocation) removes
    it; `purge` moves it to the folder `damaged` once its time of change has passed: the session's
    end, or the moment of the damage if that was a write. Lists leave it out and log it; `alive`
    counts it, because nobody has ended it.

    A folder knows no index: `of_principal` reads the beginning of every file, `purge` the times of
    all. For more than some hundred thousand sessions, use SQLite.

    Args:
        path: of the folder, which is made if it is missing; what it is in must be there. Relative
            to the directory in which the store is constructed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        if not name:
            raise ConfigError(
                "FilesStore(''): sessions need a folder of their own; allowed is the path of one,"
                " as in FilesStore('/var/lib/app/sessions')"
            )
        self._place = Place(os.path.abspath(name))
        # When nobody has the store any more, and at the latest when the interpreter exits.
        weakref.finalize(self, self._place.close)

    def __repr__(self) -> str:
        return f"<FilesStore {self._place.path}>"

    async def __aenter__(self) -> Self:
        await self._place.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._place.leave()

    def load_nowait(self, handle: str, now: float) -> Record | None:
        """Return the living session at once, from any thread.

        Raises:
            StoreCorrupt: its file is damaged.
            StoreUnavailable: it cannot be read; says why and what to do.
        """
        self._place.use()
        return reader.load(self._place.root, handle, now)

    async def load(self, handle: str, now: float) -> Record | None:
        """Return the living session, as `load_nowait` does."""
        return self.load_nowait(handle, now)

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        """Hand the changes to the writer, at once, and wait until they are stored.

        Who is cancelled while waiting leaves them to the writer, which stores them. Never raises a
        `StoreError`: each change has its own outcome.
        """
        self._place.use()
        return cast("list[Outcome]", await self._place.writer.do(changes, now))

    def withdraw(self, change: Change) -> bool:
        """Take back a change that the writer has not taken yet."""
        return self._place.writer.withdraw(change)

    async def scan(self, now: float, *, after: str = "", limit: int = 1000) -> list[Summary]:
        """Return living sessions with handles greater than `after`, ordered by handle."""
        return await self._place.in_thread(reader.scan, self._place.root, now, after, limit)

    async def of_principal(self, principal: str, now: float) -> list[Summary]:
        """Return the living sessions that belong to `principal`, oldest first.

        It reads the beginning of every file: some ten seconds for each hundred thousand.
        """
        return await self._place.in_thread(reader.of_principal, self._place.root, principal, now)

    async def alive(self, handles: Collection[str], now: float) -> set[str]:
        """Return those of `handles` whose sessions live, or cannot be read."""
        return await self._place.in_thread(reader.alive, self._place.root, handles, now)

    async def purge(self, now: float, limit: int) -> int:
        """Remove at most `limit` expired sessions, damaged ones among them.

        It looks at all folders until it has found so many, beginning where the last purge stopped,
        in steps between which it can be cancelled.
        """
        self._place.use()
        tour = Tour(self._place.purge_from)
        try:
            while tour.left and tour.removed < limit:
                await self._place.in_thread(tour.go_on, self._place.root, now, limit)
        finally:
            self._place.purge_from = tour.next
        return tour.removed

    def is_there(self) -> bool:
        """Tell whether the folder exists; opening the store would make it.

        Raises:
            StoreUnavailable: there is something else.
        """
        path = self._place.path
        if os.path.lexists(path) and not os.path.isdir(path):
            raise StoreUnavailable(
                f"session files: {path}: it is no folder, and sessions are kept in one. Name the"
                " folder, or the store that this is: an SQLite database is sqlite:///sessions.db"
            )
        return os.path.isdir(path)

    async def inspect(self, now: float) -> Inspection:
        """Return how many sessions seem to wait for a purge, and the room that all files take."""
        return await self._place.in_thread(inspection.inspect, self._place.root, now)

    async def verify(self) -> list[str]:
        """Look for damage that lists leave out, which reads the beginning of every file."""
        return await self._place.in_thread(inspection.verify, self._place.root)
