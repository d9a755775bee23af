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


def _script(file: str, flags: str = "") -> Script:
    body = files("minisession.stores._redis").joinpath(file).read_bytes()
    text = f"#!lua {flags}\n".encode() + body
    # S324: the server names scripts so; nobody's safety depends on it.
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


CHANGE = _script("change.lua")
END = _script("change.lua", "flags=allow-oom")
INDEX = _script("index.lua")
SCRIPTS = (CHANGE, END, INDEX)
