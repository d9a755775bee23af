"""The ASGI scope of a request: a plain translation, nothing is decided here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .forwarded import Client
from .requests import Request
from .sockets import Address

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

ASGI_VERSION = "3.0"

# `send` raises an OSError after a disconnect, which is all that 2.4 adds; yet 2.4 is not said. From
# it on, Starlette's streaming responses only send, and no longer listen for the disconnect: a
# stream that waits for its next event in silence would outlive its client for as long, and under
# BaseHTTPMiddleware could not even ask (its task group loses the answer in the cancelled scope in
# which `is_disconnected()` asks). A generator that is then left to the garbage collector with a
# task group open would also leave that group's scope in our task instead of in one of the app's.
# uvicorn says 2.3, hypercorn 2.1: apps are used to being cancelled as soon as the client goes.
HTTP_SPEC_VERSION = "2.3"


def http_scope(
    request: Request,
    *,
    scheme: str,
    root_path: str,
    client: Client | None,
    server: Address | None,
    state: dict[str, Any],
) -> Scope:
    """Return the scope of one request; `state` is copied, as the lifespan spec demands.

    `path` includes `root_path`, as the ASGI spec says since 2023.
    """
    target = request.target
    path, raw_path = target.path, target.raw_path
    if root_path and path != "*":  # the server as a whole is mounted nowhere
        path, raw_path = root_path + path, root_path.encode("utf-8") + raw_path
    return {
        "type": "http",
        "asgi": {"version": ASGI_VERSION, "spec_version": HTTP_SPEC_VERSION},
        "http_version": request.http_version,
        "method": request.method.decode("ascii"),
        "scheme": scheme,
        "path": path,
        "raw_path": raw_path,
        "query_string": target.query,
        "root_path": root_path,
        "headers": request.headers,
        "client": client,
        "server": server,
        "state": state.copy(),
    }
