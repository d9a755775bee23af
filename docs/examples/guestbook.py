"""The tutorial's application: a name to log in with and a list to keep, in plain Starlette."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from minisession import SessionMiddleware, session


async def home(request: Request) -> Response:
    """Say who is there and what they noted."""
    name = session.get("user", "stranger")
    notes = session.get("notes", [])
    message = session.pop("message", "")
    return PlainTextResponse(f"{message}Hello {name}! Your notes: {', '.join(notes) or 'none'}\n")


async def note(request: Request) -> Response:
    """Keep one more note."""
    text = (await request.body()).decode()
    session.setdefault("notes", []).append(text)
    return RedirectResponse("/", status_code=303)


async def login(request: Request) -> Response:
    """Log in under the given name. A real application checks a password here."""
    name = (await request.body()).decode()
    session.regenerate()  # a new id first: whoever knew the old one is left outside
    session["user"] = name
    return RedirectResponse("/", status_code=303)


async def logout(request: Request) -> Response:
    """End the session, and start the next one with a message."""
    session.destroy()
    session["message"] = "Bye. "
    return RedirectResponse("/", status_code=303)


app = Starlette(
    routes=[
        Route("/", home),
        Route("/note", note, methods=["POST"]),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
    ],
    middleware=[Middleware(SessionMiddleware, store="sqlite:///guestbook.db")],
)
