"""The application that is killed: what its pages do to a session, and what must then be in it.

`PAGES` change the session of the request; `after` says, without any session, what a page makes of
one. A path is "/<who>/<page>/<n>": whose session it should be, the page, and a number to write.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from minisession import session
from tests.asgi_client import Receive, Scope, Send, obey_lifespan


@dataclass(frozen=True)
class State:
    """What there is of a visitor's session: whether it lives, and its data."""

    lives: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)


NOTHING: Final = State()


async def look(n: int) -> None:
    session.get("user")


async def put(n: int) -> None:
    session.update(_put(n))


def _put(n: int) -> dict[str, Any]:
    """Return two keys that must never be of two minds, and up to two pages of a database."""
    return {"put": n, f"slot {n % 5}": [n, "x" * (n * 397 % 6000)]}


async def drop(n: int) -> None:
    session.pop("put", None)


async def count(n: int) -> None:
    await session.update("count", lambda count: count + 1, default=0)


async def login(n: int) -> None:
    session.regenerate()
    session["user"] = n


async def saved_login(n: int) -> None:
    await login(n)
    await session.save()


async def logout(n: int) -> None:
    session.destroy()


async def goodbye(n: int) -> None:
    session.destroy()
    session["notice"] = n


PAGES: dict[str, Callable[[int], Awaitable[None]]] = {
    page.__name__: page for page in (look, put, drop, count, login, saved_login, logout, goodbye)
}
ROTATING: Final = {"login", "saved_login"}
"""Pages that give the session another id."""
ISSUING: Final = ROTATING | {"goodbye"}
"""Pages after which the visitor has another id than before."""


def after(state: State, page: str, n: int) -> State:
    """Return what a page must make of a session."""
    data = dict(state.data)
    match page:
        case "look":
            return state
        case "drop":
            data.pop("put", None)
            return State(state.lives, data)
        case "logout":
            return NOTHING
        case "put":
            data |= _put(n)
        case "count":
            data["count"] = data.get("count", 0) + 1
        case "login" | "saved_login":
            data["user"] = n
        case "goodbye":
            data = {"notice": n}
        case _:
            raise AssertionError(f"there is no page {page!r}")
    return State(True, data)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Do what the page does; answer with what is in the session then, and the path again."""
    if scope["type"] == "lifespan":
        await obey_lifespan(receive, send)
        return
    _, page, n = scope["path"].strip("/").split("/")
    await PAGES[page](int(n))
    body = json.dumps(session.all()).encode()
    headers = [
        (b"content-length", b"%d" % len(body)),
        (b"x-path", scope["path"].encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
