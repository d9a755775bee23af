"""Serves one small application with sessions on one of several servers, for raw-socket tests.

    python -m tests.shared_connection_app <bundled-asyncio|bundled-trio|uvicorn|hypercorn-...>

Prints its port when it listens. In front of the middleware stands code that should never find a
session, and says in the field `x-before` what it found.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from minisession import NoActiveSession, SessionClosed, SessionMiddleware, session
from tests.asgi_client import ASGIApp, Message, Receive, Scope, Send, obey_lifespan


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """POST /begin/<owner> starts a session; POST /look says everything that it sees."""
    if scope["type"] == "lifespan":
        await obey_lifespan(receive, send)
        return
    if scope["path"].startswith("/begin/"):
        session["owner"] = scope["path"].rpartition("/")[2]
    seen = {str(session.get("owner"))}
    size = await _read_body(receive, seen)
    seen.add(await anyio.to_thread.run_sync(_owner))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_look_later, seen)
    session["size"] = size
    body = f"{size} {' '.join(sorted(seen))}".encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _read_body(receive: Receive, seen: set[str]) -> int:
    size = 0
    while True:
        message = await receive()
        seen.add(_owner())
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            return size


async def _look_later(seen: set[str]) -> None:
    await anyio.lowlevel.checkpoint()
    seen.add(_owner())


def _owner() -> str:
    return str(session.get("owner"))


def guarded(inner: ASGIApp) -> ASGIApp:
    """Stand before the middleware, look for a session, and report what there was."""

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        found = _found()

        async def reporting(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"x-before", found.encode())]
                message = {**message, "headers": headers}
            await send(message)

        await inner(scope, receive, reporting)

    return outer


def _found() -> str:
    try:
        return f"a live session of {session.get('owner')}"
    except (NoActiveSession, SessionClosed) as error:
        return type(error).__name__


def _bundled(site: Any, backend: Any) -> None:
    from minisession.server import ServerConfig, run

    run(site, ServerConfig(port=0), backend, on_start=lambda a: print(a[0][1], flush=True))


def _uvicorn(site: Any) -> None:
    import uvicorn

    listener = _listener()
    config = uvicorn.Config(site, http="h11", loop="asyncio", lifespan="on", log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


def _hypercorn(site: Any, backend: str) -> None:
    import hypercorn.asyncio
    import hypercorn.config
    import hypercorn.trio

    listener = _listener()
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.fileno()}"]
    serve: Any = hypercorn.trio.serve if backend == "trio" else hypercorn.asyncio.serve
    anyio.run(partial(serve, site, config, mode="asgi"), backend=backend)


def _listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    return listener


SERVERS: dict[str, Callable[[Any], None]] = {
    "bundled-asyncio": partial(_bundled, backend="asyncio"),
    "bundled-trio": partial(_bundled, backend="trio"),
    "uvicorn": _uvicorn,
    "hypercorn-asyncio": partial(_hypercorn, backend="asyncio"),
    "hypercorn-trio": partial(_hypercorn, backend="trio"),
}

if __name__ == "__main__":
    SERVERS[sys.argv[1]](guarded(SessionMiddleware(app, "memory://")))
