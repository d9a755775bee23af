"""Scenarios of P1, P4 and P6, over the whole path: who sees which session, and what an answer says.

A request sees its own session and no other; its answer leaves after its writes are stored; what
comes too late to be stored, or to carry a cookie, is refused at the line that writes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from minisession import CookieTooLate, Session, SessionClosed, SessionMiddleware, current, session
from tests.asgi_client import (
    COOKIE,
    Answer,
    Browser,
    Message,
    Receive,
    Scope,
    Send,
    ask,
    respond,
    routed,
)
from tests.races.world import World, handle_of, pause, together

USERS = ("Ada", "Bob", "Eve")


async def requests_of_three_users(world: World) -> None:
    ids = {user: await world.begin(user=user) for user in USERS}

    async def visit(scope: Scope, receive: Receive, send: Send) -> None:
        user = session["user"]
        await pause()
        session["visited"] = user
        await pause()
        assert session["user"] == user
        await respond(send, user.encode())

    async with world.process() as sessions:
        app = SessionMiddleware(routed(visit=visit), sessions)
        answers = {user: Answer() for user in USERS}
        await together(
            *(partial(ask, app, "/visit", cookie=_cookie(ids[u]), into=answers[u]) for u in USERS)
        )

    assert {user: answer.body.decode() for user, answer in answers.items()} == dict(
        zip(USERS, USERS, strict=True)
    )
    assert await world.everything() == {
        handle_of(id): {"user": user, "visited": user} for user, id in ids.items()
    }


async def child_tasks_and_threads_of_two_users(world: World) -> None:
    """They see the very session of the request that started them."""
    ids = {user: await world.begin(user=user) for user in USERS[:2]}

    async def child(whose: Session) -> None:
        await pause()
        assert current() is whose
        session["child"] = session["user"]

    def thread(whose: Session) -> None:
        assert current() is whose
        session["thread"] = session["user"]

    async def visit(scope: Scope, receive: Receive, send: Send) -> None:
        mine = current()
        await together(partial(child, mine), partial(anyio.to_thread.run_sync, thread, mine))
        await respond(send)

    async with world.process() as sessions:
        app = SessionMiddleware(routed(visit=visit), sessions)
        await together(*(partial(ask, app, "/visit", cookie=_cookie(id)) for id in ids.values()))

    assert await world.everything() == {
        handle_of(id): {"user": user, "child": user, "thread": user} for user, id in ids.items()
    }


async def two_first_visits(world: World) -> None:
    async def visit(scope: Scope, receive: Receive, send: Send) -> None:
        assert len(session) == 0
        session["path"] = scope["path"]
        await pause()
        session["again"] = scope["path"]
        await respond(send)

    async with world.process() as sessions:
        app = SessionMiddleware(routed(one=visit, two=visit), sessions)
        browsers = {"/one": Browser(app), "/two": Browser(app)}
        await together(*(partial(browser.get, path) for path, browser in browsers.items()))

    handles = {path: handle_of(str(browser.id)) for path, browser in browsers.items()}
    assert await world.everything() == {
        handle: {"path": path, "again": path} for path, handle in handles.items()
    }
    for browser in browsers.values():
        assert await world.is_current(browser.id)


async def a_task_that_outlives_its_request(world: World) -> None:
    """It writes in time, or is told that it is too late; nothing is lost in silence."""
    id = await world.begin(seed=0)
    expected: dict[str, Any] = {"seed": 0}

    async def straggle(mine: Session) -> None:
        for step in ("a", "b", "c"):
            await pause()
            try:
                mine[step] = True
            except SessionClosed:
                return
            expected[step] = True

    async with world.process() as sessions, anyio.create_task_group() as outside:

        async def visit(scope: Scope, receive: Receive, send: Send) -> None:
            assert session["seed"] == 0
            outside.start_soon(straggle, current())
            await pause()
            await respond(send)

        app = SessionMiddleware(routed(visit=visit), sessions)
        await ask(app, "/visit", cookie=_cookie(id))

    assert await world.everything() == {handle_of(id): expected}


async def a_first_write_while_the_headers_leave(world: World) -> None:
    """The answer carries the cookie, or the writer is told that it cannot."""
    refused = []

    async def write() -> None:
        await pause()
        try:
            session["late"] = True
        except CookieTooLate:
            refused.append(True)

    async def visit(scope: Scope, receive: Receive, send: Send) -> None:
        assert len(session) == 0
        await together(write, partial(_respond_slowly, send))

    async with world.process() as sessions:
        browser = Browser(SessionMiddleware(routed(visit=visit), sessions))
        await browser.get("/visit")

    assert (browser.id is None) == bool(refused)
    assert await world.is_current(browser.id) != bool(refused)
    assert list((await world.everything()).values()) == ([] if refused else [{"late": True}])


async def a_login_while_the_headers_leave(world: World) -> None:
    """The answer carries the new id, or nothing has changed and the caller knows."""
    id = await world.begin(seed=0)
    refused = []

    async def login() -> None:
        await pause()
        try:
            session.regenerate()
        except CookieTooLate:
            refused.append(True)
        else:
            session["user"] = "Ada"

    async def visit(scope: Scope, receive: Receive, send: Send) -> None:
        assert session["seed"] == 0
        await together(login, partial(_respond_slowly, send))

    async with world.process() as sessions:
        browser = Browser(SessionMiddleware(routed(visit=visit), sessions))
        browser.id = id
        await browser.get("/visit")

    assert (browser.id == id) == bool(refused)
    assert await world.is_current(browser.id)
    user = {} if refused else {"user": "Ada"}
    assert await world.everything() == {handle_of(id): {"seed": 0, **user}}


async def a_logout_while_the_headers_leave(world: World) -> None:
    """It ends the session that the same request has just begun, whatever the answer says."""

    async def logout() -> None:
        await pause()
        session.destroy()

    async def visit(scope: Scope, receive: Receive, send: Send) -> None:
        session["seed"] = 0
        await together(logout, partial(_respond_slowly, send))

    async with world.process() as sessions:
        browser = Browser(SessionMiddleware(routed(visit=visit), sessions))
        answer = await browser.get("/visit")

    assert answer.is_complete
    assert await world.everything() == {}


async def a_write_while_the_headers_leave(world: World) -> None:
    """A session that has its cookie takes writes at any time, nested ones included."""
    id = await world.begin(cart=[])

    async def write() -> None:
        session["cart"].append("tea")
        await pause()
        session["late"] = True
        session["cart"].append("milk")

    async def visit(scope: Scope, receive: Receive, send: Send) -> None:
        await together(write, partial(_respond_slowly, send))

    async with world.process() as sessions:
        app = SessionMiddleware(routed(visit=visit), sessions)
        await ask(app, "/visit", cookie=_cookie(id))

    assert await world.everything() == {handle_of(id): {"cart": ["tea", "milk"], "late": True}}


async def what_an_answer_acknowledges(world: World) -> None:
    """When the headers leave, everything written before is stored; at the last byte, the rest."""
    id = await world.begin(seed=0)

    async def visit(scope: Scope, receive: Receive, send: Send) -> None:
        session["a"] = 1
        await pause()
        session["b"] = 2
        await send({"type": "http.response.start", "status": 200, "headers": []})
        session["c"] = 3
        await pause()
        await send({"type": "http.response.body", "body": b""})

    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        session["d"] = 4
        await respond(send)

    wrapped = {"/visit": ({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}), "/other": ({"d": 4},) * 2}

    async with world.process() as sessions:
        app = SessionMiddleware(routed(visit=visit, other=other), sessions)

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            acknowledged = iter(wrapped[scope["path"]])

            async def checked(message: Message) -> None:
                stored = await world.items(id)
                assert stored is not None
                assert next(acknowledged).items() <= stored.items()
                await send(message)

            await app(scope, receive, checked)

        await together(*(partial(ask, watched, path, cookie=_cookie(id)) for path in wrapped))

    assert await world.everything() == {handle_of(id): {"seed": 0, "a": 1, "b": 2, "c": 3, "d": 4}}


async def _respond_slowly(send: Send) -> None:
    await pause()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await pause()
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    await pause()
    await send({"type": "http.response.body", "body": b""})


def _cookie(id: str) -> str:
    return f"{COOKIE}={id}"
