"""The scripts, and the names under which a server keeps them.

A first line with flags makes the server refuse a script as a whole, before it begins, where it may
not write (a replica, a full disk) or has no memory left. Only what ends a session may run then:
a logout makes room. (https://redis.io/docs/latest/develop/programmability/eval-intro/#eval-flags)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["CHANGE", "END", "INDEX", "SCRIPTS", "Script"]


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the name that servers give it."""

    text: bytes
    name: bytes


def _file(name: str) -> bytes:
    return files("minisession.stores._redis").joinpath(name).read_bytes()


def _script(body: bytes, flags: str = "") -> Script:
    text = f"#!lua {flags}\n".encode() + body
    # S324: the server names scripts so; nobody's safety depends on it.
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


_LIST = _file("index.lua")
_CHANGE = _LIST + _file("change.lua")

CHANGE = _script(_CHANGE)
END = _script(_CHANGE, "flags=allow-oom")
INDEX = _script(_LIST + b"return list(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) or 1\n")
SCRIPTS = (CHANGE, END, INDEX)
