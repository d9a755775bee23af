"""`SessionMiddleware`: sessions for any ASGI 3 application, on any ASGI server.

It translates ASGI messages into the steps of an `Exchange`, and answers 503 where the store
fails. It binds a session on every http and websocket scope, also on excluded paths: some servers
leak context variables from one request to the next on a connection.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from minisession._context import bound
from minisession._exchange import Exchange, Headers
from minisession._manager import SessionManager
from minisession.abc import Store
from minisession.config import SessionConfig
from minisession.errors import ConfigError, StoreError, UsageError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI 3 application. Frameworks type scope and messages each in their own way."""

log = logging.getLogger("minisession")

_UNAVAILABLE = b"503 Service Unavailable: the session store cannot be reached. Please try again.\n"
_ERROR = b"500 Internal Server Error\n"
_ERROR_HEADERS: Headers = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"%d" % len(_ERROR)),
]


class SessionMiddleware:
    """Gives every request of an ASGI application its session.

        app = SessionMiddleware(app, store="sqlite:///sessions.db")
        app.add_middleware(SessionMiddleware, store="sqlite:///sessions.db")   # Starlette, FastAPI

    In the application use `from minisession import session`, or `request.session` where the
    framework has it. The response's headers leave only after the store has every write made so
    far; when the store fails the client gets a 503 and keeps its cookie.

    In the ASGI lifespan the store is opened and closed, and background tasks run. On servers
    without a lifespan, sessions work all the same.

    Args:
        app: an ASGI 3 application.
        store: a URL such as "sqlite:///sessions.db" or "memory://", a `Store`, or a
            `SessionManager` that other code uses too; that one brings its own configuration.
        config: the configuration; None for the defaults.
        clock: returns the time in seconds since the epoch. For tests.

    Raises:
        ConfigError: there is no such store, or a manager came with a second configuration.
    """

    def __init__(
        self,
        app: ASGIApp,
        store: Store | str | SessionManager,
        config: SessionConfig | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        if isinstance(store, SessionManager):
            if config is not None:
                raise ConfigError(
                    "a SessionManager has its configuration already; write"
                    " SessionMiddleware(app, store=SessionManager(store, config))"
                )
            self.manager = store
        else:
            self.manager = SessionManager(store, config, clock=clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one scope."""
        if scope["type"] == "http":
            await self._run(scope, receive, send, _HttpResponse)
        elif scope["type"] == "websocket":
            await self._run(scope, receive, send, _WebSocket)
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keep the manager running as long as the application.

        That the shutdown is complete is said last, when the store is closed: servers cut off what
        still runs then. An application that asks for more instead of returning must not wait for
        it, so there it is said first.
        """
        if self.manager.is_running:  # whoever entered it will leave it
            await self.app(scope, receive, send)
            return
        last_words: list[Message] = []

        async def hold_back(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                last_words.append(message)
            else:
                await send(message)

        async def receive_more() -> Message:
            while last_words:
                await send(last_words.pop())
            return await receive()

        try:
            await self.manager.__aenter__()
        except Exception as error:
            # Raised here it would read as "this application has no lifespan", and be ignored.
            log.exception("the session store cannot be opened")
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        try:
            await self.app(scope, receive_more, hold_back)
        finally:
            await self.manager.__aexit__(None, None, None)
            for message in last_words:
                await send(message)

    async def _run(
        self, scope: Scope, receive: Receive, send: Send, kind: type[_HttpResponse | _WebSocket]
    ) -> None:
        https = scope.get("scheme") in ("https", "wss")
        exchange = Exchange(self.manager, scope["headers"], scope["path"], https=https)
        scope["session"] = exchange.session
        connection = kind(exchange, scope, receive, send)
        try:
            await exchange.begin()
            with bound(exchange.session):
                await self.app(scope, connection.receive, connection.send)
        except Exception as error:
            if not await connection.answer_failure(error):
                raise
        except BaseException:
            await exchange.fail()
            raise
        else:
            await connection.end()


class _Connection(ABC):
    """What HTTP and WebSocket have in common: a response that starts once, or is replaced."""

    def __init__(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        self._exchange = exchange
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = False
        self._replaced = False

    async def _start(self, message: Message) -> None:
        """Pass a message with response headers on, after the store has every write so far."""
        if self._scope.get("session") is not self._exchange.session:
            raise UsageError(
                'scope["session"] was replaced by something else, probably by a second session'
                " middleware; remove it, or write into the session instead of assigning to it:"
                " request.session.update(values)"
            )
        try:
            headers = await self._exchange.start(
                message.get("headers", ()), message.get("status", 200)
            )
        except StoreError:
            log.exception("answering 503")
            await self._refuse()
            return
        self._started = True
        await self._send({**message, "headers": headers})

    async def answer_failure(self, error: Exception) -> bool:
        """After an exception: store or drop what was written, answer where nobody else can.

        Returns whether the exception has been answered and logged; if not, it is to be raised.
        """
        ledger = self._exchange.ledger
        try:
            if self._started or self._replaced:
                return False
            failure = ledger.load_failure or error
            if isinstance(failure, StoreError):
                log.error("answering 503: %s", failure, exc_info=error)
                await self._refuse()
                return error is failure
            if ledger.issued:
                await self._exchange.rescue()
                await self._answer_for_app()
            return False
        finally:
            await self._exchange.fail()

    async def end(self) -> None:
        """After the application has returned: store what is left, or has been refused already."""
        await (self._exchange.fail() if self._replaced else self._exchange.end())

    @abstractmethod
    async def _refuse(self) -> None:
        """Answer instead of the application, whose further messages are ignored."""

    @abstractmethod
    async def _answer_for_app(self) -> None:
        """Answer with a 500 that carries the cookie of an id that is stored already."""

    async def _respond(self, kind: str, status: int, body: bytes, headers: Headers) -> None:
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            *headers,
        ]
        self._started = True
        await self._send({"type": f"{kind}.start", "status": status, "headers": headers})
        await self._send({"type": f"{kind}.body", "body": body})


class _HttpResponse(_Connection):
    """One http scope: guards the start of the response and the last part of its body."""

    async def receive(self) -> Message:
        """Pass on what the client sends."""
        return await self._receive()

    async def send(self, message: Message) -> None:
        """Pass on a message of the application, once the store has what it acknowledges."""
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            await self._start(message)
            return
        if message.get("more_body", False):
            await self._exchange.keep_alive()
        elif self._exchange.unsaved:
            await self._exchange.hand_over()
        await self._send(message)

    async def _refuse(self) -> None:
        self._replaced = True
        await self._respond("http.response", 503, _UNAVAILABLE, [(b"retry-after", b"5")])

    async def _answer_for_app(self) -> None:
        """Send the 500 ourselves: nobody else can deliver the id that is stored already."""
        await self._start({"type": "http.response.start", "status": 500, "headers": _ERROR_HEADERS})
        await self.send({"type": "http.response.body", "body": _ERROR})


class _WebSocket(_Connection):
    """One websocket scope: the cookie travels with the answer to the handshake.

    A WebSocket has no end of a response, so changes are handed over, nested ones included, at
    every message in either direction.
    """

    async def receive(self) -> Message:
        """Store what was written, then pass on what the client sends."""
        await self._hand_over()
        return await self._receive()

    async def send(self, message: Message) -> None:
        """Store what was written, then pass on a message of the application."""
        if self._replaced:
            return
        if message["type"] in ("websocket.accept", "websocket.http.response.start"):
            await self._start(message)
            return
        await self._hand_over()
        if message["type"] == "websocket.close":
            self._started = True  # the handshake has its answer
        await self._send(message)

    async def _hand_over(self) -> None:
        if self._exchange.unsaved:
            await self._exchange.hand_over()
        await self._exchange.keep_alive()

    async def _refuse(self) -> None:
        self._replaced = True
        if "websocket.http.response" in (self._scope.get("extensions") or {}):
            await self._respond("websocket.http.response", 503, _UNAVAILABLE, [])
        else:
            await self._send({"type": "websocket.close", "code": 1011, "reason": "session store"})

    async def _answer_for_app(self) -> None:
        """Do nothing: without a handshake there is no answer that could carry an id."""
