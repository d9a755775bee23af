"""One SQLite file for many worlds. It stays open between them: opening takes longer than a world.

What a schedule decides (the queue, the writer's turns, the loads) is the package's own. Left out
are opening, closing and checkpoints, which the tests of the store look at, and the disk itself:
where there is a file system in memory, the file is there, for power cuts are no subject here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from minisession.stores._sqlite.batches import SQLiteBatches
from minisession.stores._sqlite.checkpoints import Checkpointer
from minisession.stores.sqlite import SQLiteStore
from tests.races.world import Scenario, World
from tests.scratch import scratch_folder


class _NoCheckpoints(Checkpointer):
    """Leaves the log to the side door, whose deletions copy it into the database."""

    def note_commit(self) -> None:
        """Start no worker: it would end with the world."""


class _KeptBatches(SQLiteBatches):
    """A writing connection that outlives the writer, of which each world has its own."""

    def __init__(self, path: str, replaced: Callable[[], None]) -> None:
        super().__init__(path, replaced)
        self._checkpoints = _NoCheckpoints(path)

    def close(self) -> None:
        """Stay open."""


class _KeptStore(SQLiteStore):
    """A store that managers can enter and leave without opening and closing the file."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


class Disk:
    """Worlds on one file, one after the other."""

    def __init__(self, path: Path) -> None:
        self._store = _KeptStore(path)
        self._batches = _KeptBatches(str(path), self._store._database.reader.close)
        self._store._database.writer._batches = lambda: self._batches
        self._store._database.use()
        self._store._database.reader.open()
        self._side_door = sqlite3.connect(path, isolation_level=None)

    async def play(self, scenario: Scenario) -> None:
        """Run a scenario in a world in which nothing is stored."""
        self._side_door.executescript("BEGIN; DELETE FROM session; DELETE FROM item; COMMIT;")
        store = self._store
        try:
            await scenario(World(lambda: store, store, self._handles))
        finally:
            store._database.writer.close(0)

    async def _handles(self, now: float) -> list[str]:
        rows = self._side_door.execute("SELECT handle FROM session WHERE expires > ?", (now,))
        return [handle for (handle,) in rows]

    def close(self) -> None:
        self._side_door.close()
        SQLiteBatches.close(self._batches)
        self._store._database.close()


@contextmanager
def disk() -> Iterator[Disk]:
    """Open a file for worlds, and remove it at the end."""
    with scratch_folder() as folder, closing(Disk(folder / "sessions.db")) as opened:
        yield opened
