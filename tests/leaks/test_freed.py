"""What belongs to a request dies with it: no cycle keeps it for the cycle collector.

The collector is off here. It comes by when it likes, on a busy server after thousands of requests,
and until then every session that is part of a cycle keeps its memory, and whatever its values are.

(asyncio keeps cancelled timers, and with each the context that it was set in, until they are the
next to expire or more than half of all: a hundred contexts at most, or as many as timers run.)
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from minisession import (
    SessionConfig,
    SessionGone,
    SessionManager,
    SessionMiddleware,
    StoreError,
    StoreUnavailable,
    UsageError,
    session,
)
from minisession._core.journal import Journal, Life, Segment
from minisession._core.ledger import Ledger
from minisession._core.plan import Flight
from minisession._core.session import Session
from minisession._core.view import View
from minisession._exchange import Exchange
from minisession.abc import Store
from minisession.asgi import _HttpResponse, _WebSocket
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import (
    Answer,
    Browser,
    Receive,
    Scope,
    Send,
    ask,
    converse,
    respond,
    routed,
    running,
)
from tests.remote_store import Fault, RemoteStore

pytestmark = pytest.mark.anyio

OURS = {Session, Ledger, Exchange, _HttpResponse, _WebSocket, View, Journal, Segment, Life, Flight}
QUICK = SessionConfig(save_timeout=0.05)  # for a store that hangs; a real disk may take longer
PATIENCE = 10  # seconds for tasks that have ended but for their last step; they need none


class OurError(Exception):
    """What an application raises."""


@pytest.fixture(params=["memory", "sqlite", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "memory":
            return MemoryStore()
        case "sqlite":
            return SQLiteStore(tmp_path / "sessions.db")
        case _:
            return RemoteStore()


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Nobody comes by and breaks cycles; what lived before is not looked at.

    Nor is anything logged: a record of an error, which pytest keeps, keeps its whole stack.
    """
    logging.disable()
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()
    logging.disable(logging.NOTSET)


def living() -> Counter[str]:
    """What lives of ours, by type."""
    return Counter(type(thing).__name__ for thing in gc.get_objects() if type(thing) in OURS)


async def left_by(use: Callable[[], Awaitable[object]]) -> Counter[str]:
    """What is left of a use of sessions, when the tasks that it started have had their turn."""
    before = living()
    await use()
    with anyio.move_on_after(PATIENCE):
        while living() - before:  # noqa: ASYNC110  # no event tells that something was freed
            await anyio.sleep(0.001)
    return living() - before


# --- the application -----------------------------------------------------------------------------


async def untouched(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send)


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"%d" % len(session))


async def write(scope: Scope, receive: Receive, send: Send) -> None:
    session["cart"] = [1]
    session["cart"].append(2)
    await respond(send)


async def save(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = 1
    await session.save()
    await session.refresh()
    session["n"] = 2
    await respond(send)


async def count(scope: Scope, receive: Receive, send: Send) -> None:
    await session.update("n", lambda n: n + 1, default=0)
    await respond(send)


async def login(scope: Scope, receive: Receive, send: Send) -> None:
    session.regenerate()
    session["user"] = 1
    await respond(send)


async def logout(scope: Scope, receive: Receive, send: Send) -> None:
    session.destroy()
    session["flash"] = "bye"
    await respond(send)


async def children(scope: Scope, receive: Receive, send: Send) -> None:
    async def child(name: str) -> None:
        session[name] = 1
        await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for name in "ab":
            tasks.start_soon(child, name)
    await anyio.to_thread.run_sync(lambda: session.set("thread", 1))
    await respond(send)


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = 0
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for n in range(3):
        session["n"] = n
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await send({"type": "http.response.body", "body": b""})
    session["after"] = 1


async def timeout(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = 1
    with anyio.move_on_after(0.001):
        await anyio.Event().wait()
    await respond(send)


async def error(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = 1
    raise OurError


async def late_error(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    session["n"] = 1
    raise OurError


async def bad_value(scope: Scope, receive: Receive, send: Send) -> None:
    session["cart"] = []
    session["cart"].append(object())
    await respond(send)


async def bad_write(scope: Scope, receive: Receive, send: Send) -> None:
    session["bad"] = object()


async def cookie_too_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    session.destroy()
    session["n"] = 1


async def caught(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = 1
    try:
        await session.save()
    except StoreError:
        session.destroy()
    await respond(send)


async def forever(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = 1
    await anyio.Event().wait()


PAGES = {
    "untouched": untouched,
    "read": read,
    "write": write,
    "save": save,
    "count": count,
    "login": login,
    "logout": logout,
    "children": children,
    "stream": stream,
    "timeout": timeout,
    "error": error,
    "late_error": late_error,
    "bad_value": bad_value,
    "bad_write": bad_write,
    "cookie_too_late": cookie_too_late,
    "caught": caught,
    "forever": forever,
}
THAT_END = [page for page in PAGES if page != "forever"]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket that stores what it is told."""
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.receive":
            session["said"] = message["text"]
            await send({"type": "websocket.send", "text": "ok"})


def site(store: Store) -> SessionMiddleware:
    config = QUICK if isinstance(store, RemoteStore) else SessionConfig()
    return SessionMiddleware(routed(echo=echo, **PAGES), store, config)


async def visit(browser: Browser, page: str) -> Answer:
    """Get a page; what its application raises is expected."""
    answer = Answer()
    with suppress(OurError, UsageError, StoreError):
        await browser.get(f"/{page}", into=answer)
    return answer


async def left_by_each(uses: Iterable[tuple[str, Callable[[], Awaitable[object]]]]) -> object:
    """What each of several uses has left, by name, where that is anything."""
    found = [(name, await left_by(use)) for name, use in uses]
    return {name: dict(left) for name, left in found if left}


def visits(browser: Browser, pages: Iterable[str]) -> list[tuple[str, Callable[[], Any]]]:
    return [(page, partial(visit, browser, page)) for page in pages]


# --- a request that ends -------------------------------------------------------------------------


@pytest.mark.parametrize("visitor", ["new", "known"])
async def test_a_request_leaves_nothing_behind(visitor: str, store: Store) -> None:
    app = site(store)
    async with running(app):
        browser = Browser(app)
        left: dict[str, object] = {}
        for page in THAT_END:
            browser.id = None
            if visitor == "known":
                await browser.get("/write")
            left[page] = await left_by(partial(visit, browser, page))

    assert left == {page: Counter() for page in THAT_END}


async def test_without_a_lifespan_it_leaves_nothing_either(tmp_path: Path) -> None:
    for store in (MemoryStore(), SQLiteStore(tmp_path / "sessions.db")):
        browser = Browser(site(store))
        await browser.get("/write")

        left = await left_by_each(visits(browser, THAT_END))
        await store.__aexit__(None, None, None)

        assert left == {}


async def test_a_websocket_leaves_nothing_behind(store: Store) -> None:
    app = site(store)
    async with running(app):
        browser = Browser(app)
        await browser.get("/write")

        left = await left_by(lambda: converse(app, ["a", "b"], path="/echo", cookie=browser.cookie))

    assert left == Counter()


async def test_a_session_outside_http_leaves_nothing_behind(store: Store) -> None:
    async def use() -> None:
        async with sessions.open() as one:
            one["n"] = 1
            await one.save()
            handle = str(one.handle)
        async with sessions.open_handle(handle) as one:
            one["n"] = 2
        assert await sessions.revoke(handle)
        with pytest.raises(SessionGone):
            async with sessions.open_handle(handle):
                raise AssertionError("it was opened")

    async with SessionManager(store) as sessions:
        left = await left_by(use)

    assert left == Counter()


# --- a request that is ended ---------------------------------------------------------------------

CANCELLED = ["forever", "stream", "login", "write"]
TURNS = 8  # of the other tasks, before a request is cancelled


async def cancelled(app: SessionMiddleware, browser: Browser, page: str, turns: int) -> None:
    # Not the request is the child: a cancelled child of anyio's on asyncio stays in a cycle of its
    # own, whatever it did.
    async def cancel_later(scope: anyio.CancelScope) -> None:
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel_later, scope)
            await ask(app, f"/{page}", cookie=browser.cookie)


async def natively_cancelled(
    app: SessionMiddleware, browser: Browser, page: str, turns: int
) -> None:
    # A task that no group owns: its own `cancel()`, past all shields, is what is tried here.
    task = asyncio.ensure_future(ask(app, f"/{page}", cookie=browser.cookie))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize(
    ("anyio_backend", "cancel"),
    [("asyncio", cancelled), ("trio", cancelled), ("asyncio", natively_cancelled)],
)
async def test_a_cancelled_request_leaves_nothing_behind(
    cancel: Callable[..., Awaitable[None]], store: Store
) -> None:
    app = site(store)
    async with running(app):
        browser = Browser(app)
        await browser.get("/write")

        left = await left_by_each(
            (f"{page} after {turns}", partial(cancel, app, browser, page, turns))
            for page in CANCELLED
            for turns in range(TURNS)
        )

    assert left == {}


# --- a store that fails --------------------------------------------------------------------------

FAULTS = [fault for fault in Fault if fault is not Fault.NONE]
USES = ["write", "login", "logout", "count", "stream", "caught"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_503_leaves_nothing_behind(fault: Fault) -> None:
    left: dict[str, object] = {}
    for page in USES:
        store = RemoteStore()
        app = site(store)
        async with running(app):
            browser = Browser(app)
            await browser.get("/write")
            store.fault = fault
            left[page] = await left_by(partial(visit, browser, page))
            store.fault = Fault.NONE

    assert left == {page: Counter() for page in USES}


class Refusing(MemoryStore):
    """A store that answers at once, and says that nobody can be asked."""

    load_error: Exception | None = None

    def load_nowait(self, handle: str, now: float) -> Any:
        if self.load_error is not None:
            raise self.load_error from OSError("the disk")
        return super().load_nowait(handle, now)


@pytest.mark.parametrize("kind", [RemoteStore, Refusing])
async def test_a_load_that_fails_leaves_nothing_behind(
    kind: type[RemoteStore] | type[Refusing],
) -> None:
    store = kind()
    app = site(store)

    async def fail(page: str) -> None:
        store.load_error = StoreUnavailable("away")
        answer = await visit(browser, page)
        store.load_error = None
        assert answer.status == 503

    async with running(app):
        browser = Browser(app)
        await browser.get("/write")
        uses = ["read", "write", "login", "logout", "count", "caught"]
        left = await left_by_each((page, partial(fail, page)) for page in uses)

    assert left == {}
