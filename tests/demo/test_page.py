"""The page as text: what is shown of a visitor's session and of the server."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from minisession import SessionManager
from minisession.demo.app import SOURCES
from minisession.demo.page import About, render

pytestmark = pytest.mark.anyio

VOID = {"meta", "link", "img", "input"}


async def page(store: str = "memory://", message: str = "", **values: object) -> str:
    """Render the page for a visitor whose session holds these values."""
    about = About(store, "trio", datetime(2026, 1, 2, tzinfo=UTC), SOURCES)
    async with SessionManager("memory://") as sessions, sessions.open() as session:
        session.update(values)
        return render(about, ("Tea",), 3, message, session)


class Outline(HTMLParser):
    """Keeps what is open, what is named, and what refers to a name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            elif name in ("for", "aria-labelledby"):
                self.references.add(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("user", [None, "Ada"])
async def test_the_page_is_well_formed_and_its_labels_name_what_is_there(user: str | None) -> None:
    cart = [{"item": "Tea", "quantity": 2}]

    outline = Outline(await page(user=user, cart=cart, started=datetime.now(UTC)))

    assert outline.open == []
    assert sorted(outline.ids) == sorted(set(outline.ids))
    assert outline.references <= set(outline.ids)


async def test_nothing_of_a_visitor_is_taken_for_markup() -> None:
    evil = "<script>'\"&"

    text = await page(user=evil, message=evil, cart=[{"item": evil, "quantity": 1}])

    assert evil not in text
    assert text.count("&lt;script&gt;&#x27;&quot;&amp;") == 5


async def test_the_id_is_nowhere_on_the_page() -> None:
    about = About("memory://", "trio", datetime.now(UTC), SOURCES)
    async with SessionManager("memory://") as sessions, sessions.open() as session:
        session["user"] = "Ada"
        text = render(about, (), 3, "", session)

        assert session.id is not None
        assert session.handle is not None
        assert session.handle in text
        assert session.id.removeprefix(session.handle) not in text


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("sqlite:///minisession-demo.db", "<dd>SQLite, minisession-demo.db</dd>"),
        ("memory://", "<dd>memory, until the server stops</dd>"),
        ("redis://:password@host/0", "<dd>redis</dd>"),
    ],
)
async def test_the_store_is_named_without_what_could_be_secret(store: str, shown: str) -> None:
    assert shown in await page(store)


async def test_the_code_that_is_shown_is_the_code_that_runs() -> None:
    assert "session[&quot;user&quot;] = name" in await page()
