"""Which folder and which file a handle has: pure arithmetic, the same on every machine for ever.

Names are lower-case hexadecimal, because handles differ by case and some file systems do not. The
folder is chosen by the *beginning* of the handle and not by a hash of it: handles are random, so
the folders fill evenly, and all handles in one folder come before all those in the next, so that a
list in their order reads one folder after the other. With hashes, each step of it would read all.
"""

from __future__ import annotations

from bisect import bisect_right

from minisession.errors import StoreError

ALPHABET = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
"""Of base64url, in the order of its characters."""

FIRST_HANDLES = [first + second for first in ALPHABET for second in ALPHABET[::16]]
"""Where each folder begins: 64 first characters, with four kinds of second ones each."""

SHARDS = [f"{number:02x}" for number in range(len(FIRST_HANDLES))]
SESSION = ".session"
TEMPORARY = ".tmp"
DAMAGED = "damaged"

LONGEST = 120
"""Octets of a handle; ours have 22. A file name has 255, and each octet takes two."""


def shard_of(handle: str) -> str:
    """Return the name of the folder in which a handle belongs."""
    return SHARDS[max(bisect_right(FIRST_HANDLES, handle) - 1, 0)]


def name_of(handle: str) -> str:
    """Return the name of a session's file.

    Raises:
        StoreError: no file can have such a name.
    """
    try:
        raw = handle.encode()
    except UnicodeEncodeError:
        raise StoreError("a handle that is no valid text names no file") from None
    if len(raw) > LONGEST:
        raise StoreError(f"a handle of {len(raw)} octets names no file; allowed are {LONGEST}")
    return raw.hex() + SESSION


def temporary_of(name: str) -> str:
    """Return the name under which a file is written until it is whole."""
    return name.removesuffix(SESSION) + TEMPORARY


def session_of(name: str) -> str:
    """Return the name of the file for which a temporary one was written; any other stays."""
    stem = name.removesuffix(TEMPORARY)
    return name if stem == name else stem + SESSION


def handle_of(name: str) -> str | None:
    """Return the handle whose file has this name, None if it is no session's."""
    stem = name.removesuffix(SESSION)
    if stem == name:
        return None
    try:
        handle = bytes.fromhex(stem).decode()
        return handle if name_of(handle) == name else None
    except (ValueError, StoreError):
        return None
