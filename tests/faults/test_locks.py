"""Another process that holds SQLite's locks: for half a second, and for ever."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

from minisession import SessionMiddleware, session
from minisession.stores._sqlite import batches
from minisession.stores._sqlite.connect import connect
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import Browser, Receive, Scope, Send, respond, routed, running

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print("held", flush=True)
sys.stdin.readline()
"""
WRITE_LOCK = ("BEGIN IMMEDIATE",)
WHOLE_FILE = ("PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "COMMIT")


@contextmanager
def held(path: Path, *statements: str) -> Iterator[subprocess.Popen[str]]:
    """Hold a lock in a process of its own, until it reads a line or the block ends."""
    command = [sys.executable, "-c", HOLDER, str(path), *statements]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


async def put(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = session.get("n", 0) + 1
    await respond(send, b"%d" % session["n"])


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"%d" % session.get("n", 0))


def site(path: Path) -> SessionMiddleware:
    return SessionMiddleware(routed(put=put, read=read), SQLiteStore(path))


async def test_a_lock_of_half_a_second_is_waited_for_and_holds_up_no_reader(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    app = site(path)
    async with running(app):
        browser = Browser(app)
        await browser.get("/put")
        bodies: list[bytes] = []

        async def write() -> None:
            bodies.append((await browser.get("/put")).body)

        with held(path, *WRITE_LOCK) as holder:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                deadline = anyio.current_time() + 0.5
                while anyio.current_time() < deadline:
                    assert (await browser.get("/read")).body == b"1"
                    assert bodies == []
                    await anyio.sleep(0.02)
                holder.kill()  # which gives its locks back

    assert bodies == [b"2"]


async def test_a_lock_that_stays_is_a_503_and_holds_up_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "connect", partial(connect, busy_timeout=0.2))
    path = tmp_path / "sessions.db"
    app = site(path)
    async with running(app):
        browser = Browser(app)
        await browser.get("/put")
        id = browser.id

        with held(path, *WRITE_LOCK):
            for _ in range(3):
                answer = await browser.get("/put")
                assert (answer.status, answer.cookies) == (503, [])
                assert (await browser.get("/read")).body == b"1"
                assert (await Browser(app).get("/put")).status == 503

        assert (await browser.get("/put")).body == b"2"
        assert browser.id == id


async def test_a_program_that_takes_the_whole_file_is_a_503_for_readers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minisession.stores._sqlite.connect.BUSY_TIMEOUT", 0.1)
    path = tmp_path / "sessions.db"
    app = site(path)
    browser = Browser(app)
    await browser.get("/put")
    await app.manager.store.__aexit__(None, None, None)

    with held(path, *WHOLE_FILE):
        answers = [await browser.get(page) for page in ("/read", "/put")]
        visitor = await Browser(app).get("/read")
    await app.manager.store.__aexit__(None, None, None)

    assert [(answer.status, answer.cookies) for answer in answers] == [(503, [])] * 2
    assert visitor.status == 200  # who has no cookie asks nobody
    assert (await browser.get("/put")).body == b"2"
    await app.manager.store.__aexit__(None, None, None)
