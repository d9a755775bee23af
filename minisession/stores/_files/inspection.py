"""The folder as a whole: how much is in it, and is it sound?

It only reads. What is wrong with the items of a living session is found by
loading it; here is looked for what a list leaves out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from minisession.abc import Inspection
from minisession.errors import StoreCorrupt

from . import reader
from .errors import explain
from .form import VERSION
from .names import DAMAGED, SHARDS, handle_of
from .root import Root

BLOCK = 512  # octets that `st_blocks` counts in, whatever the file system's own are


def inspect(root: Root, now: float) -> Inspection:
    """Return how many sessions seem to wait for a purge, and the room that all files take.

    Raises:
        StoreUnavailable: a folder cannot be read.
    """
    expired = room = 0
    for entry in _files(root):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # removed meanwhile
            continue
        room += status.st_blocks * BLOCK
        expired += handle_of(entry.name) is not None and status.st_mtime <= now
    return Inspection(f"files, format {VERSION}", expired, room)


def verify(root: Root) -> list[str]:
    """Return a sentence for each file that is damaged in its head, or was set aside as damaged.

    Raises:
        StoreUnavailable: a folder or a file cannot be read.
    """
    handles = (handle for name in SHARDS for handle in reader.handles_in(root, name))
    return [*filter(None, (_damage(root, handle) for handle in handles)), *_set_aside(root)]


def _damage(root: Root, handle: str) -> str | None:
    try:
        reader.load_head(root, handle)
    except StoreCorrupt as error:
        return str(error)
    return None


def _set_aside(root: Root) -> list[str]:
    number = sum(1 for _ in _entries(f"{root.path}/{DAMAGED}"))
    if not number:
        return []
    path = f"{root.path}/{DAMAGED}"
    return [
        f"{path}: damaged files, set aside by a purge: {number:,}; look at them and remove them"
    ]


def _files(root: Root) -> Iterator[os.DirEntry[str]]:
    for name in SHARDS:
        yield from _entries(f"{root.path}/{name}")


def _entries(path: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from entries
    except FileNotFoundError:
        return
    except OSError as error:
        raise explain(error, path) from error
