"""The request target: its four forms (RFC 9112 section 3.2), taken apart for the ASGI scope.

Knows methods and targets only; the authority that it finds is checked by `head.check_host`.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from .errors import RequestRefused
from .head import check_host

_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)([^?]*)(\?.*)?")


class Target(NamedTuple):
    """A checked target: `authority` is None unless the client sent the absolute form."""

    path: str
    raw_path: bytes
    query: bytes
    authority: bytes | None


def parse_target(method: bytes, target: bytes, scheme: str) -> Target:
    """Take a request target apart; the path is percent-decoded and never normalized.

    Raises:
        RequestRefused: 400 for a form that this method may not have, for a fragment, for a scheme
            other than http and the connection's (an https resource "MUST be rejected unless it has
            been received over a connection that has been secured", RFC 9110 section 7.4), and for
            a path that is not UTF-8 or holds NUL; 501 for CONNECT and TRACE, which this server
            does not implement.
    """
    if method in (b"CONNECT", b"TRACE"):
        raise RequestRefused(501, "CONNECT and TRACE are not implemented")
    if b"#" in target:
        raise RequestRefused(400, "fragment in the request target")
    if target[:1] == b"/":
        raw_path, _, query = target.partition(b"?")
        return Target(_decode(raw_path), raw_path, query, None)
    if target == b"*" and method == b"OPTIONS":
        return Target("*", b"*", b"", None)
    return _parse_absolute(method, target, scheme)


def _parse_absolute(method: bytes, target: bytes, scheme: str) -> Target:
    match = _ABSOLUTE.fullmatch(target)
    if match is None or match[1].lower() not in (b"http", scheme.encode()) or not match[2]:
        raise RequestRefused(400, "request target in a form that is not allowed here")
    check_host(match[2])
    query = (match[4] or b"")[1:]
    # RFC 9112 section 3.2.4: OPTIONS with neither path nor query means the server as a whole.
    empty = b"*" if method == b"OPTIONS" and match[4] is None else b"/"
    raw_path = match[3] or empty
    return Target(_decode(raw_path), raw_path, query, match[2])


def _decode(raw_path: bytes) -> str:
    if b"%" not in raw_path:
        return raw_path.decode("ascii")
    try:
        path = unquote_to_bytes(raw_path).decode("utf-8")
    except UnicodeDecodeError:
        raise RequestRefused(400, "path that is not UTF-8 when percent-decoded") from None
    if "\0" in path:
        raise RequestRefused(400, "NUL in the path")
    return path
