"""P3: what has ended stays ended.

After a logout, a revocation, an expiry or a regenerate has been committed, nothing brings the old
session or the old id back: no late writer, no touch, no cookie, no second process.
"""

# ruff: noqa: PT012  # it is the end of an `async with manager.open()` that raises

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from minisession import SessionConfig, SessionGone, SessionManager, SessionMiddleware, session
from minisession._ids import hash_secret, split_id
from minisession.abc import Store
from minisession.stores.sqlite import SQLiteStore
from minisession.testing import Schedule, replay
from tests.asgi_client import Answer, Browser, Receive, Scope, Send, respond, routed, running
from tests.clock import Clock
from tests.remote_store import RemoteStore

pytestmark = pytest.mark.anyio

ROUNDS = 200


class Shop:
    """Requests that are slow, and others that end their session meanwhile."""

    def __init__(self, store: Store, config: SessionConfig | None = None) -> None:
        self.store = store
        self.clock = Clock()
        self.app = SessionMiddleware(
            routed(begin=self.begin, slow=self.slow, logout=self.logout, login=self.login),
            store,
            config,
            clock=self.clock,
        )
        self.pauses = (0, 0)
        self.has_loaded = anyio.Event()
        self.loads = 0

    async def begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        session["user"] = "Ada"
        session["cart"] = []
        await respond(send)

    async def slow(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert session["user"] == "Ada"
        self.loads += 1
        self.has_loaded.set()
        await _pause(self.pauses[0])
        session["late"] = True
        session["cart"].append("tea")
        await _pause(self.pauses[1])
        session["later"] = True
        await respond(send)

    async def logout(self, scope: Scope, receive: Receive, send: Send) -> None:
        session.destroy()
        await respond(send)

    async def login(self, scope: Scope, receive: Receive, send: Send) -> None:
        session.regenerate()
        session["late"] = "no"
        await respond(send)


async def _pause(times: int) -> None:
    for _ in range(times):
        await checkpoint()


async def lives(store: Store, id: str | None, now: float) -> bool:
    """Tell whether an id opens a session, by what the store has."""
    pair = split_id(str(id))
    assert pair is not None
    record = await store.load(pair[0], now)
    return record is not None and record.secret == hash_secret(pair[1])


async def test_a_logout_beside_a_slow_request_ends_the_session_two_hundred_times(
    store: Store,
) -> None:
    shop = Shop(store)
    outcomes = []
    async with running(shop.app):
        for number in range(ROUNDS):
            slow_browser, browser, slow = Browser(shop.app), Browser(shop.app), Answer()
            await browser.get("/begin")
            id = slow_browser.id = browser.id
            shop.pauses = (number % 7, number % 11)
            shop.has_loaded = anyio.Event()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(slow_browser.get, "/slow", into=slow))
                await shop.has_loaded.wait()
                await _pause(number % 5)
                out = await browser.get("/logout")
            outcomes.append((slow.status, slow.cookies, out.status, len(out.cookies)))
            assert not await lives(store, id, shop.clock())
        left = await store.scan(shop.clock())

    assert outcomes == [(200, [], 200, 1)] * ROUNDS
    assert left == []


End = Callable[[Shop, Browser], Awaitable[object]]


async def by_logout(shop: Shop, browser: Browser) -> None:
    await browser.get("/logout")


async def by_revocation(shop: Shop, browser: Browser) -> None:
    assert await shop.app.manager.revoke(str(browser.id).partition(".")[0])


async def by_expiry(shop: Shop, browser: Browser) -> None:
    shop.clock.advance(3 * 3600)


async def by_regenerate(shop: Shop, browser: Browser) -> None:
    await browser.get("/login")


@pytest.mark.parametrize("end", [by_logout, by_revocation, by_expiry, by_regenerate])
@pytest.mark.parametrize("when", ["before it writes", "after it wrote"])
async def test_a_late_writer_brings_nothing_back_and_sends_no_cookie(
    store: Store, end: End, when: str
) -> None:
    shop = Shop(store)
    slow_browser, browser, slow = Browser(shop.app), Browser(shop.app), Answer()
    async with running(shop.app):
        await browser.get("/begin")
        id = slow_browser.id = browser.id
        shop.pauses = (50, 0) if when == "before it writes" else (0, 50)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(slow_browser.get, "/slow", into=slow))
            await shop.has_loaded.wait()
            await end(shop, browser)
        alive = await lives(store, id, shop.clock())

    assert (slow.status, slow.cookies) == (200, [])
    assert not alive


@pytest.mark.parametrize("end", [by_logout, by_revocation, by_expiry, by_regenerate])
async def test_an_explicit_save_says_that_the_session_has_ended(store: Store, end: End) -> None:
    shop = Shop(store)
    errors: list[Exception] = []

    async def saving(scope: Scope, receive: Receive, send: Send) -> None:
        assert session["user"] == "Ada"
        await end(shop, browser)
        session["late"] = True
        for call in (session.save, session.refresh, lambda: session.update("late", lambda n: n)):
            try:
                await call()
            except SessionGone as error:
                errors.append(error)
        await respond(send)

    app = SessionMiddleware(saving, store, clock=shop.clock)
    browser, late = Browser(shop.app), Browser(app)
    async with running(shop.app):
        await browser.get("/begin")
        late.id = browser.id
        answer = await late.get()

    assert len(errors) == 3
    assert (answer.status, answer.cookies) == (200, [])


async def test_a_session_found_gone_never_becomes_a_new_one_in_that_request(store: Store) -> None:
    shop = Shop(store)

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        assert session["user"] == "Ada"
        await by_revocation(shop, browser)
        session["late"] = True
        with pytest.raises(SessionGone):
            await session.save()
        for n in range(5):
            session[f"try {n}"] = n
            session.regenerate()
            session.clear()
            await checkpoint()
        await respond(send)

    app = SessionMiddleware(stubborn, store, clock=shop.clock)
    browser, late = Browser(shop.app), Browser(app)
    async with running(shop.app):
        await browser.get("/begin")
        late.id = browser.id
        answer = await late.get()

        assert answer.cookies == []
        assert await store.scan(shop.clock()) == []


@pytest.mark.parametrize("end", [by_logout, by_revocation, by_expiry])
async def test_a_touch_never_revives(store: Store, end: End) -> None:
    shop = Shop(store)

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        assert session["user"] == "Ada"
        await end(shop, browser)
        await respond(send)

    app = SessionMiddleware(reading, store, clock=shop.clock)
    browser, reader = Browser(shop.app), Browser(app)
    async with running(shop.app):
        await browser.get("/begin")
        shop.clock.advance(3600)  # a touch is due
        id = reader.id = browser.id
        answer = await reader.get()
        await anyio.wait_all_tasks_blocked()

        assert answer.cookies == []
        assert not await lives(store, id, shop.clock())
        assert await store.scan(shop.clock()) == []


async def test_an_end_in_another_process_is_an_end_here(database: object) -> None:
    clock = Clock()
    here = SessionManager(SQLiteStore(str(database)), clock=clock)
    there = SessionManager(SQLiteStore(str(database)), clock=clock)
    async with here, there:
        async with here.open() as one:
            one["n"] = 1
            await one.save()
            id, handle = one.id, str(one.handle)
        with pytest.raises(SessionGone):
            async with here.open(id) as slow:
                assert slow["n"] == 1
                async with there.open(id) as other:
                    other.destroy()
                slow["n"] = 2
                with pytest.raises(SessionGone):
                    await slow.save()
                slow["n"] = 3

        assert await there.store.load(handle, clock()) is None


# --- schedules -----------------------------------------------------------------------------------

endings = st.sampled_from(["/logout", "/login", "revoke"])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(
    end=endings,
    pauses=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    writers=st.integers(1, 3),
    seed=st.integers(0),
)
@settings(max_examples=80, deadline=None)
def test_in_no_schedule_does_an_ended_session_come_back(
    backend: str, end: str, pauses: tuple[int, int], writers: int, seed: int
) -> None:
    async def program() -> None:
        shop = Shop(RemoteStore())
        shop.pauses = pauses
        browser = Browser(shop.app)
        async with running(shop.app):
            await browser.get("/begin")
            id = browser.id
            slow = [Answer() for _ in range(writers)]
            async with anyio.create_task_group() as tasks:
                for answer in slow:
                    other = Browser(shop.app)
                    other.id = id
                    tasks.start_soon(partial(other.get, "/slow", into=answer))
                while shop.loads < writers:
                    await checkpoint()
                if end == "revoke":
                    await by_revocation(shop, browser)
                else:
                    await browser.get(end)
                assert not await lives(shop.store, id, shop.clock())

            assert not await lives(shop.store, id, shop.clock())
            assert all(answer.cookies == [] for answer in slow)
            assert len(await shop.store.scan(shop.clock())) == (end == "/login")

    replay(program, Schedule.seeded(seed), backend=backend)
