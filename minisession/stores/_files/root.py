"""The folder of all folders: making it, finding the others in it, and whether it can be used."""

from __future__ import annotations

import errno
import logging
import os

from .shard import Shard, make_folder

logger = logging.getLogger("minisession.stores")


class Root:
    """The folder that a user names; what it must stand in is there already.

    It is made where it is missing. That it was deleted while it was in use is worth a line in the
    log: all who had a session are then logged out.

    Mutable state: `_was_there`, which only ever becomes True.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._was_there = False

    def make(self) -> None:
        """Make it if it is missing.

        Raises:
            OSError: it cannot be made.
        """
        if make_folder(self.path) and self._was_there:
            logger.warning("%s was deleted, with all that was in it; it is made anew", self.path)
        self._was_there = True

    def check(self) -> None:
        """Make it if it is missing, and see whether sessions can be kept in it.

        Raises:
            OSError: they cannot.
        """
        self.make()
        os.scandir(self.path).close()
        by_effect = os.access in os.supports_effective_ids
        if not os.access(self.path, os.W_OK | os.X_OK, effective_ids=by_effect):
            read_only = os.statvfs(self.path).f_flag & os.ST_RDONLY
            raise OSError(errno.EROFS if read_only else errno.EACCES, "", self.path)

    def exists(self) -> bool:
        """Tell whether it is there: who finds no file must not take a lost folder for an answer."""
        return os.path.isdir(self.path)

    def shard(self, name: str) -> Shard:
        """Return a folder of sessions, open, making it if it is missing.

        Raises:
            OSError: it cannot be made or opened.
        """
        try:
            return Shard(self.path, name, is_new=False)
        except FileNotFoundError:
            self.make()
            make_folder(f"{self.path}/{name}")
            return Shard(self.path, name, is_new=True)
