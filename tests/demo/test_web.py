"""The demo's bit of HTTP: what is refused, and what every response carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from minisession.demo.web import (
    MAX_FORM,
    Form,
    Response,
    Site,
    as_html,
    as_json,
    is_from_elsewhere,
    static_files,
)

pytestmark = pytest.mark.anyio


async def page(_: Form) -> Response:
    return as_html("<p>page")


async def echo(form: Form) -> Response:
    return as_json(dict(form))


SITE = Site({("GET", "/"): page, ("POST", "/echo"): echo}, static_files())


async def ask(method: str, path: str, **request: Any) -> httpx.Response:
    transport = httpx.ASGITransport(SITE)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
        return await client.request(method, path, **request)


@pytest.mark.parametrize(
    ("headers", "elsewhere"),
    [
        ({}, False),
        ({b"sec-fetch-site": b"same-origin"}, False),
        ({b"sec-fetch-site": b"none"}, False),
        ({b"sec-fetch-site": b"same-site"}, True),
        ({b"sec-fetch-site": b"cross-site"}, True),
        ({b"sec-fetch-site": b"cross-site", b"origin": b"http://shop.test"}, True),
        ({b"origin": b"http://shop.test"}, False),
        ({b"origin": b"http://shop.test:8001"}, True),
        ({b"origin": b"http://evil.test"}, True),
        ({b"origin": b"http://shop.test.evil.test"}, True),
        ({b"origin": b"null"}, True),
    ],
)
def test_a_form_of_another_origin_is_told_from_one_of_ours(
    headers: Mapping[bytes, bytes], elsewhere: bool
) -> None:
    assert is_from_elsewhere({b"host": b"shop.test", **headers}) is elsewhere


async def test_a_form_of_another_origin_is_refused() -> None:
    answer = await ask("POST", "/echo", headers={"sec-fetch-site": "same-site"})

    assert answer.status_code == 403


async def test_a_form_arrives_whatever_is_in_it() -> None:
    answer = await ask("POST", "/echo", content=b"a=1&empty=&odd=%ff%26")

    assert answer.json() == {"a": "1", "empty": "", "odd": "\ufffd&"}


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/nowhere", 404, None),
        ("POST", "/nowhere", 404, None),
        ("POST", "/", 405, "GET"),
        ("GET", "/echo", 405, "POST"),
        ("DELETE", "/echo", 405, "POST"),
        ("POST", "/static/demo.css", 405, "GET"),
        ("GET", "/static/page.html", 404, None),
        ("GET", "/static/../app.py", 404, None),
    ],
)
async def test_what_is_not_there_is_refused_and_says_what_is(
    method: str, path: str, status: int, allowed: str | None
) -> None:
    answer = await ask(method, path)

    assert (answer.status_code, answer.headers.get("allow")) == (status, allowed)


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/static/demo.css", "text/css"),
        ("/static/demo.js", "text/javascript"),
        ("/static/icon.svg", "image/svg+xml"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_is_there_says_what_it_is(method: str, path: str, content_type: str) -> None:
    answer = await ask(method, path)

    assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)


@pytest.mark.parametrize("path", ["/", "/nowhere", "/static/demo.js"])
async def test_every_response_forbids_what_the_page_does_not_need(path: str) -> None:
    headers = (await ask("GET", path)).headers

    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


FORM = {"type": "http", "method": "POST", "path": "/echo", "headers": []}


async def conversation(scope: Mapping[str, Any], *messages: Mapping[str, Any]) -> list[str]:
    """Run the application on a scope and messages; return the types of what it sends."""
    waiting = list(messages)
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await SITE(dict(scope), receive, send)
    return [str(message.get("status") or message["type"]) for message in sent]


async def test_it_lives_through_the_lifespan() -> None:
    answers = await conversation(
        {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    )

    assert answers == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_websocket_is_closed() -> None:
    assert await conversation({"type": "websocket", "path": "/"}) == ["websocket.close"]


@pytest.mark.parametrize(("size", "status"), [(MAX_FORM, "200"), (MAX_FORM + 1, "413")])
async def test_a_form_may_be_so_long_and_no_longer(size: int, status: str) -> None:
    answers = await conversation(FORM, {"type": "http.request", "body": b"=" * size})

    assert answers[0] == status


async def test_half_a_form_of_a_client_that_left_is_not_acted_upon() -> None:
    answers = await conversation(
        FORM,
        {"type": "http.request", "body": b"a=1", "more_body": True},
        {"type": "http.disconnect"},
    )

    assert answers == ["413", "http.response.body"]
