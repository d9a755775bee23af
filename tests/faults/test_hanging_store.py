"""A store that hangs: a deadline, a 503, and the next request works; nobody else waits."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from enum import Enum

import anyio
import pytest

from minisession import (
    SaveOutcomeUnknown,
    SessionConfig,
    SessionManager,
    SessionMiddleware,
    StoreUnavailable,
    session,
)
from minisession.abc import Change, Outcome, Record
from tests.asgi_client import Browser, Receive, Scope, Send, respond, routed, running
from tests.remote_store import RemoteStore

pytestmark = pytest.mark.anyio

SAVE_TIMEOUT = 0.2  # seconds
LATE = 4  # seconds that a busy machine may take over what it is given; without a deadline: for ever


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


class Hang(Enum):
    """Where the store hangs, and for good, as far as a request can tell."""

    LOAD = "load"
    BEFORE = "commit, before it takes effect"
    AFTER = "commit, after it took effect"
    PURGE = "purge"


class HangingStore(RemoteStore):
    """A remote store that does not answer while `hang` is set, for one session or for all.

    Attributes:
        hang: where.
        handle: whose session hangs; None for all.
        released: set it to let what hangs go on.
        loaded: the handles of all loads.
    """

    hang: Hang | None = None
    handle: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.released = anyio.Event()
        self.loaded: list[str] = []

    def _hangs(self, where: Hang, *handles: str) -> bool:
        return self.hang is where and (self.handle is None or self.handle in handles)

    async def load(self, handle: str, now: float) -> Record | None:
        self.loaded.append(handle)
        if self._hangs(Hang.LOAD, handle):
            await self.released.wait()
        return await super().load(handle, now)

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        handles = [change.handle for change in changes]
        if self._hangs(Hang.BEFORE, *handles):
            await self.released.wait()
        outcomes = await super().commit(changes, now)
        if self._hangs(Hang.AFTER, *handles):
            await self.released.wait()
        return outcomes

    async def purge(self, now: float, limit: int) -> int:
        if self.hang is Hang.PURGE:
            await self.released.wait()
        return await super().purge(now, limit)


async def write(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = session.get("n", 0) + 1
    await respond(send, b"%d" % session["n"])


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"%d" % session.get("n", 0))


async def login(scope: Scope, receive: Receive, send: Send) -> None:
    session.regenerate()
    session["user"] = 1
    await respond(send)


async def logout(scope: Scope, receive: Receive, send: Send) -> None:
    session.destroy()
    await respond(send)


@asynccontextmanager
async def site(
    store: HangingStore, save_timeout: float = SAVE_TIMEOUT
) -> AsyncIterator[SessionMiddleware]:
    app = SessionMiddleware(
        routed(write=write, read=read, login=login, logout=logout),
        store,
        SessionConfig(save_timeout=save_timeout),
    )
    async with running(app):
        yield app


HANGS = [Hang.LOAD, Hang.BEFORE, Hang.AFTER]


@pytest.mark.parametrize("hang", HANGS)
@pytest.mark.parametrize("path", ["/write", "/login", "/logout"])
async def test_the_deadline_holds_and_the_next_request_works(hang: Hang, path: str) -> None:
    store = HangingStore()
    async with site(store) as app:
        browser = Browser(app)
        await browser.get("/write")
        id = browser.id

        store.hang = hang
        started = anyio.current_time()
        answer = await browser.get(path)
        took = anyio.current_time() - started
        store.hang = None

        assert (answer.status, answer.cookies, browser.id) == (503, [], id)
        # One wait for what the flusher has handed over, one for the response, one to end.
        assert SAVE_TIMEOUT * 0.9 < took < 3 * SAVE_TIMEOUT + LATE
        after = await browser.get("/read")
        assert after.status == 200
        if path == "/write":
            assert after.body in ((b"1",) if hang is Hang.LOAD else (b"1", b"2"))
        assert (await Browser(app).get("/write")).body == b"1"


async def test_several_cookies_do_not_wait_for_several_deadlines() -> None:
    store = HangingStore()
    async with site(store) as app:
        browsers = [Browser(app, "MINISESSID", "http") for _ in range(4)]
        for browser in browsers:
            await browser.get("/write")
        one = Browser(app, "MINISESSID", "http")
        one.id = "; ".join(f"{one.name}={browser.id}" for browser in browsers).partition("=")[2]

        store.hang = Hang.LOAD
        store.loaded.clear()
        answer = await one.get("/read")

    assert answer.status == 503
    assert len(store.loaded) == 1


@pytest.mark.parametrize("hang", HANGS)
async def test_other_sessions_are_not_held_up(hang: Hang) -> None:
    store = HangingStore()
    async with site(store, save_timeout=60) as app:
        stuck, others = Browser(app), [Browser(app) for _ in range(5)]
        for browser in (stuck, *others):
            await browser.get("/write")
        bodies: list[bytes] = []

        async def wait() -> None:
            bodies.append((await stuck.get("/write")).body)

        store.hang, store.handle = hang, str(stuck.id).partition(".")[0]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            for number in range(2, 6):
                assert [(await other.get("/write")).body for other in others] == [
                    b"%d" % number
                ] * 5
            assert bodies == []
            store.released.set()

    assert bodies == [b"2"]


@pytest.mark.parametrize("hang", [Hang.BEFORE, Hang.AFTER])
async def test_an_explicit_save_has_the_same_deadline(hang: Hang) -> None:
    store = HangingStore()
    config = SessionConfig(save_timeout=SAVE_TIMEOUT)
    async with SessionManager(store, config) as sessions, sessions.open() as one:
        one["n"] = 1
        await one.save()
        store.hang = hang
        started = anyio.current_time()
        one["n"] = 2
        with pytest.raises(SaveOutcomeUnknown):
            await one.save()
        assert anyio.current_time() - started < 2 * SAVE_TIMEOUT + LATE
        store.hang = None

        await one.refresh()

        assert one["n"] in (1, 2)


@pytest.mark.parametrize("hang", HANGS)
async def test_opening_ending_and_leaving_have_one_too(hang: Hang) -> None:
    store = HangingStore()
    config = SessionConfig(save_timeout=SAVE_TIMEOUT)
    with anyio.fail_after(20 * SAVE_TIMEOUT + LATE):
        async with SessionManager(store, config) as sessions:
            async with sessions.open() as one:
                one["n"] = 1
                await one.save()
                handle, id = str(one.handle), one.id
            store.hang = hang
            if hang is Hang.LOAD:
                with pytest.raises(StoreUnavailable):
                    async with sessions.open_handle(handle):
                        raise AssertionError("it was opened")
                with pytest.raises(StoreUnavailable):
                    async with sessions.open(id) as one:
                        len(one)
            else:
                with pytest.raises(SaveOutcomeUnknown):
                    await sessions.revoke(handle)


async def test_a_purge_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minisession._manager.SWEEP_EVERY", 0.0)
    monkeypatch.setattr("minisession._manager.SWEEP_TIMEOUT", 30.0)
    store = HangingStore()
    store.hang = Hang.PURGE
    async with site(store) as app:
        browser = Browser(app)
        with anyio.fail_after(5):
            for number in range(1, 20):
                assert (await browser.get("/write")).body == b"%d" % number
