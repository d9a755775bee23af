"""The applications of the pages, asked as the pages say, each begun in an empty folder."""

from __future__ import annotations

import re
import runpy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from httpx import ASGITransport, AsyncClient

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
FRAMEWORKS = ["with_fastapi.py", "with_starlette.py", "with_litestar.py"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@asynccontextmanager
async def served(example: str) -> AsyncIterator[Callable[[], AsyncClient]]:
    """Run an example between the two ends of its lifespan; what is yielded makes browsers."""
    app = runpy.run_path(str(EXAMPLES / example))["app"]
    transport = ASGITransport(app)
    to_app, told = anyio.create_memory_object_stream[dict[str, str]](1)
    reply, from_app = anyio.create_memory_object_stream[dict[str, str]](1)
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    async with to_app, told, reply, from_app, anyio.create_task_group() as tasks:
        tasks.start_soon(app, scope, told.receive, reply.send)
        await to_app.send({"type": "lifespan.startup"})
        assert await from_app.receive() == {"type": "lifespan.startup.complete"}
        yield lambda: AsyncClient(
            transport=transport, base_url="https://example.com", follow_redirects=True
        )
        await to_app.send({"type": "lifespan.shutdown"})
        assert await from_app.receive() == {"type": "lifespan.shutdown.complete"}


@pytest.mark.parametrize("example", FRAMEWORKS)
async def test_each_browser_has_a_cart_of_its_own(example: str) -> None:
    async with served(example) as browser, browser() as one, browser() as two:
        await one.post("/cart/tea")
        added = await one.post("/cart/milk")
        shown_to_one = await one.get("/cart")
        shown_to_two = await two.get("/cart")

    assert added.json() == ["tea", "milk"]
    assert shown_to_one.json() == ["tea", "milk"]
    assert shown_to_two.json() == []


async def test_the_readmes_application_fills_a_cart(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    [application] = re.findall(r"```python\n(from fastapi .*?)```", readme, re.DOTALL)
    file = tmp_path / "readme_application.py"
    file.write_text(application)

    async with served(str(file)) as browser, browser() as one:
        await one.post("/cart/tea")
        added = await one.post("/cart/milk")

    assert added.json() == ["tea", "milk"]


@pytest.mark.parametrize("example", FRAMEWORKS)
async def test_looking_sends_no_cookie_and_the_first_write_does(example: str) -> None:
    async with served(example) as browser, browser() as one:
        looked = await one.get("/cart")
        wrote = await one.post("/cart/tea")

    assert "set-cookie" not in looked.headers
    assert wrote.headers["set-cookie"].startswith("__Host-MINISESSID=")


async def test_visits_are_counted_however_many_arrive_at_once() -> None:
    async with served("with_fastapi.py") as browser, browser() as one:
        await one.post("/visits")
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(one.post, "/visits")
        last = await one.post("/visits")

    assert last.json() == 22


async def test_the_tutorial_goes_as_it_is_told() -> None:
    async with served("guestbook.py") as browser, browser() as curl, browser() as thief:
        pages = [
            await curl.get("/"),
            await curl.post("/note", content="buy milk"),
            await curl.post("/login", content="Ada"),
        ]
        thief.cookies.update(curl.cookies)
        pages += [await thief.get("/"), await curl.post("/logout"), await thief.get("/")]

    assert [page.text for page in pages] == [
        "Hello stranger! Your notes: none\n",
        "Hello stranger! Your notes: buy milk\n",
        "Hello Ada! Your notes: buy milk\n",
        "Hello Ada! Your notes: buy milk\n",
        "Bye. Hello stranger! Your notes: none\n",
        "Hello stranger! Your notes: none\n",
    ]


async def test_the_tutorials_notes_survive_the_server() -> None:
    async with served("guestbook.py") as browser, browser() as curl:
        await curl.post("/note", content="survive")
        cookies = curl.cookies

    async with served("guestbook.py") as browser, browser() as curl:
        curl.cookies.update(cookies)
        page = await curl.get("/")

    assert page.text == "Hello stranger! Your notes: survive\n"
