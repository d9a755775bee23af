"""Pages that do everything that a request can do to a session, with the states they go through.

`Visit` is one request to one of them. What the client has been told is certain: a response that
has started acknowledges what was written before it, a complete one what was written in its body.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import anyio

from minisession import Session, SessionMiddleware, session
from minisession.abc import Store
from minisession.errors import StoreError
from tests.asgi_client import (
    Answer,
    ASGIApp,
    Browser,
    Handler,
    Message,
    Receive,
    Scope,
    Send,
    obey_lifespan,
    respond,
)
from tests.cancellation.operations import n_is
from tests.cancellation.trial import BEFORE, Trial, World

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b""}


def piece(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}


@dataclass(frozen=True)
class Page:
    """What a request does.

    Attributes:
        handler: the application.
        worlds: the states of the session, in order: what the old cookie opens, what the new one.
        started: the state that is certain once the response has started.
        complete: the state that is certain once it is complete.
        is_known: whether the browser has a session already.
        has_siblings: whether it waits for other tasks of its own.
    """

    handler: Handler
    worlds: Sequence[World]
    started: int = 0
    complete: int = 0
    is_known: bool = True
    has_siblings: bool = False

    def certain(self, answer: Answer) -> int:
        """Return the state that is certain after this much of an answer."""
        if not answer.started or answer.status != 200:
            return 0
        return self.complete if answer.is_complete else self.started

    def __str__(self) -> str:
        return str(getattr(self.handler, "__name__", self.handler))


async def shows_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await respond(send)


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    assert session["n"] == 0
    await receive()
    await respond(send)


async def writes(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = 1
    await receive()
    await respond(send)


async def counts(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await session.update("n", lambda n: n + 1)
    await respond(send)


async def looks_again(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = 1
    await session.refresh()
    await receive()
    await respond(send)


async def logs_in(scope: Scope, receive: Receive, send: Send) -> None:
    session.regenerate()
    session["n"] = 1
    await receive()
    await respond(send)


async def logs_in_and_saves(scope: Scope, receive: Receive, send: Send) -> None:
    session.regenerate()
    session["n"] = 1
    await session.save()
    await receive()
    await respond(send)


async def logs_out(scope: Scope, receive: Receive, send: Send) -> None:
    session.destroy()
    await receive()
    await respond(send)


async def logs_out_with_a_flash_message(scope: Scope, receive: Receive, send: Send) -> None:
    session.destroy()
    session["flash"] = "Bye"
    await receive()
    await respond(send)


async def welcomes(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    session["n"] = 1
    await respond(send)


async def streams(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    session["n"] = 1
    await send(piece(b"x"))
    session["n"] = 2
    await send(piece(b"y"))
    await send(LAST)


async def streams_from_a_generator(scope: Scope, receive: Receive, send: Send) -> None:
    async def body() -> AsyncGenerator[bytes, None]:
        session["n"] = 1
        try:
            yield b"x"
            yield b"y"
        finally:
            session["n"] = 2

    await send(START)
    async with aclosing(body()) as pieces:
        async for each in pieces:
            await send(piece(each))
    await send(LAST)


async def streams_until_the_client_goes(scope: Scope, receive: Receive, send: Send) -> None:
    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        tasks.cancel_scope.cancel()

    session["n"] = 1
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await send(START)
        await send(piece(b"x"))
        session["n"] = 2
        await send(LAST)
        tasks.cancel_scope.cancel()


async def works_in_the_background(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = 1
    await respond(send)
    session["n"] = 2
    await receive()
    session["n"] = 3


PAGES = [
    Page(shows_nothing, n_is(0)),
    Page(reads, n_is(0)),
    Page(writes, n_is(0, 1), started=1, complete=1),
    Page(counts, n_is(0, 1), started=1, complete=1),
    Page(looks_again, n_is(0, 1), started=1, complete=1),
    Page(logs_in, [(BEFORE, None), (None, {**BEFORE, "n": 1})], started=1, complete=1),
    Page(logs_in_and_saves, [(BEFORE, None), (None, {**BEFORE, "n": 1})], started=1, complete=1),
    Page(logs_out, [(BEFORE, None), (None, None)], started=1, complete=1),
    Page(
        logs_out_with_a_flash_message,
        [(BEFORE, None), (None, None), (None, {"flash": "Bye"})],
        started=2,
        complete=2,
    ),
    Page(welcomes, [(None, None), (None, {"n": 1})], started=1, complete=1, is_known=False),
    Page(streams, n_is(0, 1, 2), started=0, complete=2),
    Page(streams_from_a_generator, n_is(0, 1, 2), started=0, complete=2),
    Page(streams_until_the_client_goes, n_is(0, 1, 2), started=1, complete=2, has_siblings=True),
    Page(works_in_the_background, n_is(0, 1, 2, 3), started=1, complete=1),
]


class Site:
    """One page behind the middleware; it keeps the session objects that the page has seen.

    Attributes:
        way_in: what the client talks to; something may be put before the middleware.
    """

    def __init__(self, page: Page, store: Store) -> None:
        self.page = page
        self.kept: list[Session] = []
        self.middleware = SessionMiddleware(self.app, store)
        self.way_in: ASGIApp = self.middleware

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await obey_lifespan(receive, send)
        elif scope["path"] == "/begin":
            session.update(BEFORE)
            await respond(send)
        else:
            self.kept.append(scope["session"])
            await self.page.handler(scope, receive, send)


@dataclass
class Visit:
    """One request to the page, which may come to a bad end.

    Attributes:
        trial: looks at what is stored afterwards.
        answer: what the client got.
    """

    site: Site
    trial: Trial
    browser: Browser = field(init=False)
    answer: Answer = field(default_factory=Answer)

    async def begin(self) -> None:
        """Give the browser a session, if the page wants one."""
        self.answer = Answer()
        self.browser = Browser(self.site.way_in)
        self.trial.start_over()
        self.trial.id = ""
        if self.site.page.is_known:
            await self._start_a_session()
        self.site.kept.clear()

    async def _start_a_session(self) -> None:
        await self.browser.get("/begin")
        self.trial.id = str(self.browser.id)

    async def go(self) -> None:
        """Ask for the page; that the store failed may be raised, for the server to log."""
        try:
            await self.browser.get("/", into=self.answer)
        except StoreError:
            return

    async def check(self) -> None:
        """Fail if something that the client was told is not so, or anything is left behind."""
        page, answer, trial = self.site.page, self.answer, self.trial
        self.browser.keep(answer)
        trial.sure = page.certain(answer)
        trial.new_id = self.browser.id if self.browser.id != trial.id else None
        await self._check_the_cookie()
        await self._check_the_state()
        trial.kept = list(self.site.kept)
        await trial.require_usable()

    async def _check_the_cookie(self) -> None:
        """No cookie for what is not stored."""
        if self.trial.new_id is not None:
            assert await self.trial.look(self.trial.new_id) is not None

    async def _check_the_state(self) -> None:
        """Without a cookie nobody can open what is new; the old id tells as much."""
        worlds, trial = self.site.page.worlds, self.trial
        if trial.new_id is None:
            worlds = [(old, None) for old, _ in worlds]
        await trial.require_one_of(worlds)
