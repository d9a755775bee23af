"""Clocks that jump an hour and ten years, both ways: no error, no half session, no lasting harm."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest

from minisession import SessionConfig, SessionMiddleware, session
from minisession.abc import Store
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import Browser, Receive, Scope, Send, ask, respond, routed, running
from tests.clock import Clock

pytestmark = pytest.mark.anyio

HOUR = 3600.0
TEN_YEARS = 10 * 365.25 * 86_400
JUMPS = [HOUR, -HOUR, TEN_YEARS, -TEN_YEARS]


async def put(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = session.get("n", 0) + 1
    session["twin"] = session["n"]
    await respond(send, b"%d" % session["n"])


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    assert session.get("n") == session.get("twin")  # all of a session, or nothing of it
    await respond(send, b"%d" % session.get("n", 0))


async def login(scope: Scope, receive: Receive, send: Send) -> None:
    session.regenerate()
    await respond(send)


async def logout(scope: Scope, receive: Receive, send: Send) -> None:
    session.destroy()
    await respond(send)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "sessions.db")


def site(store: Store, clock: Clock, **options: int) -> SessionMiddleware:
    pages = routed(put=put, read=read, login=login, logout=logout)
    return SessionMiddleware(pages, store, SessionConfig(**options), clock=clock)  # type: ignore[arg-type]


def max_age(cookie: str) -> int:
    found = re.search(r"Max-Age=(-?\d+)", cookie)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("jump", JUMPS)
async def test_after_a_jump_sessions_live_or_have_expired_and_new_ones_work(
    jump: float, store: Store
) -> None:
    clock = Clock()
    app = site(store, clock)
    async with running(app):
        browser, visitor = Browser(app), Browser(app)
        await browser.get("/put")

        clock.advance(jump)

        expected = [b"0", b"1"] if jump == TEN_YEARS else [b"1", b"2"]
        assert [(await browser.get(page)).body for page in ("/read", "/put")] == expected
        answer = await visitor.get("/put")
        assert answer.body == b"1"
        assert all(0 < max_age(cookie) <= 6 * HOUR for cookie in answer.cookies)


@pytest.mark.parametrize("jump", JUMPS)
async def test_after_a_jump_and_back_nothing_is_half_there(jump: float, store: Store) -> None:
    clock = Clock()
    app = site(store, clock)
    async with running(app):
        browser = Browser(app)
        await browser.get("/put")
        clock.advance(jump)
        during = int((await browser.get("/put")).body)
        ended = Browser(app)
        await ended.get("/put")
        id = ended.id
        await ended.get("/logout")

        clock.advance(-jump)

        # What was written ten years ago has expired since; else all of it is there.
        after = int((await browser.get("/read")).body)
        assert after == (0 if jump == -TEN_YEARS else during)
        assert int((await browser.get("/put")).body) == after + 1
        assert (await ask(app, "/read", cookie=f"{ended.name}={id}")).body == b"0"


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_jump_between_login_and_the_next_request_logs_nobody_in_or_out(
    jump: float, store: Store
) -> None:
    clock = Clock()
    app = site(store, clock)
    async with running(app):
        browser = Browser(app)
        await browser.get("/put")
        old = browser.id
        await browser.get("/login")
        assert browser.id != old

        clock.advance(jump)

        answer = await ask(app, "/put", cookie=f"{browser.name}={old}")
        stolen = [cookie for cookie in answer.cookies if str(browser.id) in cookie]
        assert stolen == []
        assert (await ask(app, "/read", cookie=f"{browser.name}={old}")).body == b"0"
        assert (await browser.get("/read")).body == (b"0" if jump == TEN_YEARS else b"1")


# Not ten years ahead: what is made then has its absolute end, as its idle one, ten years ahead.
@pytest.mark.parametrize("jump", [HOUR, -HOUR, -TEN_YEARS])
async def test_the_absolute_end_holds_over_a_jump(jump: float, store: Store) -> None:
    clock = Clock()
    app = site(store, clock, absolute_timeout=240)
    async with running(app):
        browser = Browser(app)
        await browser.get("/put")
        clock.advance(jump)
        await browser.get("/put")
        clock.advance(-jump)
        for _ in range(5):
            clock.advance(HOUR)
            answer = await browser.get("/read")

    assert answer.body == b"0"


@pytest.mark.parametrize("jump", JUMPS)
async def test_the_sweeper_comes_again_after_a_jump_also_without_a_lifespan(
    jump: float, store: Store
) -> None:
    clock = Clock()
    app = site(store, clock)
    await Browser(app).get("/put")
    clock.advance(jump)
    await Browser(app).get("/put")
    clock.advance(4 * HOUR)
    for _ in range(3):
        clock.advance(61)
        await Browser(app).get("/put")
    left = len(await store.scan(float("-inf"), limit=100))
    await store.__aexit__(None, None, None)
    await anyio.lowlevel.checkpoint()

    # Of the first two, what was made before a jump of ten years back lives on; else both are gone.
    assert left == 3 + (jump == -TEN_YEARS)
