"""The demo's page as HTML: the template `static/page.html` with what a session holds put in.

Owns escaping: whatever goes into the template passes `_escaped`, or was made from what did.
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from html import escape as _escaped
from string import Template
from typing import Any

from minisession import Session

from .web import STATIC, Handler

Handlers = Mapping[str, Sequence[Handler]]


@dataclass(frozen=True, slots=True)
class About:
    """What the page says of the server.

    Attributes:
        store: the URL of its store; of any but SQLite only the scheme is shown.
        backend: the name of its event loop.
        started: when it started.
        handlers: those whose source is shown, by section of the page.
    """

    store: str
    backend: str
    started: datetime
    handlers: Handlers


def render(about: About, goods: Iterable[str], burst: int, message: str, session: Session) -> str:
    """Return the page for one visitor.

    Args:
        about: the server.
        goods: what the shop sells.
        burst: how many cells the picture of the concurrent requests has.
        message: shown once, "" for none.
        session: the visitor's.
    """
    return _template().substitute(
        message=_message(message),
        server_started=_time(about.started),
        server=_escaped(f"Python {platform.python_version()}, {about.backend}"),
        store=_escaped(_store_name(about.store)),
        login=_login(session.get("user")),
        handle=_escaped(session.handle or "none yet: looking starts none"),
        session_started=_session_started(session.get("started"), about.started),
        count=_escaped(str(session.get("count", 0))),
        goods="".join(_good(item) for item in goods),
        cart=_cart(session.get("cart", [])),
        burst=burst,
        cells="<span></span>" * burst,
        **{f"code_{section}": _code(section, about.handlers) for section in about.handlers},
    )


@cache
def _template() -> Template:
    return Template((STATIC / "page.html").read_text("utf-8"))


def _store_name(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return {"sqlite": f"SQLite, {rest[1:]}", "memory": "memory, until the server stops"}.get(
        scheme, scheme
    )


def _time(moment: datetime) -> str:
    """Return a point in time, which the script turns into local time."""
    shown = moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    return f'<time datetime="{_escaped(moment.isoformat())}">{shown}</time>'


def _message(message: str) -> str:
    return f'<p class="message">{_escaped(message)}</p>' if message else ""


def _login(user: str | None) -> str:
    if user is None:
        return (
            '<form method="post" action="/login" class="row">'
            '<label for="name">Your name</label>'
            '<input id="name" name="name" required maxlength="40" autocomplete="off">'
            "<button>Log in</button></form>"
        )
    return (
        f'<form method="post" action="/logout" class="row">'
        f"<p>Logged in as <strong>{_escaped(user)}</strong></p>"
        f'<button class="quiet">Log out</button></form>'
    )


def _session_started(started: datetime | None, server_started: datetime) -> str:
    if started is None:
        return "not yet"
    if started < server_started:
        return f'{_time(started)} <em class="good">before the server: it survived a restart</em>'
    return _time(started)


def _good(item: str) -> str:
    return (
        f'<button name="item" value="{_escaped(item)}"><span aria-hidden="true">+ </span>'
        f'<span class="hidden">Add </span>{_escaped(item)}</button>'
    )


def _cart(cart: Sequence[Mapping[str, Any]]) -> str:
    if not cart:
        return '<p class="empty">Nothing in it.</p>'
    return f'<ul class="cart">{"".join(map(_cart_line, cart))}</ul>'


def _cart_line(line: Mapping[str, Any]) -> str:
    item = _escaped(line["item"])
    return (
        f'<li><span>{item}</span> <span class="number">{int(line["quantity"])}</span>'
        f'<button class="quiet" name="item" value="{item}"'
        f' aria-label="Remove {item}">Remove</button></li>'
    )


def _code(section: str, handlers: Handlers) -> str:
    """Return the source of a section's handlers: what runs is what is shown."""
    source = "\n\n".join(inspect.getsource(handler).rstrip() for handler in handlers[section])
    return (
        "<details><summary>The code that runs</summary>"
        f'<pre tabindex="0"><code>{_escaped(source)}</code></pre></details>'
    )
