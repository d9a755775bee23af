"""An application for a server that is looked at from outside: it counts, and says what it holds."""

from __future__ import annotations

import json

import anyio

from minisession import SessionConfig, SessionMiddleware, session
from minisession.stores.memory import MemoryStore
from tests.asgi_client import Receive, Scope, Send, respond, routed
from tests.leaks.endurance import holdings, open_files


async def count(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = session.get("n", 0) + 1
    body = b"%d" % session["n"]
    await respond(send, body, headers=[(b"content-length", b"%d" % len(body))])


async def login(scope: Scope, receive: Receive, send: Send) -> None:
    session.regenerate()
    session["user"] = [1]
    await respond(send, headers=[(b"content-length", b"2")])


async def logout(scope: Scope, receive: Receive, send: Send) -> None:
    session.destroy()
    await respond(send, headers=[(b"content-length", b"2")])


async def error(scope: Scope, receive: Receive, send: Send) -> None:
    session["n"] = 0
    raise ValueError


async def forever(scope: Scope, receive: Receive, send: Send) -> None:
    """Stream until the client goes."""
    session["n"] = 0
    await send({"type": "http.response.start", "status": 200, "headers": []})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_until_the_client_goes, receive, tasks.cancel_scope)
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await anyio.sleep(0.001)


async def _until_the_client_goes(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def measure(scope: Scope, receive: Receive, send: Send) -> None:
    await store.purge(float("inf"), 1_000_000)
    body = json.dumps({**await holdings(), "files": open_files()}).encode()
    await respond(send, body, headers=[(b"content-length", b"%d" % len(body))])


store = MemoryStore()
app = SessionMiddleware(
    routed(count=count, login=login, logout=logout, error=error, forever=forever, measure=measure),
    store,
    SessionConfig(exclude=("/measure",)),
)
