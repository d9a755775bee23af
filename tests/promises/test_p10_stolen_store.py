"""P10: a stolen store opens no session.

The store holds a hash of each secret. No id and no secret is in the database or its log, in a
dump of the memory store, in a `repr`, in a log record or in an error.
"""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import anyio.to_thread
import pytest

from minisession import MinisessionError, SessionManager, SessionMiddleware, session
from minisession.abc import Store
from minisession.stores.files import FilesStore
from minisession.stores.memory import MemoryStore
from minisession.stores.redis import RedisStore
from minisession.stores.sqlite import SQLiteStore
from tests import redis_servers
from tests.asgi_client import Browser, Receive, Scope, Send, ask, respond, routed, running
from tests.clock import Clock
from tests.remote_store import Fault, RemoteStore

pytestmark = pytest.mark.anyio


async def begin(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = 1
    session.principal = "user:7"
    await respond(send)


async def login(scope: Scope, receive: Receive, send: Send) -> None:
    session.regenerate()
    session["n"] = session.get("n", 0) + 1
    await respond(send)


async def count(scope: Scope, receive: Receive, send: Send) -> None:
    await session.update("n", lambda n: n + 1, default=0)
    await respond(send)


async def secrets_of_a_life(store: Store) -> list[str]:
    """Begin a session, log in, use it; return every id and every secret that there ever was."""
    app = SessionMiddleware(routed(begin=begin, login=login, count=count), store)
    ids = []
    async with running(app):
        browser = Browser(app)
        for path in ("/begin", "/login", "/count", "/login"):
            await browser.get(path)
            ids.append(str(browser.id))
    return [*ids, *(id.partition(".")[2] for id in ids)]


async def test_no_file_of_the_database_holds_an_id(database: Path) -> None:
    secrets = await secrets_of_a_life(SQLiteStore(database))

    files = list(database.parent.iterdir())
    text = b"".join(file.read_bytes() for file in files)
    assert database in files
    assert b"user:7" in text  # the values are stored as they are
    assert not any(secret.encode() in text for secret in secrets)


async def test_no_file_of_a_folder_holds_an_id_or_is_named_after_one(tmp_path: Path) -> None:
    secrets = await secrets_of_a_life(FilesStore(tmp_path / "sessions"))

    files = [file for file in (tmp_path / "sessions").rglob("*") if file.is_file()]
    text = b"".join(file.name.encode() + file.read_bytes() for file in files)
    assert b"user:7" in text
    assert not any(secret.encode() in text for secret in secrets)
    assert not any(secret.encode().hex().encode() in text for secret in secrets)


@redis_servers.NEEDS_REDIS
async def test_nothing_that_a_server_writes_to_its_disk_holds_an_id() -> None:
    server = await anyio.to_thread.run_sync(
        redis_servers.Server, "redis-server", "--appendonly", "yes", "--appendfsync", "always"
    )
    try:
        secrets = await secrets_of_a_life(RedisStore(server.url()))

        text = b"".join(file.read_bytes() for file in server.folder.rglob("*") if file.is_file())
    finally:
        server.end()
    assert b"user:7" in text
    assert not any(secret.encode() in text for secret in secrets)


async def test_the_write_ahead_log_holds_no_id_while_the_server_runs(database: Path) -> None:
    store = SQLiteStore(database)
    async with store:
        secrets = []
        for _ in range(3):
            async with SessionManager(store).open() as one:
                one["n"] = 1
                await one.save()
                secrets += [str(one.id), str(one.id).partition(".")[2]]
        text = b"".join(file.read_bytes() for file in database.parent.iterdir())

    assert secrets[0].partition(".")[0].encode() in text
    assert not any(secret.encode() in text for secret in secrets)


async def test_a_dump_of_the_memory_store_holds_no_id() -> None:
    store = MemoryStore()

    secrets = await secrets_of_a_life(store)

    dump = pickle.dumps(vars(store))
    assert b"user:7" in dump
    assert not any(secret.encode() in dump for secret in secrets)


async def test_what_is_stored_opens_nothing(store: Store) -> None:
    app = SessionMiddleware(routed(begin=begin, login=login), store)
    async with running(app):
        browser = Browser(app)
        await browser.get("/begin")
        handle = str(browser.id).partition(".")[0]
        record = await store.load(handle, app.manager.clock())
        assert record is not None
        thief = Browser(app)
        for stolen in (handle, record.secret.hex()[:32], record.secret.decode("latin-1")[:32]):
            thief.id = f"{handle}.{stolen}"
            answer = await thief.get("/login")
            assert len(answer.cookies) <= 1
            assert thief.id != browser.id
            assert str(thief.id).partition(".")[0] != handle or not answer.cookies


CARD = "number of a card"  # digits alone could stand in an address that a repr shows


async def test_no_repr_shows_an_id(store: Store) -> None:
    async with SessionManager(store) as sessions, sessions.open() as one:
        one["card"] = CARD
        ledger = one._ledger
        shown = [repr(one), repr(session), repr(ledger), repr(sessions), repr(store)]
        shown += [repr(ledger.life), repr(ledger.journal.segments), repr(vars(sessions))]
        await one.save()
        one.regenerate()
        shown += [repr(one), repr(ledger.life), repr(ledger.journal.segments)]
        secret = str(one.id).partition(".")[2]
        assert one.handle is not None
        record = await store.load(one.handle, sessions.clock())
        shown += [repr(record)]

        assert one.handle in repr(one)
        assert not any(secret in text or CARD in text for text in shown)


async def test_no_log_record_and_no_error_shows_an_id(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    errors: list[MinisessionError] = []
    store, clock = RemoteStore(), Clock()

    async def touchy(scope: Scope, receive: Receive, send: Send) -> None:
        calls = (session.save, session.refresh, lambda: session.update("n", lambda n: n))
        session.get("n")
        await app.manager.revoke(str(session.handle))
        session["n"] = "a secret value"
        for call in calls:
            try:
                await call()
            except MinisessionError as error:
                errors.append(error)
        await respond(send)

    pages = routed(begin=begin, login=login, count=count, touchy=touchy)
    app = SessionMiddleware(pages, store, clock=clock)
    async with running(app):
        browser, thief = Browser(app), Browser(app)
        await browser.get("/begin")
        ids = [str(browser.id)]
        store.faults = [Fault.REFUSES]
        await browser.get("/login")
        store.faults = [Fault.UNSURE_BEFORE]
        await browser.get("/login")
        await browser.get("/login")
        ids.append(str(browser.id))
        thief.id = ids[0]
        await thief.get("/login")  # stale
        clock.advance(60)
        await thief.get("/count")  # reused
        wrong = f"{ids[1].partition('.')[0]}.{'x' * 32}"
        await ask(app, "/count", cookie=f"{browser.name}={wrong}")
        await browser.get("/touchy")
        try:
            async with app.manager.open_handle(ids[1]):
                pass
        except MinisessionError as error:
            errors.append(error)

    secrets = [*ids, wrong, *(id.partition(".")[2] for id in (*ids, wrong)), "a secret value"]
    said = caplog.text + "".join(map(repr, errors))
    assert len(errors) == 4
    for telling in ("a reused secret", "a wrong secret", "answering 503", "are void"):
        assert telling in caplog.text
    assert not any(secret in said for secret in secrets)
