"""One session as bytes: what a file holds, in which version, and how damage shows.

It owns the format and knows no file. A file is

    minisession session, format 1\\n      so that people and `file` know it
    SHA-256 (32 octets)                  of all that follows up to the items
    length of the head, of the items     (4 and 8 octets, the highest first)
    the head                             JSON: the session, and of each item its key, length, epoch
    the items                            one after the other; their SHA-256 is in the head

Two digests, so that a list of sessions need not read what is in them. Whatever was torn, cut or
changed is found by them; it is never read as something else.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from minisession.abc import size_of
from minisession.stores._row import Row

VERSION = 1
LARGEST = 1 << 30
"""Octets of a file: more is nobody's session, and must not be read into memory."""

FIRST_LINE = b"minisession session, format %d\n"
_FIRST_LINE = re.compile(rb"minisession session, format ([1-9][0-9]{0,4})\n")
_DIGEST = 32
_LENGTHS = struct.Struct(">IQ")
_ODDITIES = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


class Unreadable(Exception):
    """These bytes are no session; the message says what is wrong, as in "its file ..."."""


class Newer(Unreadable):
    """These bytes were written by a release that knows more than this one."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where in a file the parts are, as its first octets say."""

    version: int
    head: int
    items: int
    end: int


def encode(row: Row) -> bytes:
    """Return the file of a session, in the newest version."""
    items = b"".join(data for data, _ in row.items.values() if data is not None)
    head = json.dumps(
        {
            "handle": row.handle,
            "secret": row.secret.hex(),
            "created": row.created,
            "expires": row.expires,
            "cookie_until": row.cookie_until,
            "principal": row.principal,
            "epoch": row.epoch,
            "previous": None if row.previous is None else row.previous.hex(),
            "previous_loads": row.previous_loads,
            "grace_until": row.grace_until,
            "cleared": row.cleared,
            "items": [
                (key, None if data is None else len(data), epoch)
                for key, (data, epoch) in row.items.items()
            ],
            "digest": sha256(items).hexdigest(),
        }
    ).encode()
    sealed = _LENGTHS.pack(len(head), len(items)) + head
    return b"".join((FIRST_LINE % VERSION, sha256(sealed).digest(), sealed, items))


def frame_of(content: bytes) -> Frame:
    """Return where the parts are. The first octets of a file are enough.

    Raises:
        Newer: the file is of a later version.
        Unreadable: it is no file of ours.
    """
    line = _FIRST_LINE.match(content)
    if line is None:
        raise Unreadable("is empty" if not content else "does not begin as one of ours")
    version = int(line[1])
    if version not in READERS:
        raise Newer(f"is of format {version}, and this release reads {VERSION}")
    head = line.end() + _DIGEST + _LENGTHS.size
    if len(content) < head:
        raise Unreadable("is cut off")
    head_length, items_length = _LENGTHS.unpack_from(content, head - _LENGTHS.size)
    items = head + head_length
    return Frame(version, head, items, items + items_length)


def summary_of(handle: str, content: bytes) -> Row:
    """Return the session without its items, from a file read at least up to them.

    Raises:
        Unreadable: the file is damaged, or another session's.
    """
    frame = frame_of(content)
    return READERS[frame.version](handle, _head(content, frame), None)


def decode(handle: str, content: bytes) -> Row:
    """Return the session that a whole file holds.

    Raises:
        Unreadable: the file is damaged, or another session's.
    """
    frame = frame_of(content)
    if len(content) != frame.end:
        raise Unreadable(f"has {len(content):,} octets instead of {frame.end:,}")
    return READERS[frame.version](handle, _head(content, frame), content[frame.items :])


def _head(content: bytes, frame: Frame) -> Any:
    sealed = frame.head - _LENGTHS.size
    if content[sealed - _DIGEST : sealed] != sha256(content[sealed : frame.items]).digest():
        raise Unreadable("is damaged in its head")
    try:
        return json.loads(content[frame.head : frame.items])
    except _ODDITIES:
        raise Unreadable("has a head that is not JSON") from None


def _read_1(handle: str, head: Any, items: bytes | None) -> Row:
    try:
        row = _row_1(head)
        table = [] if items is None else _items_1(head["items"], items)
    except _ODDITIES:
        raise Unreadable("has a head of another form") from None
    if row.handle != handle:
        raise Unreadable("is another session's")
    if items is not None and sha256(items).hexdigest() != head["digest"]:
        raise Unreadable("is damaged in its items")
    for key, data, epoch in table:
        row.items[key] = (data, epoch)
        if data is None:
            row.tombstones.add(key)
        else:
            row.size += size_of(key, data)
    return row


def _row_1(head: Any) -> Row:
    previous = head["previous"]
    return Row(
        handle=head["handle"],
        secret=bytes.fromhex(head["secret"]),
        created=head["created"],
        expires=head["expires"],
        cookie_until=head["cookie_until"],
        principal=head["principal"],
        items={},
        size=0,
        epoch=head["epoch"],
        previous=None if previous is None else bytes.fromhex(previous),
        previous_loads=head["previous_loads"],
        grace_until=head["grace_until"],
        cleared=head["cleared"],
    )


def _items_1(table: Any, items: bytes) -> list[tuple[str, bytes | None, int]]:
    """Return the items: their key, data (None: a tombstone) and epoch."""
    found: list[tuple[str, bytes | None, int]] = []
    start = 0
    for key, length, epoch in table:
        data = None if length is None else items[start : start + length]
        start += length or 0
        found.append((key, data, epoch))
    return found


READERS: dict[int, Callable[[str, Any, bytes | None], Row]] = {1: _read_1}
"""What reads each version: from the handle, the head, and the items unless they are not wanted.

A new version gets a reader here, and `encode` writes it; the old readers stay. A file is written
in the newest version when its session changes next.
"""
