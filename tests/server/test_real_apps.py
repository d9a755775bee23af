"""A real Starlette app and a real FastAPI app on the bundled server, used by httpx over sockets.

What the frameworks and the client promise their users must hold here as on any other server. What
goes over the wire is the matter of the other tests in this folder.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.middleware import Middleware

from tests.server.kit import serving
from tests.server.real_apps import (
    CHUNK,
    Journal,
    NoteStreams,
    fastapi_app,
    middleware,
    starlette_app,
)

pytestmark = pytest.mark.anyio

MakeApp = Callable[[Journal, Path, list[Middleware]], Any]
Open = Callable[..., Any]

MEGABYTE = 1024 * 1024
PAGE = b"<p>hello</p>" * 1000


@pytest.fixture(params=[starlette_app, fastapi_app])
def make_app(request: pytest.FixtureRequest) -> MakeApp:
    made: MakeApp = request.param
    return made


class Site:
    """One of the apps, being served, and a browser for it."""

    def __init__(self, journal: Journal, browser: httpx.AsyncClient) -> None:
        self.journal = journal
        self.get, self.post, self.stream = browser.get, browser.post, browser.stream
        self.request = browser.request
        self.url = str(browser.base_url).rstrip("/")


@pytest.fixture
def opened(make_app: MakeApp, tmp_path: Path) -> Open:
    """Serve the app for an `async with`, with its middleware or `layers`; ten seconds must do."""
    (tmp_path / "page.html").write_bytes(PAGE)

    @asynccontextmanager
    async def open_site(
        layers: list[Middleware] | None = None, **config: Any
    ) -> AsyncIterator[Site]:
        journal = Journal()
        app = make_app(journal, tmp_path, middleware() if layers is None else layers)
        with anyio.fail_after(10):
            async with serving(app, **config) as (host, port):
                browser = httpx.AsyncClient(
                    base_url=f"http://{host}:{port}",
                    headers={"accept-encoding": "identity"},
                    event_hooks={"response": [note_port]},
                )
                async with browser:
                    yield Site(journal, browser)

    return open_site


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def note_port(response: httpx.Response) -> None:
    """Note the client's own port while it is connected."""
    _, response.extensions["port"] = response.extensions["network_stream"].get_extra_info(
        "client_addr"
    )


def port_of(response: httpx.Response) -> int:
    """The client's own port, which tells connections apart."""
    port: int = response.extensions["port"]
    return port


async def test_a_path_and_a_query_arrive_decoded(opened: Open) -> None:
    async with opened() as site:
        answer = await site.get("/items/süß & 日本", params={"tag": ["ä+b", "100 %"]})

    assert answer.json() == {"name": "süß & 日本", "tags": ["ä+b", "100 %"]}


async def test_json_is_read_and_answered(opened: Open) -> None:
    async with opened() as site:
        answer = await site.post("/double", json={"price": 21})

    assert (answer.json(), answer.headers["content-type"]) == ({"total": 42}, "application/json")


async def test_a_large_stream_arrives_whole(opened: Open) -> None:
    received = hashlib.sha256()
    async with opened() as site, site.stream("GET", "/stream?count=256") as answer:
        async for piece in answer.aiter_raw():
            received.update(piece)

    assert answer.headers["transfer-encoding"] == "chunked"
    assert received.hexdigest() == digest(CHUNK * 256)


async def test_several_large_files_are_uploaded_in_one_form(opened: Open) -> None:
    contents = {"größe.bin": CHUNK * 192, "b.bin": CHUNK[::-1] * 64}  # 3 MiB, 1 MiB

    async with opened() as site:
        answer = await site.post("/files", files=[("file", item) for item in contents.items()])

    assert answer.json() == [
        {"name": name, "size": len(content), "sha256": digest(content)}
        for name, content in contents.items()
    ]


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(256):
        yield CHUNK


@pytest.mark.parametrize("body", [pieces, lambda: CHUNK * 256], ids=["chunked", "with its length"])
async def test_an_app_reads_an_upload_as_a_stream(opened: Open, body: Callable[[], Any]) -> None:
    async with opened() as site:
        answer = await site.post("/digest", content=body())

    assert answer.json() == {"size": 256 * len(CHUNK), "sha256": digest(CHUNK * 256)}


async def test_an_early_answer_to_a_large_upload_is_received(opened: Open) -> None:
    async with opened() as site:
        answer = await site.post("/refuse", content=b"x" * 8 * MEGABYTE)
        next_answer = await site.get("/who/")

    assert (answer.status_code, answer.text, next_answer.status_code) == (403, "not for you", 200)


async def test_a_background_task_delays_neither_its_answer_nor_the_next(opened: Open) -> None:
    async with opened() as site:
        answer = await site.get("/later")
        next_answer = await site.get("/who/")
        had_finished = site.journal.has_finished.is_set()
        site.journal.may_finish.set()
        await site.journal.has_finished.wait()

    assert (answer.text, next_answer.status_code, had_finished) == ("soon", 200, False)
    assert port_of(answer) == port_of(next_answer)


async def test_a_hundred_requests_share_one_connection(opened: Open) -> None:
    async with opened() as site:
        answers = [await site.get("/who/") for _ in range(100)]

    assert len({port_of(answer) for answer in answers}) == 1
    assert {tuple(answer.json()) for answer in answers} == {("127.0.0.1", port_of(answers[0]))}


async def test_requests_at_the_same_time_each_get_their_own_answer(opened: Open) -> None:
    names: dict[int, str] = {}

    async def ask(site: Site, n: int) -> None:
        names[n] = (await site.get(f"/items/{n}?tag=a")).json()["name"]

    async with opened() as site, anyio.create_task_group() as tasks:
        for n in range(20):
            tasks.start_soon(ask, site, n)

    assert names == {n: str(n) for n in range(20)}


STATIC = [
    pytest.param("GET", "page.html", {}, 200, PAGE, id="whole"),
    pytest.param("HEAD", "page.html", {}, 200, b"", id="HEAD"),
    pytest.param("GET", "page.html", {"range": "bytes=3-7"}, 206, b"hello", id="a range"),
    pytest.param("GET", "page.html", {"range": "bytes=99999-"}, 416, None, id="no such range"),
    pytest.param("GET", "no.html", {}, 404, None, id="no such file"),
    pytest.param("GET", "%2e%2e/secret", {}, 404, None, id="outside"),
    pytest.param("POST", "page.html", {}, 405, None, id="POST"),
]


@pytest.mark.parametrize(("method", "name", "headers", "status", "body"), STATIC)
async def test_static_files_are_served(
    opened: Open, method: str, name: str, headers: dict[str, str], status: int, body: bytes | None
) -> None:
    async with opened() as site:
        answer = await site.request(method, f"/static/{name}", headers=headers)
        next_answer = await site.get("/who/")

    assert answer.status_code == status
    assert body is None or answer.content == body
    assert next_answer.status_code == 200
    assert port_of(answer) == port_of(next_answer)


async def test_head_tells_the_length_that_get_would_have(opened: Open) -> None:
    async with opened() as site:
        answer = await site.request("HEAD", "/static/page.html")

    assert answer.headers["content-length"] == str(len(PAGE))


async def test_a_static_file_that_has_not_changed_is_not_sent_again(opened: Open) -> None:
    async with opened() as site:
        etag = (await site.get("/static/page.html")).headers["etag"]
        answer = await site.get("/static/page.html", headers={"if-none-match": etag})
        next_answer = await site.get("/who/")

    assert (answer.status_code, answer.content) == (304, b"")
    assert port_of(answer) == port_of(next_answer)


@pytest.mark.parametrize("path", ["/static/page.html", "/stream?count=8"])
async def test_a_response_can_be_compressed(opened: Open, path: str) -> None:
    async with opened() as site:
        plain = await site.get(path)
        packed = await site.get(path, headers={"accept-encoding": "gzip"})

    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content


async def test_a_middleware_of_the_app_sees_every_response(opened: Open) -> None:
    async with opened() as site:
        answers = [await site.get("/who/"), await site.get("/nowhere"), await site.post("/refuse")]

    assert [answer.headers["x-passed"] for answer in answers] == ["GET", "GET", "POST"]


@pytest.mark.parametrize(
    ("origin", "status"), [("https://shop.example", 200), ("https://else.example", 400)]
)
async def test_a_preflight_is_answered(opened: Open, origin: str, status: int) -> None:
    headers = {"origin": origin, "access-control-request-method": "PUT"}

    async with opened() as site:
        answer = await site.request("OPTIONS", "/double", headers=headers)

    assert answer.status_code == status
    assert (answer.headers.get("access-control-allow-origin") == origin) == (status == 200)


async def test_an_app_that_trusts_some_hosts_refuses_others(opened: Open) -> None:
    async with opened() as site:
        answer = await site.get("/who/", headers={"host": "evil.example"})

    assert (answer.status_code, answer.text) == (400, "Invalid host header")


async def test_an_http_exception_keeps_its_status_and_headers(opened: Open) -> None:
    async with opened() as site:
        answer = await site.get("/teapot")

    assert (answer.status_code, answer.headers["x-spout"]) == (418, "yes")
    assert "short and stout" in answer.text


async def test_a_bug_of_the_app_is_a_500_and_a_log_entry(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened() as site:
        answer = await site.get("/broken")
        next_answer = await site.get("/who/")

    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert next_answer.status_code == 200
    (record,) = [each for each in caplog.records if each.name == "minisession.server"]
    assert record.getMessage() == "GET /broken: the app failed"


async def test_a_redirect_and_a_url_know_where_the_app_is_mounted(opened: Open) -> None:
    async with opened(root_path="/shop") as site:
        redirect = await site.get("/who")
        address = await site.get("/address")

    assert (redirect.status_code, redirect.headers["location"]) == (307, f"{site.url}/shop/who/")
    assert address.text == f"{site.url}/shop/who/"


async def test_cookies_are_set_one_by_one_and_come_back(opened: Open) -> None:
    async with opened() as site:
        first = await site.get("/cookies")
        second = await site.get("/cookies")

    assert first.headers.get_list("set-cookie") == [
        "taste=sweet; Path=/; SameSite=lax",
        "size=large; HttpOnly; Path=/; SameSite=lax",
    ]
    assert (first.json(), second.json()) == ({}, {"taste": "sweet", "size": "large"})


@pytest.mark.parametrize(
    "path", ["/forever", "/silent", "/waiting"], ids=["it sends", "it asks", "it waits"]
)
@pytest.mark.parametrize("layers", [[], middleware()], ids=["alone", "in middleware"])
async def test_a_stream_ends_when_its_client_goes(
    opened: Open, path: str, layers: list[Middleware], caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(layers=[Middleware(NoteStreams), *layers]) as site:
        async with site.stream("GET", path) as answer:
            pass  # it has begun
        await site.journal.has_left.wait()
        next_answer = await site.get("/who/")

    assert (answer.status_code, next_answer.status_code) == (200, 200)
    assert [each.getMessage() for each in caplog.records if each.levelno > logging.INFO] == []


@pytest.mark.needs("curl")
async def test_curl_is_told_to_continue_before_it_uploads(opened: Open, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(CHUNK * 128)  # curl expects 100 Continue for more than 1 MiB

    async with opened() as site:
        command = ["curl", "-sSv", "-X", "POST", "-H", "Expect: 100-continue", "-T", str(upload)]
        result = await anyio.run_process([*command, f"{site.url}/digest"])

    assert b"< HTTP/1.1 100" in result.stderr
    assert digest(CHUNK * 128).encode() in result.stdout
