"""Starlette: the middleware goes where its own SessionMiddleware would be."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from minisession import SessionMiddleware, session


async def add(request: Request) -> JSONResponse:
    """Put an item into the cart of whoever asks."""
    session.setdefault("cart", []).append(request.path_params["item"])
    return JSONResponse(session["cart"])


def show(request: Request) -> JSONResponse:
    """Show the cart. Runs in a worker thread, and sees the same session there."""
    return JSONResponse(request.session.get("cart", []))


app = Starlette(
    routes=[Route("/cart/{item}", add, methods=["POST"]), Route("/cart", show)],
    middleware=[Middleware(SessionMiddleware, store="sqlite:///sessions.db")],
)
