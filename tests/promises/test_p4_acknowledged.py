"""P4: acknowledged means stored.

Response headers leave only after the store has accepted every write made so far. That nothing
acknowledged is lost by `kill -9`, by a power cut or by a crash between two steps is what the tests
in tests/crash try.
"""

from __future__ import annotations

import anyio
import anyio.abc
import pytest

from minisession import SessionMiddleware, session
from minisession.abc import Store
from tests.asgi_client import Answer, Browser, Receive, Scope, Send, respond, routed, running
from tests.remote_store import RemoteStore

pytestmark = pytest.mark.anyio


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
