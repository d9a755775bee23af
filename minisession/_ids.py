"""What an id looks like: making, checking, splitting and hashing, and nothing else.

An id is "<handle>.<secret>", both base64url without padding (RFC 4648, section 5): the handle
names the session in public, the secret is what authenticates. This file knows neither cookies
nor stores; whether an id belongs to a living session is not its question.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable

# OWASP asks for 64 bits of entropy. 128 make handles unique without any coordination; 192 make
# a secret that nobody guesses, and 24 bytes fill their 32 characters of base64 exactly.
_HANDLE_BYTES = 16
_SECRET_BYTES = 24

# 16 bytes leave four spare bits in the last of 22 characters. Only zeros are taken there, or
# one handle would have sixteen spellings. The classes are written out because \w is not ASCII.
_HANDLE = r"[A-Za-z0-9_-]{21}[AQgw]"
_SECRET = r"[A-Za-z0-9_-]{32}"  # noqa: S105 - the shape of a secret
_match_handle = re.compile(_HANDLE).fullmatch
_match_id = re.compile(rf"({_HANDLE})\.({_SECRET})").fullmatch


def new_handle(token: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a new handle: 22 characters. `token` gives n random bytes."""
    return _base64url(token(_HANDLE_BYTES))


def new_secret(token: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a new secret: 32 characters. `token` gives n random bytes."""
    return _base64url(token(_SECRET_BYTES))


def join_id(handle: str, secret: str) -> str:
    """Return the id that a cookie carries: 55 characters, safe in a cookie, a URL and a path."""
    return f"{handle}.{secret}"


def split_id(text: str) -> tuple[str, str] | None:
    """Return handle and secret of an id, None unless `text` is well-formed to the letter.

    Nothing is trimmed, decoded or folded: each session has one spelling of its id.
    """
    match = _match_id(text)
    return None if match is None else (match[1], match[2])


def is_handle(text: str) -> bool:
    """Say whether `text` is a well-formed handle."""
    return _match_handle(text) is not None


def hash_secret(secret: str) -> bytes:
    """Return the SHA-256 of a well-formed secret: 32 bytes, what a store keeps instead of it.

    A slow or salted hash would add nothing: 192 random bits cannot be found by trying.
    """
    return hashlib.sha256(secret.encode("ascii")).digest()


def same_hash(a: bytes, b: bytes) -> bool:
    """Compare two hashes in a time that does not depend on where they differ."""
    return hmac.compare_digest(a, b)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
