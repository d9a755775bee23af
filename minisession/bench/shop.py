"""The application that the visitors visit: it does with its session all that applications do.

    /arrive   the first visit: writes, in child tasks, a worker thread and a stream too, and is
              held open until everybody is there
    /change   writes twice: two keys as one change, then inside a nested value; perhaps logs in
    /leave    looks, and logs out
    /hold     is held open, and has nothing to do with sessions

It sees the session through `minisession.session` alone, and looks at it wherever it can.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from minisession import session

if TYPE_CHECKING:
    from .visitors import Visitor

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler = Callable[["Visitor", Send], Awaitable[None]]

CHILDREN: Final = ("child 0", "child 1")


async def shop(scope: Any, receive: Any, send: Send) -> None:  # noqa: ARG001  # ASGI's signature
    """Handle one request of the visitor that the scope names."""
    await HANDLERS[scope["path"]](scope["visitor"], send)


def state(visitor: Visitor, changes: int) -> dict[str, Any]:
    """Return what is in a visitor's session after its arrival and so many of its two changes."""
    parts = ["owner"]
    parts += CHILDREN if visitor.manner.has_children else ()
    parts += ["thread"] if visitor.manner.uses_a_thread else ()
    parts += ["stream"] if visitor.manner.streams else ()
    values: dict[str, Any] = {part: visitor.tag(part) for part in parts}
    values["left"] = values["right"] = visitor.tag("pair", min(changes, 1))
    values["nested"] = {"deep": [visitor.tag("deep", turn) for turn in range(max(changes, 1))]}
    return values


async def arrive(visitor: Visitor, send: Send) -> None:
    """Start a session, and stay until everybody has one."""
    session["owner"] = visitor.tag("owner")
    await visitor.pause()
    session["left"] = session["right"] = visitor.tag("pair")
    session["nested"] = {"deep": []}
    await visitor.pause()
    visitor.look("between two writes")
    if visitor.manner.has_children:
        await _with_children(visitor)
    if visitor.manner.uses_a_thread:
        seen = await anyio.to_thread.run_sync(_in_a_thread, visitor.tag("thread"))
        visitor.judge("in a worker thread", seen)
    session["nested"]["deep"].append(visitor.tag("deep"))
    if visitor.manner.streams:
        await _stream(visitor, send)
        return
    await visitor.hold()
    visitor.look("when all were there", state(visitor, 0))
    await _answer(send)


async def change(visitor: Visitor, send: Send) -> None:
    """Change what is stored, in two steps; with a new id if this is a login."""
    visitor.look("before a change", state(visitor, 0))
    if visitor.manner.logs_in:
        session.regenerate()
    await visitor.pause()
    session["left"] = visitor.tag("pair", 1)
    session["right"] = visitor.tag("pair", 1)
    await visitor.pause()
    session["nested"]["deep"].append(visitor.tag("deep", 1))
    await visitor.pause()
    visitor.look("after its changes", state(visitor, 2))
    await _answer(send)


async def leave(visitor: Visitor, send: Send) -> None:
    """See what is there in the end, and log out, which leaves nothing behind in the store."""
    visitor.look("in the last request", *(state(visitor, n) for n in visitor.possible))
    await visitor.pause()
    session.destroy()
    await visitor.pause()
    await _answer(send)


async def hold(visitor: Visitor, send: Send) -> None:
    """Stay until everybody is there: what such a request costs without a session."""
    await visitor.hold()
    await _answer(send)


HANDLERS: Final[dict[str, Handler]] = {
    "/arrive": arrive,
    "/change": change,
    "/leave": leave,
    "/hold": hold,
}


async def _with_children(visitor: Visitor) -> None:
    async with anyio.create_task_group() as tasks:
        for name in CHILDREN:
            tasks.start_soon(_child, visitor, name)


async def _child(visitor: Visitor, name: str) -> None:
    await visitor.pause()
    session[name] = visitor.tag(name)
    await visitor.pause()
    visitor.look("in a child task")


def _in_a_thread(value: str) -> dict[str, Any]:
    session["thread"] = value
    return dict(session)


async def _stream(visitor: Visitor, send: Send) -> None:
    """Answer in parts: held open, and written to, after the headers have left."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    await visitor.hold()
    session["stream"] = visitor.tag("stream")
    await visitor.pause()
    visitor.look("in a stream", state(visitor, 0))
    await send({"type": "http.response.body", "body": b"end"})


async def _answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
