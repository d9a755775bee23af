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
from http import HTTPStatus
from typing import Any, cast

import h11

from .errors import AppProtocolError, ClientDisconnected
from .requests import Request, RequestReader

Message = MutableMapping[str, Any]

# What is left of a body that the app did not read is read and dropped up to this size; beyond,
# closing the connection is cheaper than reading on.
MAX_DISCARD = 64 * 1024

REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


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


class Cycle:
    """Translates one request and its response.

    Mutable: `state`, the held head, whether the body was handed over and whether it failed.

    Args:
        reader: the receiving half of the connection, which has just returned `request`.
        date: returns the value of the Date header.
    """

    def __init__(self, reader: RequestReader, request: Request, date: Callable[[], bytes]) -> None:
        self.request = request
        self.state = State.WAITING
        self.status = 0
        self._reader = reader
        self._http = reader.http
        self._date = date
        self._head: h11.Response | None = None
        self._has_length = self._has_date = False
        self._is_bodyless = False
        self._body_ended = False
        self._must_close = False

    def __repr__(self) -> str:
        return f"<Cycle {self.request.method!r} {self.state.name}>"

    @property
    def is_over(self) -> bool:
        """Whether the response has come to an end, good or bad."""
        return not TRANSITIONS[self.state]

    @property
    def owes_body(self) -> bool:
        """Whether the app can still get body bytes that the client has not sent yet."""
        return not self._body_ended and not self.is_over

    @property
    def is_cut_off(self) -> bool:
        """Whether only the end of the connection tells the client that the response is broken."""
        return self.state is State.BROKEN and self.request.http_version == "1.0"

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends the body (RFC 9110 10.1.1)."""
        return self._http.they_are_waiting_for_100_continue

    @property
    def keeps_alive(self) -> bool:
        """Whether another request can follow once the rest of the body has been dropped."""
        if self.state is not State.COMPLETE or self._http.our_state is not h11.DONE:
            return False
        left = self._reader.body_left
        return self._reader.is_body_complete or left is None or left <= MAX_DISCARD

    def receive_nowait(self) -> Message | None:
        """Return the next message for the app, None while it depends on bytes still to come.

        After the body, only the end of the connection or of the response gives a message.

        Raises:
            RequestRefused: the body is not acceptable; see `refuse`.
        """
        if self.is_over:
            return {"type": DISCONNECT}
        if self._body_ended:
            return {"type": DISCONNECT} if self._reader.is_at_eof else None
        part = self._reader.next_part()
        if part is None:
            return None
        self._body_ended = not part.more
        return {"type": "http.request", "body": part.data, "more_body": part.more}

    def send_continue(self) -> bytes:
        """Return the bytes of `100 Continue`."""
        return self._http.send(h11.InformationalResponse(status_code=100, headers=[]))

    def send(self, message: Message) -> bytes:
        """Take a message of the app; return the bytes to write, possibly none.

        Raises:
            AppProtocolError: the message is not allowed here; the state is as before.
            ClientDisconnected: the server has ended this response itself.
        """
        if self.state is State.REFUSED or self.state is State.BROKEN:
            raise ClientDisconnected("the response was ended by the server or the client")
        kind = message["type"]
        if kind == "http.response.start":
            following = self._follow(Event.START)
            self._hold(message)
            self.state = following
            return b""
        if kind != "http.response.body":
            raise AppProtocolError(f"{kind!r} came; allowed is {self.state.value!r}")
        is_last = not message.get("more_body", False)
        following = self._follow(Event.LAST if is_last else Event.MORE)
        data = self._write_body(message.get("body", b""), is_last)
        self.state = following
        return data

    def refuse(self, status: int) -> bytes:
        """End the response in the app's place; return the bytes to write.

        Before anything is on the wire that is an answer of its own without details; afterwards
        nothing, and the client sees a response that is cut off. The connection must be closed.
        """
        self.state = self._follow(Event.REFUSE)
        self.status = self.status if self.state is State.BROKEN else status
        if self.state is State.BROKEN:
            return b""
        return error_response(status, self._date(), has_body=self.request.method != b"HEAD")

    def close_after(self) -> None:
        """Make this response the last one of the connection, and say so if it still can."""
        self._must_close = True

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
        self._is_bodyless = self.request.method == b"HEAD" or status in (204, 304)
        try:
            headers = self._response_headers(message.get("headers", ()), status)
            self._head = _response(status, headers)
        except (h11.LocalProtocolError, TypeError, ValueError):
            # h11's message quotes the header, which may be a cookie.
            raise AppProtocolError(
                "a header in http.response.start is not a pair of bytes that HTTP allows; right is"
                " (b'content-type', b'text/plain'), without CR, LF, NUL or outer spaces"
            ) from None
        self.status = status

    def _response_headers(self, given: Any, status: int) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = []
        self._has_length = self._has_date = False
        for name, value in given:
            if not (isinstance(name, bytes) and isinstance(value, bytes)):
                raise TypeError  # h11 would take text as well
            lower = name.lower()
            if lower == b"transfer-encoding":
                continue  # framing is the server's (ASGI HTTP spec, Response Start)
            if lower == b"content-length":
                if status == 204:
                    continue  # RFC 9110 section 8.6: MUST NOT be sent with 204
                self._has_length = True
            elif lower == b"date":
                self._has_date = True
            headers.append((name, value))
        return headers

    def _write_body(self, body: Any, is_last: bool) -> bytes:
        if not isinstance(body, bytes | bytearray | memoryview):
            raise AppProtocolError(f"body of type {type(body).__name__}: allowed are bytes")
        body = b"" if self._is_bodyless else bytes(body)
        try:
            pieces = self._write_head(body, is_last) if self.state is State.HELD else []
            if body:
                pieces += self._http.send_with_data_passthrough(h11.Data(data=body)) or []
            if is_last:
                pieces += self._http.send_with_data_passthrough(h11.EndOfMessage()) or []
        except h11.LocalProtocolError as error:
            raise AppProtocolError(f"http.response.body does not fit its head: {error}") from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _write_head(self, body: bytes, is_last: bool) -> list[bytes]:
        """The head, with the length if this is the whole body, because then it is known."""
        head = cast(h11.Response, self._head)  # which a response that is HELD has
        extra: list[tuple[bytes, bytes]] = []
        if is_last and not self._has_length and not self._is_bodyless:
            extra.append((b"content-length", b"%d" % len(body)))
        if self._closes():
            extra.append((b"connection", b"close"))
        if extra:
            head = _response(head.status_code, [*head.headers.raw_items(), *extra])
        written = self._http.send(head)
        if self._has_date:
            return [written]
        # Put in here because a date that we made ourselves needs none of h11's checks.
        return [written[:-2], b"date: %b\r\n\r\n" % self._date()]

    def _closes(self) -> bool:
        """Whether the connection has to end with this response, so that its head should say so."""
        # Without a 100 nobody knows whether the client will send the body or not.
        if self._must_close or self.wants_continue:
            return True
        if self._reader.is_body_complete:
            return False
        left = self._reader.body_left
        return left is not None and left > MAX_DISCARD


def _response(status: int, headers: list[tuple[bytes, bytes]]) -> h11.Response:
    return h11.Response(status_code=status, headers=headers, reason=REASONS.get(status, b""))


def error_response(status: int, date: bytes, *, has_body: bool = True) -> bytes:
    """Return a whole response of the server's own: the status in words, no details, and close."""
    phrase = REASONS[status]
    body = phrase + b"\n"
    head = (
        b"HTTP/1.1 %d %b\r\ndate: %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n"
        b"connection: close\r\n\r\n" % (status, phrase, date, len(body))
    )
    return head + body if has_body else head
