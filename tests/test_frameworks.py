"""Starlette, FastAPI and Litestar, unchanged: `request.session` and the ambient `session` are one.

The frameworks run as they are; only the server is ours. What each has in its own way is tried in
each: endpoints in the thread pool, background tasks, streams, middlewares that run the application
in a task of their own, exception handlers, WebSockets.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from litestar import Litestar
from litestar import Request as LitestarRequest
from litestar import WebSocket as LitestarWebSocket
from litestar import get as litestar_get
from litestar import websocket as litestar_websocket
from litestar.background_tasks import BackgroundTask as LitestarBackgroundTask
from litestar.response import Response as LitestarResponse
from litestar.response import Stream as LitestarStream
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from minisession import SessionMiddleware, session
from minisession.abc import Store
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import Answer, ASGIApp, Browser, converse, running
from tests.remote_store import RemoteStore

pytestmark = pytest.mark.anyio

OnHTTPError = Callable[[Request, Exception], Response]


def note(word: str) -> None:
    """Append a word to the log in the session, without assigning it again."""
    session.setdefault("log", []).append(word)


# --- Starlette -----------------------------------------------------------------------------------


async def begin(request: Request) -> Response:
    request.session["log"] = ["begin"]
    return PlainTextResponse("ok")


async def same(request: Request) -> Response:
    return PlainTextResponse(str(request.session == session and session["log"] == ["begin"]))


def in_a_thread(request: Request) -> Response:
    note("thread")
    request.session["log"].append("thread again")
    return PlainTextResponse("ok")


async def background(request: Request) -> Response:
    return PlainTextResponse("ok", background=BackgroundTask(note, "background"))


async def streaming(request: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        for n in range(3):
            note(f"part {n}")
            yield str(n)

    return StreamingResponse(parts())


async def streaming_in_a_thread(request: Request) -> Response:
    def parts() -> Iterator[str]:
        for n in range(3):
            note(f"part {n}")
            yield str(n)

    return StreamingResponse(parts())


async def failing(request: Request) -> Response:
    note("failing")
    raise ZeroDivisionError


async def forbidden(request: Request) -> Response:
    note("forbidden")
    raise HTTPException(403)


async def log_in(request: Request) -> Response:
    session.regenerate()
    note("in")
    return PlainTextResponse("ok")


async def log_out(request: Request) -> Response:
    session.destroy()
    return PlainTextResponse("ok")


async def show(request: Request) -> Response:
    return PlainTextResponse(" ".join(request.session.get("log", [])))


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        websocket.session["log"].append(text)
        await websocket.send_text(str(websocket.session == session))


async def on_forbidden(request: Request, error: Exception) -> Response:
    note("handled")
    return PlainTextResponse("no", 403)


class Noting(BaseHTTPMiddleware):
    """Runs the rest of the application in another task, and writes on both sides of it."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        if request.url.path != "/noted":
            return await call_next(request)  # type: ignore[no-any-return]
        note("before")
        response = await call_next(request)
        note("after")
        return response  # type: ignore[no-any-return]


ROUTES = [
    Route("/begin", begin),
    Route("/same", same),
    Route("/thread", in_a_thread),
    Route("/background", background),
    Route("/streaming", streaming),
    Route("/streaming-thread", streaming_in_a_thread),
    Route("/failing", failing),
    Route("/forbidden", forbidden),
    Route("/noted", in_a_thread),
    Route("/login", log_in),
    Route("/logout", log_out),
    Route("/show", show),
    WebSocketRoute("/chat", chat),
]


def starlette(store: Store) -> ASGIApp:
    app = Starlette(routes=ROUTES, exception_handlers={403: on_forbidden})
    app.add_middleware(Noting)
    app.add_middleware(SessionMiddleware, store=store)
    return app


def mounted(store: Store) -> ASGIApp:
    """The same below a mount, wrapped from the outside."""
    inner = Starlette(routes=ROUTES, exception_handlers={403: on_forbidden})
    inner.add_middleware(Noting)
    return SessionMiddleware(Starlette(routes=[Mount("/", inner)]), store)


# --- FastAPI -------------------------------------------------------------------------------------


async def with_dependency() -> AsyncIterator[None]:
    """A dependency that ends after the endpoint."""
    yield
    note("dependency")


def noting(*words: str) -> Callable[[], None]:
    """Return an endpoint that FastAPI runs in its thread pool."""

    def endpoint() -> None:
        for word in words:
            note(word)

    return endpoint


def fastapi(store: Store) -> ASGIApp:
    app = FastAPI(exception_handlers={403: on_forbidden})
    app.add_middleware(Noting)
    app.add_middleware(SessionMiddleware, store=store)
    app.get("/thread")(noting("thread", "thread again"))
    app.get("/dependency", dependencies=[Depends(with_dependency)])(noting("endpoint"))
    app.router.routes += ROUTES
    return app


# --- Litestar ------------------------------------------------------------------------------------

AnyRequest = LitestarRequest[Any, Any, Any]


@litestar_get("/begin")
async def litestar_begin(request: AnyRequest) -> str:
    request.session["log"] = ["begin"]
    return "ok"


@litestar_get("/same")
async def litestar_same(request: AnyRequest) -> str:
    return str(request.session == session and session["log"] == ["begin"])


@litestar_get("/thread", sync_to_thread=True)
def litestar_thread(request: AnyRequest) -> str:
    note("thread")
    request.session["log"].append("thread again")
    return "ok"


@litestar_get("/background")
async def litestar_background() -> LitestarResponse[str]:
    async def later() -> None:
        note("background")

    return LitestarResponse("ok", background=LitestarBackgroundTask(later))


@litestar_get("/streaming")
async def litestar_streaming() -> LitestarStream:
    async def parts() -> AsyncIterator[str]:
        for n in range(3):
            note(f"part {n}")
            yield str(n)

    return LitestarStream(parts())


@litestar_get("/login")
async def litestar_login() -> str:
    session.regenerate()
    note("in")
    return "ok"


@litestar_get("/logout")
async def litestar_logout() -> str:
    session.destroy()
    return "ok"


@litestar_get("/failing")
async def litestar_failing() -> str:
    note("failing")
    raise ZeroDivisionError


@litestar_get("/show")
async def litestar_show(request: AnyRequest) -> str:
    return " ".join(request.session.get("log", []))


@litestar_websocket("/chat")
async def litestar_chat(socket: LitestarWebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    async for text in socket.iter_data("text"):
        socket.session["log"].append(text)
        await socket.send_text(str(socket.session == session))


def litestar(store: Store) -> ASGIApp:
    handlers = [
        litestar_begin,
        litestar_same,
        litestar_thread,
        litestar_background,
        litestar_streaming,
        litestar_login,
        litestar_logout,
        litestar_failing,
        litestar_show,
        litestar_chat,
    ]
    return SessionMiddleware(Litestar(handlers, logging_config=None), store)


# --- what all of them can do ---------------------------------------------------------------------

Make = Callable[[Store], ASGIApp]
STARLETTE_LIKE = [starlette, mounted, fastapi]
ALL = [*STARLETTE_LIKE, litestar]


@asynccontextmanager
async def visiting(make: Make, store: Store | None = None) -> AsyncIterator[Browser]:
    """A browser that has begun a session at a running application."""
    app = make(RemoteStore() if store is None else store)
    async with running(app):
        browser = Browser(app)
        await browser.get("/begin")
        yield browser


async def log_of(browser: Browser) -> list[str]:
    answer = await browser.get("/show")
    return answer.body.decode().strip('"').split()


@pytest.mark.parametrize("make", ALL)
async def test_the_session_of_the_request_is_the_ambient_one(make: Make) -> None:
    async with visiting(make) as browser:
        answer = await browser.get("/same")

    assert b"True" in answer.body


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/thread", "begin thread thread again"),
        ("/background", "begin background"),
        ("/streaming", "begin part 0 part 1 part 2"),
        ("/login", "begin in"),
        ("/logout", ""),
    ],
)
async def test_whatever_an_endpoint_writes_is_stored(make: Make, path: str, expected: str) -> None:
    async with visiting(make) as browser:
        answer = await browser.get(path)
        assert await log_of(browser) == expected.split()

    assert answer.status == 200


@pytest.mark.parametrize("make", STARLETTE_LIKE)
@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/streaming-thread", 200, "begin part 0 part 1 part 2"),
        ("/forbidden", 403, "begin forbidden handled"),
        ("/noted", 200, "begin before thread thread again after"),
    ],
)
async def test_starlettes_threads_handlers_and_middlewares_write_too(
    make: Make, path: str, status: int, expected: str
) -> None:
    async with visiting(make) as browser:
        answer = await browser.get(path)
        assert await log_of(browser) == expected.split()

    assert answer.status == status


@pytest.mark.parametrize("make", ALL)
async def test_an_endpoint_that_fails_is_a_500_of_the_framework_and_loses_nothing(
    make: Make,
) -> None:
    async with visiting(make) as browser:
        answer = Answer()
        with suppress(ZeroDivisionError):  # Starlette answers and raises
            await browser.get("/failing", into=answer)
        assert await log_of(browser) == ["begin", "failing"]

    assert (answer.status, answer.cookies) == (500, [])


async def test_a_dependency_of_fastapi_writes_after_the_endpoint() -> None:
    async with visiting(fastapi) as browser:
        await browser.get("/dependency")
        assert await log_of(browser) == ["begin", "endpoint", "dependency"]


@pytest.mark.parametrize("make", ALL)
async def test_a_websocket_writes_into_the_session_of_its_browser(make: Make) -> None:
    async with visiting(make) as browser:
        sent = await converse(browser.app, ["a", "b"], path="/chat", cookie=browser.cookie)
        assert await log_of(browser) == ["begin", "a", "b"]

    texts = [message["text"] for message in sent if message["type"] == "websocket.send"]
    assert texts == ["True", "True"]


@pytest.mark.parametrize("make", ALL)
async def test_a_login_changes_the_id_and_a_logout_deletes_it(make: Make) -> None:
    async with visiting(make) as browser:
        before = browser.id
        await browser.get("/login")
        after = browser.id
        await browser.get("/logout")

    assert None not in (before, after)
    assert before != after
    assert browser.id is None


@pytest.mark.parametrize("make", ALL)
async def test_each_of_many_browsers_has_its_own_session(make: Make) -> None:
    app = make(MemoryStore())
    logs: list[list[str]] = []

    async def visit(times: int) -> None:
        browser = Browser(app)
        await browser.get("/begin")
        for _ in range(times):
            await browser.get("/thread")
        logs.append(await log_of(browser))

    async with running(app), anyio.create_task_group() as tasks:
        for times in range(8):
            tasks.start_soon(visit, times)

    expected = [["begin"] + ["thread", "thread", "again"] * times for times in range(8)]
    assert sorted(logs, key=len) == expected


@pytest.mark.parametrize("make", ALL)
async def test_a_framework_on_a_database_survives_its_restart(make: Make, tmp_path: object) -> None:
    async with visiting(make, SQLiteStore(f"{tmp_path}/s.db")) as browser:
        await browser.get("/thread")
        id = browser.id

    async with visiting(make, SQLiteStore(f"{tmp_path}/s.db")) as browser:
        browser.id = id
        assert await log_of(browser) == ["begin", "thread", "thread", "again"]


@pytest.fixture(autouse=True)
def quiet_litestar(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "litestar")
