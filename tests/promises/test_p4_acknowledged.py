"""P4: acknowledged means stored.

Response headers leave only after the store has accepted every write made so far; `kill -9` at any
moment loses no write that a client was told about.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc
import pytest

from minisession import SessionManager, SessionMiddleware, session
from minisession.abc import Store
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import Answer, Browser, Receive, Scope, Send, respond, routed, running
from tests.remote_store import RemoteStore

pytestmark = pytest.mark.anyio

SERVING = Path(__file__).with_name("serving.py")
KILLS = 10  # on each of the two backends
CLIENTS = 8


class Load:
    """Counts the answers of all clients, and says when there are enough."""

    def __init__(self) -> None:
        self.expect(0)

    def expect(self, answers: int) -> None:
        self._missing = answers
        self.is_reached = anyio.Event()

    def count(self) -> None:
        self._missing -= 1
        if self._missing <= 0:
            self.is_reached.set()


@dataclass
class Client:
    """Sends one request after the other, and notes what it was told is stored."""

    load: Load
    id: str | None = None
    acknowledged: list[str] = field(default_factory=list)

    async def work(self, port: int) -> None:
        try:
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                while True:
                    await self._ask(stream)
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream):
            return

    async def _ask(self, stream: anyio.abc.ByteStream) -> None:
        path = f"/{len(self.acknowledged)}"
        cookie = "" if self.id is None else f"cookie: MINISESSID={self.id}\r\n"
        await stream.send(f"GET {path} HTTP/1.1\r\nhost: example.com\r\n{cookie}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await stream.receive()
        assert answer.startswith(b"HTTP/1.1 200 ")
        head, _, body = answer.partition(b"\r\n\r\n")
        self._keep_cookie(head)
        self.acknowledged.append(path)
        self.load.count()
        while len(body) < len(str(len(self.acknowledged))):
            body += await stream.receive()

    def _keep_cookie(self, head: bytes) -> None:
        for line in head.decode().split("\r\n"):
            if line.lower().startswith("set-cookie: minisessid="):
                self.id = line.partition("=")[2].partition(";")[0]


@asynccontextmanager
async def served(backend: str, database: Path) -> AsyncIterator[tuple[anyio.abc.Process, int]]:
    """Start the server in a process of its own; kill it at the end, whatever happened."""
    command = [sys.executable, str(SERVING), backend, str(database)]
    async with await anyio.open_process(command, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            with anyio.fail_after(30):
                port = int(await process.stdout.receive())
            yield process, port
        finally:
            if process.returncode is None:
                process.kill()


@pytest.mark.slow
async def test_ten_kills_under_load_on_each_backend_lose_nothing_that_was_acknowledged(
    database: Path, anyio_backend: str
) -> None:
    rng = random.Random(anyio_backend)
    load = Load()
    clients = [Client(load) for _ in range(CLIENTS)]
    for _ in range(KILLS):
        load.expect(rng.randint(1, 120))
        async with (
            served(anyio_backend, database) as (process, port),
            anyio.create_task_group() as tasks,
        ):
            for client in clients:
                tasks.start_soon(client.work, port)
            with anyio.fail_after(60):
                await load.is_reached.wait()
            process.kill()
        await _require_all(clients, database)

    assert all(client.acknowledged for client in clients)


async def _require_all(clients: list[Client], database: Path) -> None:
    async with SessionManager(SQLiteStore(database)) as sessions:
        for client in clients:
            async with sessions.open(client.id) as one:
                missing = [path for path in client.acknowledged if path not in one]
                assert missing == []


async def test_every_message_of_a_response_finds_its_writes_stored(store: Store) -> None:
    missing: list[str] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["begun"] = True
        await send({"type": "http.response.start", "status": 200, "headers": []})
        session["body"] = True
        await send({"type": "http.response.body", "body": b""})

    async def check(*keys: str) -> None:
        [summary] = await store.scan(0.0)
        record = await store.load(summary.handle, 0.0)
        assert record is not None
        missing.extend(key for key in keys if key not in record.items)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def checking(message: object) -> None:
            await check("begun", *(["body"] if "body" in str(message) else []))

        await wrapped(scope, receive, checking if scope["type"] == "http" else send)

    wrapped = SessionMiddleware(routed(page=page), store)
    async with running(app):
        await Browser(app).get("/page")

    assert missing == []


async def test_many_requests_at_once_are_each_told_after_their_own_write_is_stored(
    store: Store,
) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        session["n"] = 1
        await respond(send)

    wrapped = SessionMiddleware(routed(page=page), store)
    early: list[Answer] = []

    async def visit() -> None:
        answer = Answer()
        browser = Browser(wrapped)
        await browser.get("/page", into=answer)
        handle = str(browser.id).partition(".")[0]
        if await store.load(handle, 0.0) is None:
            early.append(answer)

    async with running(wrapped), anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(visit)

    assert early == []


async def test_the_response_waits_for_the_store_and_not_for_later_writes() -> None:
    store = RemoteStore()
    order: list[str] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        async def writes_on() -> None:
            for n in range(1000):
                session["later"] = n
                await anyio.lowlevel.checkpoint()
            order.append("the writer is done")

        session["n"] = 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writes_on)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            order.append("the headers are out")
        await send({"type": "http.response.body", "body": b""})

    app = SessionMiddleware(routed(page=page), store)
    async with running(app):
        await Browser(app).get("/page")

    assert order == ["the headers are out", "the writer is done"]
