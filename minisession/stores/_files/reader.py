"""Loading and listing: what only reads files, and needs no lock for it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from heapq import nsmallest

from minisession.abc import Record, Summary
from minisession.errors import StoreCorrupt
from minisession.stores._row import Row

from . import shard
from .errors import damaged, explain
from .form import Unreadable
from .names import SHARDS, handle_of, name_of, shard_of
from .root import Root
from .shard import Shard

logger = logging.getLogger("minisession.stores")


def load(root: Root, handle: str, now: float) -> Record | None:
    """Return the living session, None if it is absent or expired.

    Raises:
        StoreCorrupt: its file is damaged.
        StoreUnavailable: it cannot be read.
    """
    row = _read(root, handle, whole=True)
    return row.record() if row is not None and row.expires > now else None


def load_head(root: Root, handle: str) -> Row | None:
    """Return a session without its items, be it expired or not; None if it is absent.

    Raises:
        StoreCorrupt: the head of its file is damaged.
        StoreUnavailable: it cannot be read.
    """
    return _read(root, handle, whole=False)


def _read(root: Root, handle: str, *, whole: bool) -> Row | None:
    path = f"{root.path}/{shard_of(handle)}/{name_of(handle)}"
    try:
        row = shard.read(handle, path, whole=whole)
        if row is None and not root.exists():
            root.make()
    except Unreadable as error:
        raise damaged(error, handle, path) from None
    except OSError as error:
        raise explain(error, path) from error
    return row


def scan(root: Root, now: float, after: str, limit: int) -> list[Summary]:
    """Return living sessions with handles greater than `after`, ordered by handle.

    It reads the names in one folder after the other, beginning with that of `after`, and the files
    of those handles that it returns.
    """
    found: list[Summary] = []
    for number in range(SHARDS.index(shard_of(after)), len(SHARDS)):
        last = after
        while len(found) < limit:
            handles = (handle for handle in handles_in(root, SHARDS[number]) if handle > last)
            nearest = nsmallest(limit - len(found), handles)
            if not nearest:
                break
            found += _living(root, nearest, now)
            last = nearest[-1]
    return found


def of_principal(root: Root, principal: str, now: float) -> list[Summary]:
    """Return the living sessions of a principal, oldest first. It reads the head of every file."""
    found = [
        summary
        for name in SHARDS
        for summary in _living(root, handles_in(root, name), now)
        if summary.principal == principal
    ]
    return sorted(found, key=lambda summary: (summary.created, summary.handle))


def alive(root: Root, handles: Collection[str], now: float) -> set[str]:
    """Return those of `handles` whose sessions live. What cannot be read has not ended."""
    return {handle for handle in handles if _is_alive(root, handle, now)}


def _is_alive(root: Root, handle: str, now: float) -> bool:
    try:
        row = load_head(root, handle)
    except StoreCorrupt:
        return True
    return row is not None and row.expires > now


def handles_in(root: Root, name: str) -> list[str]:
    """List the handles in one folder, in no order.

    With the lock: on some file systems (tmpfs is one) a name that a new file takes over while
    somebody lists the folder is left out, or told twice; POSIX allows that.

    Raises:
        StoreUnavailable: the folder cannot be read or locked.
    """
    path = f"{root.path}/{name}"
    try:
        with closing(Shard(root.path, name, is_new=False)) as folder:
            folder.lock(time.monotonic() + shard.BUSY_TIMEOUT)
            with os.scandir(folder.descriptor) as entries:
                found = [handle_of(entry.name) for entry in entries]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise explain(error, path) from error
    return [handle for handle in found if handle is not None]


def _living(root: Root, handles: Collection[str], now: float) -> Iterator[Summary]:
    for handle in handles:
        try:
            row = load_head(root, handle)
        except StoreCorrupt as error:
            logger.warning("left out of a list: %s", error)
            continue
        if row is not None and row.expires > now:
            yield row.summary()
