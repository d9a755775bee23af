"""What OWASP and NIST ask of session management, tried as an attacker would.

`docs/reference/security.md` says which requirement each test proves, and a test at the end of this
file compares the two.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from minisession import SessionConfig, SessionMiddleware, session
from minisession._ids import new_handle, new_secret
from minisession.abc import Store
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import (
    COOKIE,
    Answer,
    Browser,
    Message,
    Receive,
    Scope,
    Send,
    ask,
    http_scope,
    respond,
    routed,
    running,
)
from tests.clock import Clock

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
MINUTE = 60.0  # seconds


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store, not opened yet."""
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "sessions.db")


async def root(scope: Scope, receive: Receive, send: Send) -> None:
    """Say who is logged in."""
    await respond(send, str(session.get("user", "nobody")).encode())


async def visit(scope: Scope, receive: Receive, send: Send) -> None:
    session["seen"] = True
    await respond(send)


async def login(scope: Scope, receive: Receive, send: Send) -> None:
    session.regenerate()
    session["user"] = "ann"
    session.principal = "user:ann"
    await respond(send)


async def renew(scope: Scope, receive: Receive, send: Send) -> None:
    session.regenerate(delete_old_session=False)
    await respond(send)


async def logout(scope: Scope, receive: Receive, send: Send) -> None:
    session.destroy()
    await respond(send)


PAGES = routed(root=root, visit=visit, login=login, renew=renew, logout=logout)


async def who(app: SessionMiddleware, id: str | None) -> bytes:
    """Return whom a request with this id is taken for."""
    return (await ask(app, cookie=f"{COOKIE}={id}")).body


# --- ids and where they count ------------------------------------------------------------------


async def test_a_planted_id_is_never_adopted(store: Store) -> None:
    app = SessionMiddleware(PAGES, store)
    planted = f"{new_handle()}.{new_secret()}"
    async with running(app):
        victim = Browser(app)
        victim.id = planted

        await victim.get("/login")

        assert victim.id != planted
        assert str(victim.id).partition(".")[0] != planted.partition(".")[0]
        assert await who(app, victim.id) == b"ann"
        assert await who(app, planted) == b"nobody"


@pytest.mark.parametrize("place", ["query", "path", "header", "another cookie", "form"])
async def test_an_id_counts_in_the_cookie_and_nowhere_else(place: str) -> None:
    app = SessionMiddleware(PAGES, MemoryStore())
    async with running(app):
        browser = Browser(app)
        await browser.get("/login")
        pair = f"{COOKIE}={browser.id}".encode()
        scope, body = http_scope("/"), b""
        if place == "query":
            scope["query_string"] = pair
        elif place == "path":
            scope["path_params"] = {"id": browser.id}
            scope["raw_path"] = b"/;" + pair
        elif place == "header":
            scope["headers"] = [(b"authorization", pair), (b"x-session-id", pair)]
        elif place == "another cookie":
            scope["headers"] = [(b"cookie", b"PHPSESSID=" + pair.partition(b"=")[2])]
        else:
            scope["headers"] = [(b"content-type", b"application/x-www-form-urlencoded")]
            body = pair
        answer = Answer()

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            answer.messages.append(message)

        await app(scope, receive, send)

        assert answer.body == b"nobody"
        assert await who(app, browser.id) == b"ann"


async def test_a_wrong_and_a_replaced_secret_are_reported(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    app = SessionMiddleware(PAGES, store, clock=clock)
    async with running(app):
        browser = Browser(app)
        await browser.get("/visit")
        replaced = str(browser.id)
        await browser.get("/login")
        clock.advance(MINUTE)
        wrong = f"{replaced.partition('.')[0]}.{new_secret()}"

        assert await who(app, replaced) == b"nobody"
        assert await who(app, wrong) == b"nobody"

    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.partition(": ")[2] for text in said] == [
        "a reused secret was presented",
        "a wrong secret was presented",
    ]


async def test_reading_starts_no_session(store: Store) -> None:
    app = SessionMiddleware(PAGES, store)
    async with running(app):
        answer = await ask(app, "/")

        assert answer.cookies == []
        assert await store.scan(app.manager.clock()) == []


# --- login, logout, time -------------------------------------------------------------------------


async def test_an_id_from_before_the_login_is_worth_nothing_after_it(store: Store) -> None:
    app = SessionMiddleware(PAGES, store)
    async with running(app):
        victim = Browser(app)
        await victim.get("/visit")
        fixed = victim.id

        await victim.get("/login")

        assert victim.id != fixed
        assert await who(app, fixed) == b"nobody"
        assert await who(app, victim.id) == b"ann"


async def test_an_old_id_that_may_go_on_ends_with_the_grace(store: Store) -> None:
    clock = Clock()
    app = SessionMiddleware(PAGES, store, SessionConfig(rotation_grace=30), clock=clock)
    async with running(app):
        browser = Browser(app)
        await browser.get("/login")
        old = browser.id
        await browser.get("/renew")
        assert await who(app, old) == b"ann"

        clock.advance(31)

        assert await who(app, old) == b"nobody"
        assert await who(app, browser.id) == b"ann"


async def test_a_copied_cookie_is_worth_nothing_after_the_logout(store: Store) -> None:
    app = SessionMiddleware(PAGES, store)
    async with running(app):
        browser = Browser(app)
        await browser.get("/login")
        copied = browser.id

        answer = await browser.get("/logout")

        assert browser.id is None
        assert "Max-Age=0" in answer.cookies[0]
        assert await who(app, copied) == b"nobody"
        assert await store.scan(app.manager.clock()) == []


async def test_an_idle_session_ends_at_its_time_out_and_an_active_one_does_not(
    store: Store,
) -> None:
    clock = Clock()
    app = SessionMiddleware(PAGES, store, SessionConfig(cache_expire=15), clock=clock)
    idle, active = Browser(app), Browser(app)
    await idle.get("/login")
    await active.get("/login")
    for _ in range(2):
        clock.advance(8 * MINUTE)
        assert (await active.get("/")).body == b"ann"

    assert await who(app, idle.id) == b"nobody"
    assert await who(app, active.id) == b"ann"


async def test_a_session_ends_at_its_absolute_time_out_whatever_its_activity(store: Store) -> None:
    clock = Clock()
    config = SessionConfig(cache_expire=15, absolute_timeout=60)
    app = SessionMiddleware(PAGES, store, config, clock=clock)
    async with running(app):
        browser = Browser(app)
        await browser.get("/visit")
        for _ in range(7):
            clock.advance(8 * MINUTE)
            await browser.get("/login")
        id = browser.id
        assert await who(app, id) == b"ann"

        clock.advance(5 * MINUTE)

        assert await who(app, id) == b"nobody"


async def test_all_sessions_of_a_user_can_be_found_and_ended(store: Store) -> None:
    app = SessionMiddleware(PAGES, store)
    async with running(app):
        desk, phone, other = Browser(app), Browser(app), Browser(app)
        await desk.get("/login")
        await phone.get("/login")
        await other.get("/visit")
        mine = await store.of_principal("user:ann", app.manager.clock())
        assert len(mine) == 2

        for one in mine:
            assert await app.manager.revoke(one.handle)

        assert await store.of_principal("user:ann", app.manager.clock()) == []
        assert await who(app, desk.id) == await who(app, phone.id) == b"nobody"
        assert len(await store.scan(app.manager.clock())) == 1


# --- what the browser is told ----------------------------------------------------------------


async def test_the_cookie_over_https_is_as_the_catalogues_ask() -> None:
    app = SessionMiddleware(PAGES, MemoryStore())
    async with running(app):
        [line] = (await ask(app, "/login")).cookies
        plain = SessionMiddleware(PAGES, MemoryStore(), SessionConfig(cookie_lifetime=None))
        [until_the_browser_closes] = (await ask(plain, "/login")).cookies

    pair, *attributes = line.split("; ")
    name, _, value = pair.partition("=")
    assert name == "__Host-MINISESSID"
    assert re.fullmatch(r"[\w-]{22}\.[\w-]{32}", value)
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"} < set(attributes)
    assert not any(attribute.startswith("Domain") for attribute in attributes)
    assert any(attribute.startswith("Max-Age") for attribute in attributes)
    assert len(pair) < 4096
    assert "Max-Age" not in until_the_browser_closes
    assert "Expires" not in until_the_browser_closes


async def test_a_response_with_a_session_cookie_is_not_cached() -> None:
    async def eager(scope: Scope, receive: Receive, send: Send) -> None:
        session["seen"] = True
        await respond(send, headers=[(b"cache-control", b"public, max-age=3600")])

    app = SessionMiddleware(eager, MemoryStore())

    answer = await ask(app)

    assert len(answer.cookies) == 1
    assert "no-store" in answer.values(b"cache-control")[0]
    assert "public" not in answer.values(b"cache-control")[0]
    assert answer.values(b"vary") == ["Cookie"]


# --- the page ------------------------------------------------------------------------------------


def functions_of_the_suite() -> Iterator[str]:
    """The names of all test functions of the suite."""
    for file in (ROOT / "tests").rglob("test_*.py"):
        yield from re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)


def anchors(page: str) -> set[str]:
    """The places in a page that links can lead to."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {heading.lower().replace(",", "").replace(" ", "-") for heading in headings}


def test_the_page_names_tests_that_exist_and_all_of_this_file() -> None:
    page = (ROOT / "docs/reference/security.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    here = re.findall(r"^async def (test_\w+)", Path(__file__).read_text(), re.MULTILINE)

    assert named - set(functions_of_the_suite()) == set()
    assert set(here) - named == set()


def test_every_requirement_leads_to_tests_and_no_test_is_idle() -> None:
    page = (ROOT / "docs/reference/security.md").read_text()
    table, _, tests = page.partition("## The tests")

    assert set(re.findall(r"\(#([\w-]+)\)", table)) - {"the-tests"} == anchors(tests)
    assert not re.search(r"^### .+\n\n(?!- `test_)", tests, re.MULTILINE)
