"""`Place`: one folder in use by one process: where it is, its writer, and how far a purge came."""

from __future__ import annotations

from functools import partial

from minisession.stores._opened import Opened
from minisession.stores._writer import Writer

from .batches import FilesBatches
from .errors import explain
from .root import Root


class Place(Opened):
    """The folder and what writes in it. Does no I/O until it is used.

    Attributes:
        root: the folder.
        purge_from: the number of the folder in it with which the next purge begins.
    """

    def __init__(self, path: str) -> None:
        self.root = Root(path)
        self.purge_from = 0
        batches = partial(FilesBatches, self.root)
        super().__init__(f"session folder {path}", path, Writer(f"writer of {path}", batches))

    def open(self) -> None:
        """Make the folder if it is missing, and see whether it can be used.

        Raises:
            StoreUnavailable: it cannot.
        """
        try:
            self.root.check()
        except OSError as error:
            raise explain(error, self.path) from error
