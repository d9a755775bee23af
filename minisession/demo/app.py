"""The demo's handlers: every line that touches a session is in this file.

Each handler gets the fields of a form and returns a response. None is handed a session, and none
saves one: `session` is that of the request which the task works for, and the response leaves when
the store has what was written.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import anyio

from minisession import SessionConfig, SessionGone, SessionMiddleware, session

from .page import About, render
from .web import Form, Handler, Response, Site, as_html, as_json, see_other, static_files

GOODS = ("Tea", "Bread", "Honey", "Apples")
LONGEST_NAME = 40  # characters

BURST = 50  # requests of each kind
BURST_WORK = 0.05  # seconds; the longest that one of them pretends to work

SLOW_WORK = 1.5  # seconds; time enough to log out meanwhile


def create_app(store: str, backend: str) -> SessionMiddleware:
    """Return the demo as an ASGI application, with its sessions.

    Args:
        store: the URL of the store, such as "sqlite:///minisession-demo.db".
        backend: the name of the event loop, to be shown.
    """
    about = About(store, backend, datetime.now(UTC), SOURCES)
    routes: dict[tuple[str, str], Handler] = {
        ("GET", "/"): partial(home, about),
        ("GET", "/state"): state,
        ("POST", "/login"): login,
        ("POST", "/logout"): logout,
        ("POST", "/count"): count,
        ("POST", "/cart/add"): add,
        ("POST", "/cart/remove"): remove,
        ("POST", "/prepare"): prepare,
        ("POST", "/burst/increment"): increment,
        ("POST", "/burst/mark"): mark,
        ("POST", "/slow"): slow,
        ("POST", "/stranger"): stranger,
    }
    config = SessionConfig(exclude=("/static/*",))
    return SessionMiddleware(Site(routes, static_files()), store, config)


# --- log in, log out ------------------------------------------------------------------------------


async def login(form: Form) -> Response:
    """Log in under any name; a real application checks a password here."""
    name = form.get("name", "").strip()[:LONGEST_NAME]
    if not name:
        return back_to("you", "Please type a name.")
    session.regenerate()  # a new id first, then what only its owner may see
    session["user"] = name
    return back_to("you", f"Welcome, {name}. Your session was given a new id before your name.")


async def logout(_: Form) -> Response:
    """End the session: its data and its id are gone from the store."""
    session.destroy()
    return back_to("you", "You are logged out. This message is the first value of a new session.")


# --- a counter and a cart -------------------------------------------------------------------------


async def count(_: Form) -> Response:
    """Add one; of any number of requests at the same time, none is lost."""
    await session.update("count", lambda n: n + 1, default=0)
    return back_to("counter")


async def add(form: Form) -> Response:
    """Put something into the cart."""
    if form.get("item") not in GOODS:
        return back_to("cart", "There is no such thing here.")
    cart = session.setdefault("cart", [])
    for line in cart:
        if line["item"] == form["item"]:
            line["quantity"] += 1  # a dict in a list in the session: it is saved
            return back_to("cart")
    cart.append({"item": form["item"], "quantity": 1})
    return back_to("cart")


async def remove(form: Form) -> Response:
    """Take something out of the cart again."""
    cart = session.get("cart", [])
    cart[:] = [line for line in cart if line["item"] != form.get("item")]
    return back_to("cart")


# --- fifty at once --------------------------------------------------------------------------------


async def increment(form: Form) -> Response:
    """One of fifty that change the same key."""
    await some_work(form)
    total = await session.update("burst", lambda n: n + 1, default=0)
    return as_json({"total": total})


async def mark(form: Form) -> Response:
    """One of fifty that write a key of their own, each after reading the session."""
    already = sum(key.startswith("mark ") for key in session)  # looks first, as handlers do
    await some_work(form)
    session[f"mark {number_in(form)}"] = already
    return as_json({"already": already})


async def some_work(form: Form) -> None:
    """Wait as for a database, a different time in each request, so that they all overlap."""
    await anyio.sleep(BURST_WORK * (number_in(form) * 7 % BURST) / BURST)


def number_in(form: Form) -> int:
    """Return which of the fifty this is; what is no number of theirs counts as the first."""
    text = form.get("number", "")
    return int(text) % BURST if text.isascii() and text.isdigit() and len(text) < 4 else 0


# --- what has ended stays ended -------------------------------------------------------------------


async def slow(_: Form) -> Response:
    """Write to the session once more, long after it was loaded."""
    session["slow"] = "begun"  # with the store at the next await: other requests see it
    await anyio.sleep(SLOW_WORK)
    session["slow"] = "done"
    try:
        await session.save()
    except SessionGone:
        return as_json({"outcome": "void"})
    return as_json({"outcome": "stored"})


# --- somebody else --------------------------------------------------------------------------------


async def stranger(_: Form) -> Response:
    """Say which session a visitor without a cookie has."""
    session["seen"] = datetime.now(UTC)  # without a cookie, this starts a session
    return as_json({"handle": session.handle, "things": len(session.get("cart", []))})


# --- for the page and its script ------------------------------------------------------------------


async def home(about: About, _: Form) -> Response:
    """Show the page. Looking at a session starts none."""
    message = session.pop("message", "")  # shown once
    return as_html(render(about, GOODS, BURST, message, session))


async def prepare(_: Form) -> Response:
    """Start a session where there is none, so that the requests to come share it; tidy it up."""
    session.setdefault("started", datetime.now(UTC))
    for key in list(session):
        if key in ("burst", "slow") or key.startswith("mark "):
            del session[key]
    return as_json({"handle": session.handle})


async def state(_: Form) -> Response:
    """Read back what the store has of the experiments."""
    marks = [int(key.removeprefix("mark ")) for key in session if key.startswith("mark ")]
    return as_json(
        {
            "handle": session.handle,
            "burst": session.get("burst", 0),
            "marks": sorted(marks),
            "slow": session.get("slow"),
        }
    )


def back_to(section: str, message: str = "") -> Response:
    """Return to a section of the page, which shows the message once."""
    if message:
        session["message"] = message
    session.setdefault("started", datetime.now(UTC))
    return see_other(f"/#{section}")


SOURCES = {
    "you": (login, logout),
    "counter": (count,),
    "cart": (add, remove),
    "burst": (increment, mark),
    "ended": (slow,),
    "stranger": (stranger,),
}
