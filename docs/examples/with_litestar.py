"""Litestar: wrap the whole application, so that every handler and every guard has the session."""

from typing import Any

from litestar import Litestar, Request, get, post
from litestar.params import FromPath

from minisession import SessionMiddleware, session


@post("/cart/{item:str}")
async def add(item: FromPath[str]) -> list[str]:
    """Put an item into the cart of whoever asks."""
    session.setdefault("cart", []).append(item)
    return list(session["cart"])


@get("/cart", sync_to_thread=True)
def show(request: Request[Any, Any, Any]) -> list[str]:
    """Show the cart. Runs in a worker thread, and sees the same session there."""
    return list(request.session.get("cart", []))


app = SessionMiddleware(Litestar([add, show]), store="sqlite:///sessions.db")
