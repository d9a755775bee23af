"""The names of the keys that a store uses, and the slots of a cluster that they are in.

A session is one key, whose handle is the part in braces: all that is ever stored of a session
shares a slot. The index of a principal has a key of its own, which does not show the principal.
What is not Unicode text has keys as well, under which nothing is ever stored.
"""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass

SLOTS = 16384  # https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/

_GLOB = str.maketrans({character: f"\\{character}" for character in "*?[]\\^-"})


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that begin with a prefix."""

    prefix: str

    def session(self, handle: str) -> bytes:
        """Return the key of a session."""
        return f"{self.prefix}{{{handle}}}".encode(errors="surrogatepass")

    def handle(self, key: str) -> str:
        """Return the handle that a session's key names."""
        return key[len(self.prefix) + 1 : -1]

    @property
    def sessions(self) -> str:
        """The pattern that matches the keys of all sessions, and no other."""
        return self.prefix.translate(_GLOB) + "{*}"

    @property
    def indexes(self) -> str:
        """The pattern that matches the keys of all indexes, and no other."""
        return self.prefix.translate(_GLOB) + "of:" + "[0-9a-f]" * 64

    def index(self, principal: str | bytes) -> bytes:
        """Return the key of the index of a principal's sessions."""
        if isinstance(principal, str):
            principal = principal.encode(errors="surrogatepass")
        return f"{self.prefix}of:{hashlib.sha256(principal).hexdigest()}".encode()


def slot(key: bytes) -> int:
    """Return the slot of a key: that of the part in braces, if there is one and it is not empty."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    if start >= 0 and end > start + 1:
        key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % SLOTS
