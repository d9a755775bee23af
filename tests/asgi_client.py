"""An ASGI client without a network: the server's half of the protocol, message by message.

It owns what a server owns (scope, receive, send) and what a browser owns (its cookie). Nothing is
buffered, translated or repaired on the way, so that a test sees exactly what the middleware sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "__Host-MINISESSID"


@dataclass
class Answer:
    """What the server would have sent: the messages of one response."""

    messages: list[Message] = field(default_factory=list)

    @property
    def started(self) -> bool:
        return bool(self.messages)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def is_complete(self) -> bool:
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)

    def values(self, name: bytes) -> list[str]:
        """Return the values of a header field, in order."""
        headers = self.messages[0].get("headers", ()) if self.messages else ()
        return [value.decode("latin-1") for key, value in headers if key.lower() == name]

    @property
    def cookies(self) -> list[str]:
        return self.values(b"set-cookie")


def http_scope(path: str = "/", cookie: str | None = None, scheme: str = "https") -> Scope:
    """Return the scope of a GET; `cookie` is the whole Cookie field."""
    headers = [] if cookie is None else [(b"cookie", cookie.encode("latin-1"))]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "server": ("example.com", 443),
        "client": ("192.0.2.1", 1),
    }


async def ask(
    app: ASGIApp,
    path: str = "/",
    *,
    cookie: str | None = None,
    scheme: str = "https",
    into: Answer | None = None,
) -> Answer:
    """Send one request and return the answer; what the app raises is raised here.

    With `into` the messages can be seen while, or although, the request does not end.
    """
    answer = Answer() if into is None else into
    is_over = anyio.Event()
    pending: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if pending:
            return pending.pop()
        await is_over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        answer.messages.append(message)
        if answer.is_complete:
            is_over.set()

    await app(http_scope(path, cookie, scheme), receive, send)
    return answer


class Browser:
    """Keeps the session's cookie from one answer to the next request, as over https."""

    def __init__(self, app: ASGIApp, name: str = COOKIE, scheme: str = "https") -> None:
        self.app = app
        self.name = name
        self.scheme = scheme
        self.id: str | None = None

    @property
    def cookie(self) -> str | None:
        return None if self.id is None else f"{self.name}={self.id}"

    async def get(self, path: str = "/", *, into: Answer | None = None) -> Answer:
        answer = await ask(self.app, path, cookie=self.cookie, scheme=self.scheme, into=into)
        self.keep(answer)
        return answer

    def keep(self, answer: Answer) -> None:
        """Take over the cookie that an answer sets, or drop the one that it deletes."""
        for line in answer.cookies:
            name, _, value = line.partition(";")[0].partition("=")
            if name == self.name:
                self.id = value or None


async def respond(
    send: Send, body: bytes = b"ok", status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send a whole response, as an application does."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


def routed(**handlers: Handler) -> ASGIApp:
    """Return an app that gives "/name" to the handler of that name; its lifespan does nothing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await obey_lifespan(receive, send)
            return
        await handlers[scope["path"].strip("/") or "root"](scope, receive, send)

    return app


async def obey_lifespan(receive: Receive, send: Send) -> None:
    """Say yes to startup and shutdown."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[None]:
    """Keep an app between startup and shutdown, as a server does."""
    to_app, inbox = anyio.create_memory_object_stream[Message](1)
    outbox, from_app = anyio.create_memory_object_stream[Message](1)
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}

    async def live() -> None:
        async with outbox:  # nobody waits for more from an app that has failed
            await app(scope, inbox.receive, outbox.send)

    async with to_app, inbox, outbox, from_app, anyio.create_task_group() as tasks:
        tasks.start_soon(live)
        await to_app.send({"type": "lifespan.startup"})
        assert (await from_app.receive())["type"] == "lifespan.startup.complete"
        yield
        with anyio.CancelScope(shield=True):
            await to_app.send({"type": "lifespan.shutdown"})
            assert (await from_app.receive())["type"] == "lifespan.shutdown.complete"


async def converse(
    app: ASGIApp,
    texts: Iterable[str] = (),
    *,
    cookie: str | None = None,
    path: str = "/",
    extensions: dict[str, Any] | None = None,
    into: Answer | None = None,
) -> list[Message]:
    """Open a WebSocket, send texts, hang up; return everything that the app sent.

    With `into` that can be seen while, or although, the conversation does not end.
    """
    scope = {**http_scope(path, cookie, "wss"), "type": "websocket", "subprotocols": []}
    del scope["method"]
    if extensions is not None:
        scope["extensions"] = extensions
    inbound: list[Message] = [{"type": "websocket.connect"}]
    inbound += [{"type": "websocket.receive", "text": text} for text in texts]
    inbound += [{"type": "websocket.disconnect", "code": 1000}]
    sent = [] if into is None else into.messages

    async def receive() -> Message:
        await anyio.lowlevel.checkpoint()
        return inbound.pop(0)

    async def send(message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        sent.append(message)

    await app(scope, receive, send)
    return sent
