"""The demo as its visitors see it, without a server and without a script."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from minisession import SessionMiddleware
from minisession.demo import app as handlers
from minisession.demo import create_app

pytestmark = pytest.mark.anyio


@pytest.fixture
def demo(anyio_backend_name: str) -> SessionMiddleware:
    return create_app("memory://", anyio_backend_name)


def browser_of(demo: SessionMiddleware) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(demo),
        base_url="http://shop.test",
        follow_redirects=True,
    )


@pytest.fixture
async def browser(demo: SessionMiddleware) -> AsyncIterator[httpx.AsyncClient]:
    async with browser_of(demo) as client:
        yield client


async def post(browser: httpx.AsyncClient, path: str, **form: str) -> str:
    """Send a form; return the page that the browser ends up on."""
    answer = await browser.post(path, data=form)
    assert answer.status_code == 200
    return answer.text


async def handle(browser: httpx.AsyncClient) -> str | None:
    """Return the public name of the browser's session."""
    found: str | None = (await browser.get("/state")).json()["handle"]
    return found


def count_on(page: str) -> int:
    found = re.search(r'<output id="count"[^>]*>(\d+)<', page)
    assert found
    return int(found[1])


def cart_on(page: str) -> list[tuple[str, int]]:
    lines = re.findall(r'<li><span>(\w+)</span> <span class="number">(\d+)<', page)
    return [(item, int(quantity)) for item, quantity in lines]


async def test_looking_starts_no_session(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/")

    assert "none yet: looking starts none" in page.text
    assert list(browser.cookies) == []


async def test_a_login_changes_the_id_and_keeps_the_session(browser: httpx.AsyncClient) -> None:
    await post(browser, "/count")
    handle_before, [id_before] = await handle(browser), browser.cookies.values()

    page = await post(browser, "/login", name=" Ada ")

    assert "Logged in as <strong>Ada</strong>" in page
    assert count_on(page) == 1
    assert await handle(browser) == handle_before
    assert list(browser.cookies.values()) != [id_before]


async def test_the_id_from_before_a_login_opens_nothing(
    browser: httpx.AsyncClient, demo: SessionMiddleware
) -> None:
    await post(browser, "/count")
    old = dict(browser.cookies)
    await post(browser, "/login", name="Ada")

    async with browser_of(demo) as thief:
        thief.cookies.update(old)
        page = (await thief.get("/")).text

    assert "Ada" not in page


async def test_a_message_is_shown_once(browser: httpx.AsyncClient) -> None:
    first = await post(browser, "/login", name="Ada")
    second = (await browser.get("/")).text

    assert ("Welcome, Ada." in first, "Welcome, Ada." in second) == (True, False)


async def test_nobody_logs_in_without_a_name(browser: httpx.AsyncClient) -> None:
    page = await post(browser, "/login", name="  ")

    assert "Please type a name." in page
    assert "Logged in" not in page


async def test_a_long_name_is_cut(browser: httpx.AsyncClient) -> None:
    page = await post(browser, "/login", name="A" * 1000)

    assert f"<strong>{'A' * 40}</strong>" in page


async def test_after_a_logout_everything_is_gone(browser: httpx.AsyncClient) -> None:
    await post(browser, "/login", name="Ada")
    await post(browser, "/cart/add", item="Tea")
    old_handle, old_cookies = await handle(browser), dict(browser.cookies)

    page = await post(browser, "/logout")
    new_handle = await handle(browser)
    browser.cookies = httpx.Cookies(old_cookies)
    page_with_old_cookie = (await browser.get("/")).text

    assert "You are logged out." in page
    assert (cart_on(page), "Ada" in page) == ([], False)
    assert new_handle not in (None, old_handle)
    assert (cart_on(page_with_old_cookie), "Ada" in page_with_old_cookie) == ([], False)


async def test_a_cart_keeps_what_is_put_in_until_it_is_taken_out(
    browser: httpx.AsyncClient,
) -> None:
    for item in ("Tea", "Honey", "Tea"):
        await post(browser, "/cart/add", item=item)
    filled = await post(browser, "/count")
    left = await post(browser, "/cart/remove", item="Tea")
    empty = await post(browser, "/cart/remove", item="Honey")

    assert cart_on(filled) == [("Tea", 2), ("Honey", 1)]
    assert cart_on(left) == [("Honey", 1)]
    assert "Nothing in it." in empty


async def test_only_what_the_shop_has_goes_into_the_cart(browser: httpx.AsyncClient) -> None:
    page = await post(browser, "/cart/add", item="<b>")

    assert "There is no such thing here." in page
    assert cart_on(page) == []


async def test_another_browser_has_a_session_of_its_own(
    browser: httpx.AsyncClient, demo: SessionMiddleware
) -> None:
    await post(browser, "/login", name="Ada")
    async with browser_of(demo) as other:
        page = await post(other, "/count")
        handles = {await handle(browser), await handle(other)}

    assert "Ada" not in page
    assert len(handles) == 2


async def test_of_fifty_and_fifty_requests_at_once_nothing_is_lost(
    browser: httpx.AsyncClient,
) -> None:
    await browser.post("/prepare")
    async with anyio.create_task_group() as tasks:
        for number in range(handlers.BURST):
            for path in ("/burst/increment", "/burst/mark"):
                tasks.start_soon(lambda p, n: browser.post(p, data={"number": n}), path, number)
    state = (await browser.get("/state")).json()

    assert (state["burst"], state["marks"]) == (50, list(range(50)))


async def test_a_second_burst_begins_at_nothing(browser: httpx.AsyncClient) -> None:
    await browser.post("/prepare")
    await browser.post("/burst/increment", data={"number": "7"})
    await browser.post("/burst/mark", data={"number": "7"})
    await browser.post("/prepare")
    state = (await browser.get("/state")).json()

    assert (state["burst"], state["marks"]) == (0, [])


@pytest.mark.parametrize("number", ["", "-1", "x", "¹", "1" * 5000])
async def test_a_request_that_is_none_of_the_fifty_counts_as_the_first(
    browser: httpx.AsyncClient, number: str
) -> None:
    answer = await browser.post("/burst/mark", data={"number": number[:3000]})
    state = (await browser.get("/state")).json()

    assert (answer.status_code, state["marks"]) == (200, [0])


async def test_a_write_that_comes_after_the_logout_is_void(
    browser: httpx.AsyncClient, demo: SessionMiddleware
) -> None:
    outcomes: list[Any] = []

    async def be_slow() -> None:
        answer = await browser.post("/slow")
        outcomes.append((answer.json(), answer.headers.get("set-cookie")))

    await browser.post("/prepare")
    before = await handle(browser)
    async with demo.manager, anyio.create_task_group() as tasks:  # as in a server's lifespan
        tasks.start_soon(be_slow)
        with anyio.fail_after(handlers.SLOW_WORK):
            while (await browser.get("/state")).json()["slow"] != "begun":
                await anyio.lowlevel.checkpoint()
        await post(browser, "/logout")
    after = (await browser.get("/state")).json()

    assert outcomes == [({"outcome": "void"}, None)]
    assert (after["slow"], after["handle"] == before) == (None, False)


async def test_a_write_without_a_logout_is_stored(browser: httpx.AsyncClient) -> None:
    await browser.post("/prepare")
    answer = await browser.post("/slow")

    assert answer.json() == {"outcome": "stored"}
    assert (await browser.get("/state")).json()["slow"] == "done"


async def test_a_stranger_is_given_a_session_and_none_of_mine(browser: httpx.AsyncClient) -> None:
    await post(browser, "/cart/add", item="Tea")
    mine = await handle(browser)
    browser.cookies.clear()

    stranger = (await browser.post("/stranger")).json()

    assert stranger["things"] == 0
    assert stranger["handle"] not in (None, mine)


async def test_styles_and_scripts_have_no_session(browser: httpx.AsyncClient) -> None:
    await post(browser, "/login", name="Ada")

    answer = await browser.get("/static/demo.css")

    assert answer.status_code == 200
    assert "vary" not in answer.headers
