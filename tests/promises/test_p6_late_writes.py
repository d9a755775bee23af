"""P6: writes work at any time, and nothing is lost in silence.

In a streaming body, a background task, a WebSocket handler or a worker thread, what is written is
stored. A new cookie after the headers have left raises `CookieTooLate` at the line that wrote.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from minisession import CookieTooLate, SessionMiddleware, session
from minisession.abc import Store
from tests.asgi_client import (
    Answer,
    Browser,
    Receive,
    Scope,
    Send,
    converse,
    respond,
    routed,
    running,
)

pytestmark = pytest.mark.anyio

Page = Callable[[Scope, Receive, Send], Awaitable[None]]


async def begin(scope: Scope, receive: Receive, send: Send) -> None:
    session["log"] = []
    await respond(send)


async def show(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, repr(session.get("log")).encode())


async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for n in range(3):
        session["log"].append(n)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def background(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send)
    for n in range(3):
        session["log"].append(n)
        await checkpoint()


async def thread(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for n in range(3):
        await anyio.to_thread.run_sync(session["log"].append, n)
    await send({"type": "http.response.body", "body": b""})


async def background_thread(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send)
    await anyio.to_thread.run_sync(lambda: session.set("log", [0, 1, 2]))


async def child_tasks(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send)

    async def append(n: int) -> None:
        session["log"] = sorted([*session["log"], n])

    async with anyio.create_task_group() as tasks:
        for n in range(3):
            tasks.start_soon(append, n)


@pytest.mark.parametrize("page", [streaming, background, thread, background_thread, child_tasks])
@pytest.mark.parametrize("lifespan", [True, False], ids=["lifespan", "no lifespan"])
async def test_what_is_written_after_the_headers_is_stored(
    store: Store, page: Page, lifespan: bool
) -> None:
    app = SessionMiddleware(routed(begin=begin, page=page, show=show), store)
    browser = Browser(app)
    async with running(app) if lifespan else store:
        await browser.get("/begin")
        await browser.get("/page")
        shown = await browser.get("/show")

    assert shown.body == b"[0, 1, 2]"


async def test_what_a_websocket_handler_writes_is_stored(store: Store) -> None:
    async def chat(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] != "/chat":
            await routed(begin=begin, show=show)(scope, receive, send)
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            session["log"].append(message.get("text"))

    app = SessionMiddleware(chat, store)
    browser = Browser(app)
    async with running(app):
        await browser.get("/begin")
        await converse(app, ["a", "b"], path="/chat", cookie=browser.cookie)
        shown = await browser.get("/show")

    assert shown.body == b"[None, 'a', 'b']"


def first_write() -> None:
    session["n"] = 1


def regenerate() -> None:
    session.regenerate()


def write_after_destroy() -> None:
    session.destroy()
    session["n"] = 1


def principal() -> None:
    session.principal = "user:7"


@pytest.mark.parametrize(
    ("write", "started"),
    [
        (first_write, False),
        (principal, False),
        (regenerate, True),
        (write_after_destroy, True),
    ],
)
@pytest.mark.parametrize("when", ["in the body", "in the background", "in a thread"])
async def test_a_new_cookie_after_the_headers_is_refused_at_the_line_that_wrote(
    store: Store, write: Callable[[], None], started: bool, when: str
) -> None:
    culprits: list[str] = []

    def write_and_note() -> None:
        try:
            write()
        except CookieTooLate as error:
            frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            culprits.append(frames[1])

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if when == "in the body":
            write_and_note()
        await send({"type": "http.response.body", "body": b""})
        if when == "in the background":
            write_and_note()
        if when == "in a thread":
            await anyio.to_thread.run_sync(write_and_note)

    app = SessionMiddleware(routed(begin=begin, page=page), store)
    browser, answer = Browser(app), Answer()
    async with running(app):
        if started:
            await browser.get("/begin")
        await browser.get("/page", into=answer)

    assert culprits == [write.__name__]
    assert answer.cookies == []


async def test_update_too_late_for_a_cookie_is_refused_too(store: Store) -> None:
    refused: list[bool] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send)
        with pytest.raises(CookieTooLate):
            await session.update("n", lambda n: n + 1, default=0)
        refused.append(not session.is_started)

    app = SessionMiddleware(page, store)
    async with store:
        await Browser(app).get()

    assert refused == [True]


async def test_a_logout_is_never_too_late(store: Store) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send)
        session.destroy()

    app = SessionMiddleware(routed(begin=begin, page=page, show=show), store)
    browser = Browser(app)
    async with running(app):
        await browser.get("/begin")
        await browser.get("/page")
        shown = await browser.get("/show")

    assert shown.body == b"None"
    assert browser.id is not None  # no header could delete it; it opens nothing
