"""The same small site twice, in Starlette and in FastAPI, each written as its users would.

Owns what the tests of `test_real_apps.py` ask for; has no idea of the server that runs it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, BackgroundTasks, FastAPI, Query, UploadFile
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile as StarletteUploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

CHUNK = bytes(range(256)) * 64  # 16 KiB


class Journal:
    """What happened on the server, for a test that waits for it.

    Mutable: three events, each set once.

    Attributes:
        may_finish: lets the background task end.
        has_finished: it has.
        has_left: a stream was left, by its end or because the client had gone.
    """

    def __init__(self) -> None:
        self.may_finish = anyio.Event()
        self.has_finished = anyio.Event()
        self.has_left = anyio.Event()

    async def work(self) -> None:
        """A background task that ends when the test allows it."""
        await self.may_finish.wait()
        self.has_finished.set()


Lifespan = Callable[[Any], Any]


def lifespan_with(journal: Journal) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[dict[str, Journal]]:
        yield {"journal": journal}

    return lifespan


async def say_that_it_passed(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await call_next(request)
    response.headers["x-passed"] = request.method
    return response


class NoteStreams:
    """Notes in the journal when the call of the app for a stream has ended."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            if scope.get("path") in {"/forever", "/silent", "/waiting"}:
                scope["state"]["journal"].has_left.set()


def middleware() -> list[Middleware]:
    return [
        Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1"]),
        Middleware(CORSMiddleware, allow_origins=["https://shop.example"], allow_methods=["PUT"]),
        Middleware(GZipMiddleware, minimum_size=500),
        Middleware(BaseHTTPMiddleware, dispatch=say_that_it_passed),
    ]


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield CHUNK


async def digest_of(request: Request) -> dict[str, object]:
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}


def described(name: str | None, content: bytes) -> dict[str, object]:
    return {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def with_cookies(response: Response) -> Response:
    response.set_cookie("taste", "sweet", path="/", samesite="lax")
    response.set_cookie("size", "large", httponly=True)
    return response


# --- Starlette -----------------------------------------------------------------------------------


async def items(request: Request) -> Response:
    found = {"name": request.path_params["name"], "tags": request.query_params.getlist("tag")}
    return JSONResponse(found)


async def double(request: Request) -> Response:
    return JSONResponse({"total": 2 * (await request.json())["price"]})


async def who(request: Request) -> Response:
    assert request.client is not None
    return JSONResponse(list(request.client))


async def stream(request: Request) -> Response:
    return StreamingResponse(chunks(int(request.query_params["count"])))


# No generators: Starlette leaves one that it does not need any more to the garbage collector, and
# trio warns of that.


class Endless:
    """A stream that only sends."""

    def __aiter__(self) -> Endless:
        return self

    async def __anext__(self) -> bytes:
        return CHUNK


class EndsWithItsClient:
    """A stream that sends once, and then asks whether its client is still there."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.has_begun = False

    def __aiter__(self) -> EndsWithItsClient:
        return self

    async def __anext__(self) -> bytes:
        if not self.has_begun:
            self.has_begun = True
            return CHUNK
        while not await self.request.is_disconnected():  # noqa: ASYNC110 - it can only be asked
            await anyio.sleep(0.01)
        raise StopAsyncIteration


class Waits:
    """A stream that sends once, and then waits for what never happens."""

    def __init__(self) -> None:
        self.has_begun = False

    def __aiter__(self) -> Waits:
        return self

    async def __anext__(self) -> bytes:
        if self.has_begun:
            await anyio.sleep_forever()
        self.has_begun = True
        return CHUNK


async def forever(request: Request) -> Response:
    return StreamingResponse(Endless())


async def silent(request: Request) -> Response:
    return StreamingResponse(EndsWithItsClient(request))


async def waiting(request: Request) -> Response:
    return StreamingResponse(Waits())


async def digest(request: Request) -> Response:
    return JSONResponse(await digest_of(request))


async def files(request: Request) -> Response:
    async with request.form() as form:
        uploads = [file for _, file in form.multi_items() if isinstance(file, StarletteUploadFile)]
        return JSONResponse([described(file.filename, await file.read()) for file in uploads])


async def refuse(request: Request) -> Response:
    return PlainTextResponse("not for you", 403)


async def later(request: Request) -> Response:
    return PlainTextResponse("soon", background=BackgroundTask(request.state.journal.work))


async def cookies(request: Request) -> Response:
    return with_cookies(JSONResponse(request.cookies))


async def teapot(request: Request) -> Response:
    raise HTTPException(418, "short and stout", {"x-spout": "yes"})


async def broken(request: Request) -> Response:
    raise RuntimeError("a bug of the app")


async def address(request: Request) -> Response:
    return PlainTextResponse(str(request.url_for("who")))


def starlette_app(journal: Journal, folder: Path, layers: list[Middleware]) -> Starlette:
    return Starlette(
        routes=[
            Route("/items/{name}", items),
            Route("/double", double, methods=["POST"]),
            Route("/who/", who),
            Route("/stream", stream),
            Route("/forever", forever),
            Route("/silent", silent),
            Route("/waiting", waiting),
            Route("/digest", digest, methods=["POST"]),
            Route("/files", files, methods=["POST"]),
            Route("/refuse", refuse, methods=["POST"]),
            Route("/later", later),
            Route("/cookies", cookies),
            Route("/teapot", teapot),
            Route("/broken", broken),
            Route("/address", address),
            Mount("/static", StaticFiles(directory=folder)),
        ],
        middleware=layers,
        lifespan=lifespan_with(journal),
    )


# --- FastAPI -------------------------------------------------------------------------------------


class Order(BaseModel):
    price: int


api = APIRouter()


@api.get("/items/{name}")
async def api_items(name: str, tag: Annotated[list[str], Query()]) -> dict[str, object]:
    return {"name": name, "tags": tag}


@api.post("/double")
def api_double(order: Order) -> dict[str, int]:  # in the thread pool
    return {"total": 2 * order.price}


@api.post("/files")
async def api_files(file: list[UploadFile]) -> list[dict[str, object]]:
    return [described(each.filename, await each.read()) for each in file]


@api.get("/later", response_class=PlainTextResponse)
async def api_later(request: Request, tasks: BackgroundTasks) -> str:
    tasks.add_task(request.state.journal.work)
    return "soon"


@api.get("/teapot")
async def api_teapot() -> None:
    raise HTTPException(418, "short and stout", {"x-spout": "yes"})


@api.get("/broken")
def api_broken() -> None:
    raise RuntimeError("a bug of the app")


def fastapi_app(journal: Journal, folder: Path, layers: list[Middleware]) -> FastAPI:
    app = FastAPI(middleware=layers, lifespan=lifespan_with(journal))
    app.include_router(api)
    app.get("/who/")(who)
    app.get("/stream")(stream)
    app.get("/forever")(forever)
    app.get("/silent")(silent)
    app.get("/waiting")(waiting)
    app.get("/cookies")(cookies)
    app.get("/address")(address)
    app.post("/digest")(digest)
    app.post("/refuse")(refuse)
    app.mount("/static", StaticFiles(directory=folder))
    return app
