"""What the server's tests share: small apps, a server on a real port, and a raw client.

Nothing here parses HTTP for the tests: they send bytes and compare bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import ByteStream

from minisession.server.config import ServerConfig
from minisession.server.main import serve

OK_HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-length", b"2"), (b"date", b"now")],
}
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ndate: now\r\n\r\nok"


async def read_body(receive: Any) -> bytes | None:
    """The whole body, None if the client went before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


async def reply(send: Any, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", str(len(body)).encode()), (b"date", b"now")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def http_app(handler: Callable[..., Any]) -> Any:
    """An app of which only the http part matters."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await handler(scope, receive, send)

    return app


@http_app
async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = await read_body(receive)
    if body is not None:
        await reply(send, scope["raw_path"] + b" " + body)


@asynccontextmanager
async def serving(app: Any, **config: Any) -> AsyncIterator[tuple[str, int]]:
    """A server on a free port; cancelled in the end."""
    async with anyio.create_task_group() as tasks:
        addresses = await tasks.start(serve, app, ServerConfig(port=0, **config))
        yield addresses[0]
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def client_of(app: Any, **config: Any) -> AsyncIterator[Client]:
    """A server, and one connection to it; five seconds must do for any test."""
    with anyio.fail_after(5):
        async with serving(app, **config) as address, await connect(address) as client:
            yield client


async def connect(address: tuple[str, int]) -> Client:
    return Client(await anyio.connect_tcp(*address))


class Client:
    """A raw connection."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stream.aclose()

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            await self.stream.send(piece)

    async def read(self, size: int) -> bytes:
        """Exactly that many bytes."""
        received = b""
        while len(received) < size:
            received += await self.stream.receive(size - len(received))
        return received

    async def read_until(self, end: bytes) -> bytes:
        """Everything up to this end, byte by byte so that nothing more is taken."""
        received = b""
        while not received.endswith(end):
            received += await self.stream.receive(1)
        return received

    async def read_all(self) -> bytes:
        """Everything until the server closes."""
        received = b""
        try:
            while True:
                received += await self.stream.receive()
        except anyio.EndOfStream:
            return received


def get(path: str = "/", *headers: str) -> bytes:
    return request("GET", path, *headers)


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: a", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    """What `reply` makes on the wire."""
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\ndate: now\r\n\r\n%b" % (status, len(body), body)


def ways_to_arrive(data: bytes) -> Iterator[Sequence[bytes]]:
    """Whole, byte by byte, and in two pieces, cut at every line end."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for i in range(1, len(data)):
        if data[i - 1 : i] in (b"\r", b"\n"):
            yield [data[:i], data[i:]]


async def old_cancellation() -> BaseException:
    """A cancellation of a scope that is no more."""
    found: list[BaseException] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class() as error:
            found.append(error)
            raise
    return found[0]


async def cancellation_in_a_group() -> BaseException:
    return BaseExceptionGroup("several", [await old_cancellation()])


async def generator_exit() -> BaseException:
    return GeneratorExit()


# Each makes an exception that is no `Exception`, and no business of a server.
NO_ERRORS = [old_cancellation, cancellation_in_a_group, generator_exit]
