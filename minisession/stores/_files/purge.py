"""Removing what has expired, folder by folder, and setting aside what is damaged.

It owns the order in which the folders are visited, and what a purge does to one file. A file's time
of change is its session's end, as a hint: so a purge reads those files alone whose end seems to
have passed, and believes what is in them. It runs beside the writer, not in its thread, and keeps a
folder locked for a few files at a time.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from minisession.errors import StoreUnavailable

from . import shard as shards
from .errors import explain
from .form import Newer, Unreadable
from .names import DAMAGED, SHARDS, TEMPORARY, handle_of, session_of
from .root import Root
from .shard import Shard

STEP = 2000
"""Names to look at in one call: some milliseconds of processor time."""
AT_ONCE = 64
"""Files to treat under the lock of a folder: a millisecond for which a commit may have to wait."""

logger = logging.getLogger("minisession.stores")


@dataclass(slots=True)
class Tour:
    """One visit to all folders, which begins where the last one stopped.

    Attributes:
        next: the number of the folder to visit next.
        left: how many are still to be visited.
        removed: how many sessions are gone.
    """

    next: int
    left: int = len(SHARDS)
    removed: int = 0

    def go_on(self, root: Root, now: float, limit: int) -> None:
        """Visit the next folders, until a step is done or `limit` sessions are gone.

        Raises:
            StoreUnavailable: a folder cannot be read or locked; the next call passes it over.
        """
        looked_at = 0
        while self.left and self.removed < limit and looked_at < STEP:
            visit = _Visit(root, SHARDS[self.next], now, limit - self.removed)
            try:
                is_done = visit.run()
            except OSError as error:
                self._move_on()
                raise explain(error, visit.path) from error
            except StoreUnavailable:
                self._move_on()
                raise
            self.removed += visit.removed
            looked_at += visit.looked_at + 1
            if is_done:
                self._move_on()

    def _move_on(self) -> None:
        self.next = (self.next + 1) % len(SHARDS)
        self.left -= 1


class _Visit:
    """One folder, visited until its end or until `limit` sessions are gone."""

    def __init__(self, root: Root, name: str, now: float, limit: int) -> None:
        self.path = f"{root.path}/{name}"
        self.looked_at = 0
        self.removed = 0
        self._root = root
        self._name = name
        self._now = now
        self._limit = limit

    def run(self) -> bool:
        """Visit the folder; return whether that was all of it."""
        try:
            shard = Shard(self._root.path, self._name, is_new=False)
        except FileNotFoundError:
            return True
        with closing(shard), os.scandir(shard.descriptor) as entries:
            due = self._due(entries)
            while names := list(islice(due, AT_ONCE)):
                shard.lock(time.monotonic() + shards.BUSY_TIMEOUT)
                try:
                    for name in names:
                        if self.removed == self._limit:
                            return False
                        self._treat(shard, name)
                finally:
                    shard.unlock()
        return True

    def _due(self, entries: Iterator[os.DirEntry[str]]) -> Iterator[str]:
        """Choose what may have expired, and what a crash may have left. Others' files stay."""
        for entry in entries:
            self.looked_at += 1
            if handle_of(session_of(entry.name)) is not None and self._is_due(entry):
                yield entry.name

    def _is_due(self, entry: os.DirEntry[str]) -> bool:
        if entry.name.endswith(TEMPORARY):
            return True
        try:
            return entry.stat(follow_symlinks=False).st_mtime <= self._now
        except FileNotFoundError:
            return False

    def _treat(self, shard: Shard, name: str) -> None:
        """Look at one file under the lock, and remove it if that is right."""
        if name.endswith(TEMPORARY):
            shard.discard(session_of(name))
            return
        try:
            row = shard.read(handle_of(name) or "", name, whole=False)
        except Newer:
            return  # whoever can read it removes it
        except Unreadable as error:
            self._set_aside(shard, name, error)
            return
        except OSError as error:
            logger.warning("not removed: %s", explain(error, f"{self.path}/{name}"))
            return
        if row is not None and row.expires <= self._now:
            shard.remove(name, f"{self._root.path}/{DAMAGED}")
            self.removed += 1
        elif row is not None:
            shard.hint(name, row.expires)

    def _set_aside(self, shard: Shard, name: str, damage: Unreadable) -> None:
        aside = f"{self._root.path}/{DAMAGED}"
        try:
            path = shard.set_aside(name, aside)
        except OSError as error:  # the rest of the folder is purged all the same
            logger.warning("not set aside: %s", explain(error, aside))
            return
        logger.warning("session file %s/%s %s; it was moved to %s", self.path, name, damage, path)
        self.removed += 1
