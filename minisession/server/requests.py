"""From bytes to requests: the receiving half of one connection, without I/O.

Owns the bytes that were received and not yet understood, and what is known of the current body.
h11 parses the heads, after our strict checks (`head.py`); bodies are cut out here, with
`chunked.py`. It refuses to know about ASGI, sockets and time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import h11

from .chunked import ChunkedDecoder
from .config import ServerConfig
from .errors import RequestRefused
from .head import check_framing, check_host, check_lines, find_head_end
from .target import Target, parse_target

# h11 gets complete heads only, so its own limit has nothing to limit.
_NO_LIMIT = 1 << 62

# RFC 9112 section 2.2: at least one empty line before a request line SHOULD be ignored.
_MAX_EMPTY_LINES = 4


class Request(NamedTuple):
    """A checked request head; header names are lower-cased, in the order received."""

    method: bytes
    target: Target
    http_version: str
    headers: list[tuple[bytes, bytes]]
    persists: bool = True
    """Whether the client wants the connection to go on (RFC 9112 section 9.3)."""
    expects_continue: bool = False
    """Whether it waits for a 100 before it sends its body (RFC 9110 section 10.1.1)."""


class BodyPart(NamedTuple):
    """What has come of a body since the last part, and whether more will."""

    data: bytes
    more: bool


# Bytes of a chunked body's framing only, or none at all.
_NOTHING_YET = BodyPart(b"", more=True)

# The fields that mean something to a server. RFC 9110 section 5.2: several are joined by commas.
_NOTED = frozenset([b"connection", b"content-length", b"expect", b"host", b"transfer-encoding"])


class RequestReader:
    """Cuts one connection's bytes into requests.

    Mutable: `_buffer` (received, not understood), `_seen` (the length of its prefix that is known
    not to hold the end of a head), `body_left` (bytes of the current body still to be read; 0 as
    well if nobody can know), `is_body_complete` (the current request has been received wholly, or
    there is none yet) and `is_at_eof`.
    """

    __slots__ = (
        "_buffer",
        "_chunks",
        "_config",
        "_empty_lines",
        "_scheme",
        "_seen",
        "body_left",
        "is_at_eof",
        "is_body_complete",
    )

    def __init__(self, config: ServerConfig, scheme: str) -> None:
        self.is_at_eof = False
        self.is_body_complete = True
        self._config = config
        self._scheme = scheme
        self._buffer = bytearray()
        self._seen = 0
        self._empty_lines = 0
        self._chunks: ChunkedDecoder | None = None
        self.body_left = 0

    def __repr__(self) -> str:
        awaited = "request" if self.is_body_complete else "body"
        return f"<RequestReader in a {awaited}, {len(self._buffer)} bytes buffered>"

    @property
    def buffered(self) -> int:
        """Bytes received and not understood yet."""
        return len(self._buffer)

    @property
    def is_at_head_request(self) -> bool:
        """Whether what is buffered begins, as far as it goes, like a HEAD request."""
        return self._buffer.startswith(b"HEAD ")

    def feed(self, data: bytes) -> None:
        """Add what was received; no bytes mean that the client will send no more."""
        if data:
            self._buffer += data
        else:
            self.is_at_eof = True

    def drop_buffer(self) -> None:
        """Forget what is buffered: nobody will read this connection's requests any more."""
        self._buffer.clear()

    def next_request(self) -> Request | None:
        """Return the next request when its head is complete, None while it needs more bytes.

        Raises:
            RequestRefused: with the status of the answer; the connection is of no more use then,
                and what was refused is still in the buffer: see `is_at_head_request`.
        """
        head = self._maybe_head()
        if head is None:
            return None
        check_lines(head)
        check_framing(head)
        event = _parse(head)
        if not event.http_version.startswith(b"1."):
            raise RequestRefused(505, "HTTP version other than 1.x")
        target = parse_target(event.method, event.target, self._scheme)
        headers = [(name.lower(), value) for name, value in event.headers.raw_items()]
        noted: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in _NOTED:
                noted[name] = noted[name] + b"," + value if name in noted else value
        is_old = event.http_version == b"1.0"
        if b"host" in noted:
            check_host(noted[b"host"])
        elif not is_old:  # h11 asks for it in 1.1 only, and higher minor versions are read as that
            raise RequestRefused(400, "no Host")
        if target.authority is not None:  # RFC 9112 section 3.2.2: it replaces the Host field
            headers = [field for field in headers if field[0] != b"host"]
            headers.append((b"host", target.authority))
        self._expect_body(noted)
        del self._buffer[: len(head)]
        persists = expects_continue = False
        if not is_old:
            persists = not (b"connection" in noted and _lists(noted[b"connection"], b"close"))
            expects_continue = b"expect" in noted and _lists(noted[b"expect"], b"100-continue")
        version = "1.0" if is_old else "1.1"
        return Request(event.method, target, version, headers, persists, expects_continue)

    def _expect_body(self, noted: Mapping[bytes, bytes]) -> None:
        limit = self._config.max_body
        self._chunks = ChunkedDecoder(limit) if b"transfer-encoding" in noted else None
        self.body_left = int(noted.get(b"content-length", 0))
        if self.body_left > limit:
            raise RequestRefused(413, f"body longer than {limit} bytes")
        self.is_body_complete = self._chunks is None and not self.body_left

    def _maybe_head(self) -> bytes | None:
        while self._buffer.startswith(b"\r\n"):
            self._empty_lines += 1
            if self._empty_lines > _MAX_EMPTY_LINES:
                raise RequestRefused(400, "empty lines instead of a request")
            del self._buffer[:2]
            self._seen = 0
        if not self._buffer:
            return None
        config = self._config
        end = find_head_end(self._buffer, self._seen, config.max_request_line, config.max_head)
        if not end:
            self._seen = len(self._buffer)
            return None
        self._seen = self._empty_lines = 0
        return bytes(self._buffer if end == len(self._buffer) else self._buffer[:end])

    def _take(self, size: int) -> bytes:
        """Remove up to so many bytes from the front of the buffer."""
        if size >= len(self._buffer):
            taken = bytes(self._buffer)
            self._buffer.clear()
        else:
            taken = bytes(self._buffer[:size])
            del self._buffer[:size]
        return taken

    def next_part(self) -> BodyPart | None:
        """Return what there is of the current request's body, None while it needs more bytes.

        The last part says `more=False`, and may be empty. Call it no more after that.

        Raises:
            RequestRefused: 400 for a malformed or incomplete body, 413 for one that is too long.
        """
        if self.is_body_complete:
            return BodyPart(b"", more=False)
        part = self._take_body() if self._buffer else _NOTHING_YET
        if part.data or not part.more:
            self.is_body_complete = not part.more
            return part
        if self.is_at_eof:
            raise RequestRefused(400, "connection closed in the middle of a body")
        return None

    def _take_body(self) -> BodyPart:
        if self._chunks is not None:
            data = self._chunks.decode(self._buffer)
            return BodyPart(data, more=not self._chunks.is_complete)
        data = self._take(self.body_left)
        self.body_left -= len(data)
        return BodyPart(data, more=self.body_left > 0)


def _parse(head: bytes) -> h11.Request:
    # A connection of h11 goes on to the next request only if it has written the response, too.
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_NO_LIMIT)
    parser.receive_data(head)
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError:
        # h11's message quotes the line, which may be a cookie.
        raise RequestRefused(400, "invalid request line, header field or body") from None
    assert isinstance(event, h11.Request), "a complete head is that or an error"  # noqa: S101
    return event


def _lists(value: bytes, option: bytes) -> bool:
    """Whether a comma-separated list of options holds this one, in any case."""
    return option in (each.strip() for each in value.lower().split(b","))
