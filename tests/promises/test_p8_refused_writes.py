"""P8: a refused write is loud.

What cannot be stored faithfully is refused at the line that assigns it, with the path to it;
inside a nested value at the next save. When the store refuses, the local copy forgets the change
and an error is raised: 503, cookies untouched. A damaged record is reported, never taken for an
empty session of that id, never overwritten.
"""

# ruff: noqa: PT012  # it is often the end of an `async with sessions.open()` that raises

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from minisession import (
    MinisessionError,
    SaveOutcomeUnknown,
    SaveTimeout,
    SessionConfig,
    SessionManager,
    SessionMiddleware,
    SessionTooLarge,
    StoreUnavailable,
    UnstorableValue,
    session,
)
from minisession.abc import Record, Store
from minisession.errors import StoreCorrupt
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import Browser, Receive, Scope, Send, respond, routed, running
from tests.remote_store import IN_DOUBT, NOT_STORED, Fault, RemoteStore

pytestmark = pytest.mark.anyio

QUICK = SessionConfig(save_timeout=0.1)


async def begin(scope: Scope, receive: Receive, send: Send) -> None:
    session.update(n=0, cart=[])
    await respond(send)


async def write(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = 1
    await respond(send)


async def login(scope: Scope, receive: Receive, send: Send) -> None:
    session.regenerate()
    session["n"] = 1
    await respond(send)


async def logout(scope: Scope, receive: Receive, send: Send) -> None:
    session.destroy()
    await respond(send)


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, repr(sorted(session.items())).encode())


def site(store: Store, config: SessionConfig = QUICK) -> SessionMiddleware:
    pages = routed(begin=begin, write=write, login=login, logout=logout, read=read)
    return SessionMiddleware(pages, store, config)


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assign", "path"),
    [
        (lambda: session.set("price", float("nan")), 'session["price"]'),
        (lambda: session.set("cart", [1, {"price": object()}]), 'session["cart"][1]["price"]'),
        (lambda: session.set("cart", [{1: "a"}]), 'session["cart"][0]'),
        (lambda: session.set("text", "\ud800"), 'session["text"]'),
    ],
)
async def test_a_value_that_cannot_be_stored_is_refused_where_it_is_assigned(
    store: Store, assign: Callable[[], None], path: str
) -> None:
    async with SessionManager(store) as sessions, sessions.open() as one:
        one["kept"] = 1
        with pytest.raises(UnstorableValue) as refusal:
            assign()

        assert str(refusal.value).startswith(path)
        assert dict(one) == {"kept": 1}


async def test_a_nested_value_that_cannot_be_stored_is_refused_at_the_save(store: Store) -> None:
    async with SessionManager(store) as sessions, sessions.open() as one:
        one["cart"] = [{"price": 1}]
        await one.save()
        one["cart"][0]["price"] = float("inf")

        with pytest.raises(UnstorableValue, match=r'session\["cart"\]\[0\]\["price"\]'):
            await one.save()

        assert one["cart"] == [{"price": 1}]
        await one.save()


async def test_a_session_that_would_grow_too_large_is_refused_where_it_grows(
    store: Store,
) -> None:
    config = SessionConfig(max_size=200)
    async with SessionManager(store, config) as sessions, sessions.open() as one:
        one["a"] = "x" * 100
        with pytest.raises(SessionTooLarge, match="max_size=200"):
            one["b"] = "x" * 100

        assert list(one) == ["a"]


# --- a store that refuses, or does not say -------------------------------------------------------


@pytest.mark.parametrize("fault", [*NOT_STORED, *IN_DOUBT])
@pytest.mark.parametrize("path", ["/begin", "/write", "/login", "/logout"])
async def test_what_is_not_stored_is_not_told(fault: Fault, path: str) -> None:
    store = RemoteStore()
    app = site(store)
    async with running(app):
        browser = Browser(app)
        await browser.get("/begin")
        id = browser.id
        visitor = Browser(app) if path == "/begin" else browser
        store.fault = fault
        answer = await visitor.get(path)
        store.fault = Fault.NONE

        assert (answer.status, answer.cookies, answer.is_complete) == (503, [], True)
        assert visitor.id == (None if path == "/begin" else id)
        if fault in NOT_STORED and path != "/write":  # a temporary refusal may have been retried
            assert (await browser.get("/read")).body in (b"[('cart', []), ('n', 0)]", b"[]")


@pytest.mark.parametrize("fault", [*NOT_STORED, *IN_DOUBT])
async def test_in_doubt_is_not_refused_and_refused_is_not_in_doubt(fault: Fault) -> None:
    store = RemoteStore()
    async with SessionManager(store, QUICK) as sessions:
        async with sessions.open() as one:
            one["n"] = 0
            await one.save()
            id = one.id
        error: MinisessionError | None = None
        with pytest.raises((StoreUnavailable, SaveOutcomeUnknown)):
            async with sessions.open(id) as one:
                one["n"] = 1
                store.fault = fault
                try:
                    await one.save()
                except MinisessionError as raised:
                    error = raised
                    raise
        store.fault = Fault.NONE

    assert isinstance(error, StoreUnavailable) == (fault in NOT_STORED)
    assert isinstance(error, SaveTimeout) == (fault is Fault.TOO_BUSY)


@pytest.mark.parametrize("fault", IN_DOUBT)
async def test_an_application_that_ignores_the_doubt_gets_no_success_through(fault: Fault) -> None:
    refused: list[bool] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        with pytest.raises(SaveOutcomeUnknown):
            await session.save()
        with pytest.raises(SaveOutcomeUnknown):
            session["m"] = 1
        refused.append(True)
        await respond(send, b"all is well")

    store = RemoteStore()
    app = SessionMiddleware(routed(begin=begin, page=page), store, QUICK)
    async with running(app):
        browser = Browser(app)
        await browser.get("/begin")
        store.faults = [fault]
        answer = await browser.get("/page")

    assert refused == [True]
    assert (answer.status, answer.cookies) == (503, [])


@pytest.mark.parametrize("fault", IN_DOUBT)
async def test_refresh_clears_the_doubt(fault: Fault) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        with pytest.raises(SaveOutcomeUnknown):
            await session.save()
        await session.refresh()
        session["n"] += 10
        await respond(send, str(session["n"]).encode())

    store = RemoteStore()
    app = SessionMiddleware(routed(begin=begin, page=page), store, QUICK)
    async with running(app):
        browser = Browser(app)
        await browser.get("/begin")
        store.faults = [fault]
        answer = await browser.get("/page")

    stored = fault in (Fault.SILENT_AFTER, Fault.UNSURE_AFTER, Fault.BREAKS)
    assert (answer.status, answer.body) == (200, b"11" if stored else b"10")


async def test_what_the_store_refused_for_good_is_forgotten(store: Store) -> None:
    async with SessionManager(store, SessionConfig(max_size=150)) as sessions:
        async with sessions.open() as one:
            one["begun"] = True
            await one.save()
            id = one.id
        with pytest.raises(SessionTooLarge):
            async with sessions.open(id) as one, sessions.open(id) as two:
                assert two["begun"]
                one["a"] = "x" * 90
                await one.save()
                two["b"] = "x" * 90
                two["c"] = [1]
                try:
                    await two.save()
                finally:
                    assert "b" not in two
                    assert "c" not in two
        async with sessions.open(id) as one:
            assert set(one) == {"begun", "a"}


async def test_one_refused_change_disturbs_no_other_session_of_its_batch(store: Store) -> None:
    async with SessionManager(store, SessionConfig(max_size=150)) as sessions:
        ids = []
        for _ in range(6):
            async with sessions.open() as one:
                one["a"] = 0
                await one.save()
                ids.append(one.id)
        refused = []

        async def work(number: int, id: str | None) -> None:
            async with sessions.open(id) as one, sessions.open(id) as rival:
                assert one["a"] == rival["a"]
                if number % 2:
                    one["x"] = "x" * 90
                    await one.save()
                rival["y"] = "y" * 90
                try:
                    await rival.save()
                except SessionTooLarge:
                    refused.append(number)

        async with anyio.create_task_group() as tasks:
            for number, id in enumerate(ids):
                tasks.start_soon(work, number, id)

    assert sorted(refused) == [1, 3, 5]


# --- what cannot be read -------------------------------------------------------------------------


async def test_a_load_that_failed_logs_nobody_out_and_takes_nobody_for_anonymous() -> None:
    store = RemoteStore()
    app = site(store)
    async with running(app):
        browser = Browser(app)
        await browser.get("/begin")
        store.load_error = StoreUnavailable("away")
        answers = [await browser.get(path) for path in ("/read", "/write", "/logout", "/login")]
        store.load_error = None
        after = await browser.get("/read")

    assert [(answer.status, answer.cookies) for answer in answers] == [(503, [])] * 4
    assert after.body == b"[('cart', []), ('n', 0)]"


class Damaging(MemoryStore):
    """A memory store in which one value can be spoilt, as a disk or a bug might."""

    spoilt = False
    raises = False

    def load_nowait(self, handle: str, now: float) -> Record | None:
        record = super().load_nowait(handle, now)
        if record is None or not self.spoilt:
            return record
        if self.raises:
            raise StoreCorrupt(f"session {handle}: its row cannot be read")
        return replace(record, items={**record.items, "n": b"\xff{"})


@pytest.mark.parametrize("raises", [False, True], ids=["a value", "the row"])
async def test_a_damaged_record_counts_as_unknown_and_stays(
    raises: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store = Damaging()
    store.raises = raises
    app = site(store)
    async with running(app):
        browser = Browser(app)
        await browser.get("/begin")
        id = browser.id
        store.spoilt = True
        looked = await browser.get("/read")
        assert (looked.status, looked.body, looked.cookies) == (200, b"[]", [])
        wrote = await browser.get("/write")
        store.spoilt = False
        assert len(wrote.cookies) == 1
        assert browser.id != id
        browser.id = id
        repaired = await browser.get("/read")

    assert repaired.body == b"[('cart', []), ('n', 0)]"
    assert "is damaged, counts as unknown and stays as it is" in caplog.text
    assert {record.levelname for record in caplog.records} == {"ERROR"}


async def test_a_damaged_row_of_a_file_is_left_as_it_is(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = site(SQLiteStore(database), SessionConfig())
    browser = Browser(app)
    async with running(app):
        await browser.get("/begin")
    id = browser.id
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE item SET data = x'FF7B' WHERE key = 'n'")
    connection.close()

    app = site(SQLiteStore(database), SessionConfig())
    browser.app = app
    async with running(app):
        assert (await browser.get("/read")).body == b"[]"
        await browser.get("/logout")
        browser.id = id
        await browser.get("/write")
        assert browser.id != id

    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT data FROM item WHERE data = x'FF7B'").fetchall()
    connection.close()
    assert rows == [(b"\xff{",)]
    assert "is damaged" in caplog.text


@pytest.fixture
def thesis(database: Path) -> Iterator[Path]:
    """A file that is no database, and that nobody may touch."""
    text = b"this is no database, but somebody's thesis" * 100
    database.write_bytes(text)
    yield database
    assert database.read_bytes() == text


async def test_a_damaged_file_is_a_503_and_stays(thesis: Path) -> None:
    app = site(SQLiteStore(thesis), SessionConfig())
    browser = Browser(app)
    browser.id = f"{'A' * 22}.{'B' * 32}"
    answers = [await browser.get(path) for path in ("/read", "/write")]
    await app.manager.store.__aexit__(None, None, None)

    assert [(answer.status, answer.cookies) for answer in answers] == [(503, [])] * 2
