"""A connection without I/O: pieces of bytes in, bytes out, the app as a generator.

Owns what stands between `RequestReader` and `Cycle` when there are no sockets, tasks and time: the
loop of `relay.py` and `exchange.py` in a few lines. It also reads what comes out, with h11's
client, and reads what goes in with h11's server, so that properties have somebody to agree with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import h11

from minisession.server.config import ServerConfig
from minisession.server.cycle import MAX_DISCARD, Cycle, State, error_response
from minisession.server.errors import AppProtocolError, ClientDisconnected, RequestRefused
from minisession.server.requests import Request, RequestReader
from minisession.server.scope import ASGIApp, Message, Receive, Scope, Send

DATE = b"Mon, 01 Jan 2024 00:00:00 GMT"

# Yields a message to send, or None to receive one.
Steps: TypeAlias = Generator[Message | None, Message | None, None]
App: TypeAlias = Callable[[], Steps]


class Seen(NamedTuple):
    """What reached an app that read the whole request."""

    method: bytes
    raw_path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass
class Outcome:
    """What became of a connection.

    Attributes:
        methods: those of the requests that were begun, in order.
        seen: the requests whose body was read to its end.
        written: all that went to the client.
        is_cut_off: whether the last response is incomplete, by intent.
        is_closed: whether the server closed first.
    """

    methods: list[bytes] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    written: bytes = b""
    is_cut_off: bool = False
    is_closed: bool = False


def echo() -> Steps:
    """Reads the whole body and answers with it."""
    body = b""
    more = True
    while more:
        message = yield None
        assert message is not None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    yield {"type": "http.response.start", "status": 200}
    yield {"type": "http.response.body", "body": body}


def as_asgi(app: App) -> ASGIApp:
    """The same app for a server with I/O."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        steps = app()
        answer: Message | None = None
        with contextlib.suppress(StopIteration):
            while True:
                if (message := steps.send(answer)) is None:
                    answer = await receive()
                else:
                    answer = None
                    await send(message)

    return run


def converse(pieces: Iterable[bytes], app: App, config: ServerConfig | None = None) -> Outcome:
    """Send these pieces one after the other, then the end, to a server with this app."""
    reader = RequestReader(config or ServerConfig(), "http")
    outcome = Outcome()
    serving = _answer(reader, app, outcome)
    for piece in (*filter(None, pieces), b""):
        reader.feed(piece)
        if next(serving, "over") == "over":
            break
    serving.close()
    return outcome


def _answer(reader: RequestReader, app: App, outcome: Outcome) -> Generator[None, None, None]:
    """Answer requests; yields whenever more bytes are needed."""
    try:
        while not outcome.is_closed:
            while (request := reader.next_request()) is None:
                if reader.is_at_eof:
                    return
                yield
            yield from _exchange(reader, request, app, outcome)
    except RequestRefused as refusal:
        outcome.written += error_response(refusal.status, DATE)
        outcome.is_closed = True


def _exchange(
    reader: RequestReader, request: Request, app: App, outcome: Outcome
) -> Generator[None, None, None]:
    cycle = Cycle(reader, request, lambda: DATE)
    outcome.methods.append(request.method)
    is_broken_off = False
    try:
        yield from _run(cycle, app(), outcome)
    except RequestRefused as refusal:
        if not cycle.is_over:
            outcome.written += cycle.refuse(refusal.status)
    except AppProtocolError:
        if not cycle.is_over:
            outcome.written += cycle.refuse(500)
    except ClientDisconnected:
        is_broken_off = True
    if not cycle.is_over:
        outcome.written += cycle.refuse(500)
    outcome.is_cut_off = is_broken_off or cycle.state is State.BROKEN
    if not (cycle.keeps_alive and (yield from _drop_body(reader))):
        outcome.is_closed = True


def _run(cycle: Cycle, steps: Steps, outcome: Outcome) -> Generator[None, None, None]:
    body = b""
    answer: Message | None = None
    while True:
        try:
            message = steps.send(answer)
        except StopIteration:
            return
        if message is not None:
            outcome.written += cycle.send(message)
            answer = None
            continue
        while (answer := cycle.receive_nowait()) is None:
            if cycle.wants_continue:
                outcome.written += cycle.send_continue()
            yield
        if answer["type"] == "http.request":
            body += answer["body"]
            if not answer["more_body"]:
                outcome.seen.append(_seen(cycle.request, body))


def _seen(request: Request, body: bytes) -> Seen:
    target = request.target
    return Seen(request.method, target.raw_path, target.query, tuple(request.headers), body)


def _drop_body(reader: RequestReader) -> Generator[None, None, bool]:
    dropped = 0
    try:
        while not reader.is_body_complete and dropped <= MAX_DISCARD:
            part = reader.next_part()
            if part is None:
                yield
            else:
                dropped += len(part.data)
    except RequestRefused:
        return False
    return reader.is_body_complete and dropped <= MAX_DISCARD


class Response(NamedTuple):
    """A final response as h11's client reads it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    is_complete: bool = True


def read_responses(written: bytes, methods: Sequence[bytes]) -> list[Response]:
    """Read responses with h11's client until the bytes end; the n-th answers the n-th method.

    Raises:
        h11.RemoteProtocolError: these bytes are no HTTP.
    """
    responses: list[Response] = []
    while written:
        method = methods[len(responses)] if len(responses) < len(methods) else b"GET"
        response, written = _read_response(written, method)
        responses.append(response)
    return responses


def _read_response(written: bytes, method: bytes) -> tuple[Response, bytes]:
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(written)
    client.receive_data(b"")
    head: h11.Response | None = None
    body = b""
    try:
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
    except h11.RemoteProtocolError:
        if head is None or client.trailing_data[0]:
            raise
        return Response(head.status_code, tuple(head.headers.raw_items()), body, False), b""
    assert head is not None
    whole = Response(head.status_code, tuple(head.headers.raw_items()), body)
    return whole, client.trailing_data[0]


class Reading(NamedTuple):
    """What h11's server has read, and whether it ended with a refusal."""

    seen: list[Seen]
    is_refused: bool


def read_requests(raw: bytes) -> Reading:
    """Read requests with h11's server, as lenient as it is, until their end or its refusal."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(raw)
    seen: list[Seen] = []
    try:
        while (request := _maybe_request(server)) is not None:
            seen.append(request)
            server.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
            server.send(h11.EndOfMessage())
            if server.our_state is not h11.DONE:
                break
            server.start_next_cycle()
    except h11.RemoteProtocolError:
        return Reading(seen, is_refused=True)
    return Reading(seen, is_refused=False)


def _maybe_request(server: h11.Connection) -> Seen | None:
    """The next request, None while it is incomplete."""
    request = server.next_event()
    if not isinstance(request, h11.Request):
        return None
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    if not isinstance(event, h11.EndOfMessage):
        return None
    path, _, query = request.target.partition(b"?")
    return Seen(request.method, path, query, tuple(request.headers), body)
