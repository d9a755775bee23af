"""One request and its response, as ASGI messages: the sans-I/O heart of the server.

Owns the life of a response (the table below) and the translation between ASGI messages and the
bytes of HTTP/1.1. It refuses to know about sockets, tasks and time: `receive_nowait()` gives the
message that the received bytes allow, `send()` returns the bytes that must now be written.

    state      | event    | next       what happens
    -----------+----------+----------  ----------------------------------------------------
    WAITING    | START    | HELD       nothing is written: the app may still fail cleanly
    WAITING    | REFUSE   | REFUSED    the server answers in the app's place
    HELD       | MORE     | STREAMING  head and first piece
    HELD       | LAST     | COMPLETE   head and whole body, in one write
    HELD       | REFUSE   | REFUSED    the held head is dropped
    STREAMING  | MORE     | STREAMING
    STREAMING  | LAST     | COMPLETE
    STREAMING  | REFUSE   | BROKEN     nothing more can be said: the response is cut off
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NoReturn

from .errors import AppProtocolError, ClientDisconnected
from .fields import REASONS, Head, write_head
from .requests import Request, RequestReader

Message = MutableMapping[str, Any]

# What is left of a body that the app did not read is read and dropped up to this size; beyond,
# closing the connection is cheaper than reading on.
MAX_DISCARD = 64 * 1024


class State(enum.StrEnum):
    """How far a response is."""

    WAITING = "waiting for http.response.start"
    HELD = "waiting for the first http.response.body"
    STREAMING = "waiting for more http.response.body"
    COMPLETE = "complete"
    REFUSED = "answered by the server"
    BROKEN = "cut off"


class Event(enum.StrEnum):
    """What can happen to a response."""

    START = "http.response.start"
    MORE = "http.response.body with more_body"
    LAST = "http.response.body without more_body"
    REFUSE = "refuse"


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.WAITING: {Event.START: State.HELD, Event.REFUSE: State.REFUSED},
    State.HELD: {
        Event.MORE: State.STREAMING,
        Event.LAST: State.COMPLETE,
        Event.REFUSE: State.REFUSED,
    },
    State.STREAMING: {
        Event.MORE: State.STREAMING,
        Event.LAST: State.COMPLETE,
        Event.REFUSE: State.BROKEN,
    },
    State.COMPLETE: {},
    State.REFUSED: {},
    State.BROKEN: {},
}

DISCONNECT = "http.disconnect"

_BYTES = (bytes, bytearray, memoryview)


class Cycle:
    """Translates one request and its response.

    Mutable: `state`, `is_over`, `wants_continue`, the held head, how the body is framed (`_left`,
    the bytes that its Content-Length still promises, or `_is_chunked`, or neither: then only the
    end of the connection delimits it), whether the request's body was handed over, and whether the
    app was told that its client is gone.

    Attributes:
        is_over: whether the response has come to an end, good or bad.
        wants_continue: whether the client waits for a 100 before it sends the body
            (RFC 9110 section 10.1.1).

    Args:
        reader: the receiving half of the connection, which has just returned `request`.
        date: returns the value of the Date header.
    """

    __slots__ = (
        "_body_ended",
        "_closes_after",
        "_date",
        "_has_told_end",
        "_head",
        "_is_bodyless",
        "_is_chunked",
        "_left",
        "_reader",
        "is_over",
        "request",
        "state",
        "status",
        "wants_continue",
    )

    def __init__(self, reader: RequestReader, request: Request, date: Callable[[], bytes]) -> None:
        self.request = request
        self.state = State.WAITING
        self.is_over = False
        self.status = 0
        self.wants_continue = request.expects_continue and not reader.is_body_complete
        self._reader = reader
        self._date = date
        self._head: Head | None = None
        self._is_bodyless = self._is_chunked = False
        self._left: int | None = None
        self._body_ended = self._has_told_end = False
        self._closes_after = not request.persists

    def __repr__(self) -> str:
        return f"<Cycle {self.request.method!r} {self.state.name}>"

    @property
    def owes_body(self) -> bool:
        """Whether the app can still get body bytes that the client has not sent yet."""
        return not self._body_ended and not self.is_over

    @property
    def is_cut_off(self) -> bool:
        """Whether only the end of the connection tells the client that the response is broken."""
        return self.state is State.BROKEN and self.request.http_version == "1.0"

    @property
    def keeps_alive(self) -> bool:
        """Whether another request can follow once the rest of the body has been dropped."""
        is_worth_reading = self._reader.body_left <= MAX_DISCARD
        return self.state is State.COMPLETE and is_worth_reading and not self._closes_after

    def receive_nowait(self) -> Message | None:
        """Return the next message for the app, None while it depends on bytes still to come.

        After the body, only the end of the connection or of the response gives a message.

        Raises:
            RequestRefused: the body is not acceptable; see `refuse`.
        """
        if self.is_over:
            return {"type": DISCONNECT}
        if self._body_ended:
            if not self._reader.is_at_eof:
                return None
            self._has_told_end = True
            return {"type": DISCONNECT}
        part = self._reader.next_part()
        if part is None:
            return None
        self.wants_continue = False
        self._body_ended = not part.more
        return {"type": "http.request", "body": part.data, "more_body": part.more}

    def send_continue(self) -> bytes:
        """Return the bytes of `100 Continue`."""
        self.wants_continue = False
        return b"HTTP/1.1 100 Continue\r\n\r\n"

    def send(self, message: Message) -> bytes:
        """Take a message of the app; return the bytes to write, possibly none.

        Raises:
            AppProtocolError: the message is not allowed here; the state is as before.
            ClientDisconnected: the server has ended this response itself.
        """
        if self.state is State.REFUSED or self.state is State.BROKEN:
            raise ClientDisconnected("the response was ended by the server or the client")
        kind = message.get("type")
        if kind == "http.response.start":
            following = self._follow(Event.START)
            self._hold(message)
            self.state = following
            return b""
        if kind != "http.response.body":
            raise AppProtocolError(f"{kind!r} came; allowed is {self.state.value!r}")
        is_last = not message.get("more_body", False)
        following = self._follow(Event.LAST if is_last else Event.MORE)
        data = self._write(message.get("body", b""), is_last)
        self.state = following
        self.is_over = is_last
        return data

    def refuse(self, status: int) -> bytes:
        """End the response in the app's place; return the bytes to write.

        Before anything is on the wire that is an answer of its own without details; afterwards
        nothing, and the client sees a response that is cut off. The connection must be closed.
        """
        self.state = self._follow(Event.REFUSE)
        self.is_over = True
        self.status = self.status if self.state is State.BROKEN else status
        if self.state is State.BROKEN:
            return b""
        return error_response(status, self._date(), has_body=self.request.method != b"HEAD")

    def _is_certainly_whole(self, last: int) -> bool:
        """Whether the app's own Content-Length says that so many more bytes complete its body."""
        left = self._head.length if self.state is State.HELD and self._head else self._left
        return self._is_bodyless or left == last

    def _break_off(self) -> NoReturn:
        """Let a response not look complete whose app was told that the client is gone.

        It may have stopped in the middle, as frameworks do, and a client that has only closed its
        sending half still reads.
        """
        self.state = self._follow(Event.REFUSE)
        self.is_over = True
        self.status = self.status if self.state is State.BROKEN else 0
        raise ClientDisconnected("the client has closed its half of the connection")

    def close_after(self) -> None:
        """Make this response the last one of the connection, and say so if it still can."""
        self._closes_after = True

    def _follow(self, event: Event) -> State:
        following = TRANSITIONS[self.state].get(event)
        if following is None:
            raise AppProtocolError(
                f"{event.value!r} came while the response was: {self.state.value}"
            )
        return following

    def _hold(self, message: Message) -> None:
        status = message.get("status")
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise AppProtocolError(f"status {status!r} in http.response.start: allowed is 200-999")
        try:
            self._head = write_head(status, message.get("headers", ()))
        except (TypeError, ValueError, AttributeError):
            # Without the header that is to blame: it may be a cookie.
            raise AppProtocolError(
                "a header in http.response.start is not a pair of bytes that HTTP allows; right is"
                " (b'content-type', b'text/plain'), without CR, LF, NUL or outer spaces"
            ) from None
        self._is_bodyless = self.request.method == b"HEAD" or status in (204, 205, 304)
        self.status = status

    def _write(self, body: Any, is_last: bool) -> bytes:
        if not isinstance(body, _BYTES):
            raise AppProtocolError(f"body of type {type(body).__name__}: allowed are bytes")
        if is_last and self._has_told_end and not self._is_certainly_whole(len(body)):
            self._break_off()
        content = b"" if self._is_bodyless else bytes(body)
        pieces = self._begin(content, is_last) if self.state is State.HELD else []
        pieces += self._frame(content, is_last)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _begin(self, content: bytes, is_last: bool) -> list[bytes]:
        """The head, with the framing that is known now: RFC 9112 section 6.3."""
        head = self._head
        assert head is not None  # noqa: S101 - which a response that is HELD has
        pieces = [head.lines]
        if not head.has_date:
            pieces.append(b"date: %b\r\n" % self._date())
        self._left = head.length
        if self._is_bodyless:
            if self.status == 205:  # which RFC 9112 section 6.3 has clients read a body for
                pieces.append(b"content-length: 0\r\n")
        elif head.length is None:
            pieces += self._choose_framing(len(content) if is_last else None)
        # Without a 100 nobody knows whether the client will send the body or not.
        if head.closes or self.wants_continue or self._reader.body_left > MAX_DISCARD:
            self._closes_after = True
        self.wants_continue = False  # from here on, a 100 would stand in the middle of a response
        pieces.append(b"connection: close\r\n\r\n" if self._closes_after else b"\r\n")
        return pieces

    def _choose_framing(self, size: int | None) -> list[bytes]:
        """The line that frames a body of this size, or of one that nobody knows yet."""
        if size is not None:
            self._left = size
            return [b"content-length: %d\r\n" % size]
        if self.request.http_version == "1.0":
            self._closes_after = True
            return []
        self._is_chunked = True
        return [b"transfer-encoding: chunked\r\n"]

    def _frame(self, content: bytes, is_last: bool) -> list[bytes]:
        if self._is_chunked:
            pieces = [b"%x\r\n" % len(content), content, b"\r\n"] if content else []
            return [*pieces, b"0\r\n\r\n"] if is_last else pieces
        if self._left is not None and not self._is_bodyless:
            left = self._left - len(content)
            if left < 0 or (is_last and left > 0):
                problem = "longer" if left < 0 else "shorter"
                raise AppProtocolError(f"the body does not fit its content-length: it is {problem}")
            self._left = left
        return [content] if content else []


def error_response(status: int, date: bytes, *, has_body: bool = True) -> bytes:
    """Return a whole response of the server's own: the status in words, no details, and close."""
    phrase = REASONS[status]
    body = phrase + b"\n"
    head = (
        b"HTTP/1.1 %d %b\r\ndate: %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n"
        b"connection: close\r\n\r\n" % (status, phrase, date, len(body))
    )
    return head + body if has_body else head
