"""`Database`: one file in use by one process: its reader, its writer, and how they end."""

from __future__ import annotations

from functools import partial

from minisession.stores._opened import Opened
from minisession.stores._writer import Writer

from .batches import SQLiteBatches
from .reader import Reader


class Database(Opened):
    """The reader and the writer of one file. Does no I/O until one of them is used.

    A forked child cannot even open a connection of its own: SQLite keeps the locks of a file in
    a table of the process, which the child inherits, while the kernel does not give it the
    locks. It would believe that it holds them (https://sqlite.org/howtocorrupt.html, 2.6).
    """

    def __init__(self, path: str) -> None:
        self.reader = Reader(path)
        batches = partial(SQLiteBatches, path, self.reader.close)
        super().__init__(f"session database {path}", path, Writer(f"writer of {path}", batches))

    def open(self) -> None:
        """Open the reader, which makes the file if it is missing.

        Raises:
            StoreUnavailable: it is not ours, or cannot be used.
        """
        self.reader.open()

    def close_rest(self) -> None:
        """Close the reader."""
        self.reader.close()
