"""A shop that sends each visitor one gift, and the race test that watches it do so."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from minisession import SessionManager, SessionMiddleware, session
from minisession.testing import explore, virtual_time

Endpoint = Callable[[Request], Awaitable[Response]]


# --8<-- [start:shop]
async def welcome(request: Request) -> Response:
    """Promise one gift to a new visitor."""
    session["gifts"] = 1
    return PlainTextResponse("One gift is yours.")


async def take(request: Request) -> Response:
    """Send the gift, if there is one left."""
    if session.get("gifts", 0) < 1:
        return PlainTextResponse("You have had yours.")
    session["gifts"] -= 1
    await session.save()
    await pack()
    request.app.state.sent += 1
    return PlainTextResponse("It is on its way.")


async def pack() -> None:
    """Ask the warehouse, which takes some time."""
    await anyio.sleep(0.2)


def make_shop(store: SessionManager | str, take: Endpoint = take) -> Starlette:
    """Return the application, which counts in `state.sent` what has left the house."""
    shop = Starlette(
        routes=[
            Route("/welcome", welcome, methods=["POST"]),
            Route("/take", take, methods=["POST"]),
        ],
        middleware=[Middleware(SessionMiddleware, store=store)],
    )
    shop.state.sent = 0
    return shop


# --8<-- [end:shop]


# --8<-- [start:scenario]
async def double_click(database: Path, take: Endpoint = take) -> None:
    """A visitor clicks twice, and is sent one gift."""
    async with SessionManager(f"sqlite:///{database}", clock=virtual_time) as sessions:
        shop = make_shop(sessions, take)
        transport = ASGITransport(shop)
        async with AsyncClient(transport=transport, base_url="https://shop.example") as browser:
            await browser.post("/welcome")
            async with anyio.create_task_group() as clicks:
                clicks.start_soon(browser.post, "/take")
                clicks.start_soon(browser.post, "/take")

    assert shop.state.sent == 1, f"{shop.state.sent} gifts were sent"


def test_who_clicks_twice_is_sent_one_gift(tmp_path: Path) -> None:
    """In whatever order things happen."""
    explore(partial(double_click, tmp_path / "sessions.db"), backend="asyncio")


# --8<-- [end:scenario]


# --8<-- [start:mended]
async def take_once(request: Request) -> Response:
    """Take the gift out of the session, then send it."""
    left = await session.update("gifts", lambda gifts: max(gifts - 1, -1), default=0)
    if left < 0:
        return PlainTextResponse("You have had yours.")
    await pack()
    request.app.state.sent += 1
    return PlainTextResponse("It is on its way.")


# --8<-- [end:mended]
