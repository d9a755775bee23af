"""Whatever a client presents as an id: what is none never reaches the store, nor harms anybody."""

from __future__ import annotations

import re
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minisession import SessionConfig, SessionGone, SessionManager, SessionMiddleware, session
from minisession.abc import Change, Outcome, Record
from minisession.stores.memory import MemoryStore
from tests.asgi_client import COOKIE, Answer, Receive, Scope, Send, http_scope, respond
from tests.effort import Tally, effort

HANDLE, SECRET = "A" * 22, "B" * 32
WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{21}[AQgw]")


class Listening(MemoryStore):
    """A store that remembers by which handles it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.handles: list[str] = []

    def load_nowait(self, handle: str, now: float) -> Record | None:
        self.handles.append(handle)
        return super().load_nowait(handle, now)

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        self.handles += [change.handle for change in changes]
        return await super().commit(changes, now)


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    """Read, and write where that is asked for."""
    seen = len(session)
    if scope["path"] == "/write":
        session["n"] = seen
    await respond(send, b"%d" % seen)


async def present(app: SessionMiddleware, *fields: bytes, path: str = "/") -> Answer:
    """Send a request with these Cookie fields, byte for byte."""
    answer = Answer()
    scope = http_scope(path)
    scope["headers"] = [(b"cookie", field) for field in fields]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: object) -> None:
        answer.messages.append(message)  # type: ignore[arg-type]

    await app(scope, receive, send)
    return answer


HOSTILE = [
    "",
    ".",
    "..",
    "/",
    "../../etc/passwd",
    "\0",
    HANDLE,
    SECRET,
    f".{SECRET}",
    f"{HANDLE}.",
    f"{HANDLE}.{SECRET}.",
    f"{HANDLE}.{SECRET}\0",
    f" {HANDLE}.{SECRET} x",
    f"{HANDLE}..{SECRET}",
    f"{HANDLE}.{SECRET[:-1]}",
    f"{HANDLE}.{SECRET}B",
    f"{HANDLE[:-1]}B.{SECRET}",  # its spare bits are not zero: another spelling of a handle
    f"{HANDLE[:-1]}%41.{SECRET}",
    f"{HANDLE}%2E{SECRET}",
    f"{HANDLE}\0.{SECRET}",
    f"{HANDLE}.{SECRET}\x7f",
    f"{HANDLE[:-1]}é.{SECRET}",
    f"{HANDLE[:-1]}\uff21.{SECRET}",
    f"{HANDLE[:-1]}+.{SECRET}",
    "' OR 1=1 --",
    "{}",
    "None",
    "x" * 100_000,
    f"{HANDLE}.{SECRET}" * 2000,
]


def well_formed(handles: list[str]) -> bool:
    return all(WELL_FORMED.fullmatch(handle) for handle in handles)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/", "/write"])
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:40]))
async def test_a_hostile_cookie_is_no_cookie(text: str, path: str) -> None:
    store = Listening()
    app = SessionMiddleware(page, store)

    answer = await present(app, f"{COOKIE}={text}".encode(), path=path)

    assert (answer.status, answer.body) == (200, b"0")
    assert well_formed(store.handles)
    assert HANDLE not in store.handles
    assert bool(answer.cookies) == (path == "/write")
    assert SECRET not in "".join(answer.cookies)


@pytest.mark.anyio
@pytest.mark.parametrize("lenient", [False, True], ids=["strict", "not strict"])
@pytest.mark.parametrize("text", [*HOSTILE, "\ud800"], ids=lambda text: ascii(text[:40]))
async def test_a_hostile_text_opens_and_ends_nothing(text: str, lenient: bool) -> None:
    store = Listening()
    with pytest.warns() if lenient else anyio.CancelScope():
        config = SessionConfig(use_strict_mode=not lenient)
    async with SessionManager(store, config) as sessions:
        async with sessions.open(text) as one:
            assert not one.is_started
        if text != HANDLE:
            with pytest.raises(SessionGone) as refusal:
                async with sessions.open_handle(text):
                    raise AssertionError("it was opened")
            assert text in ("", ".", "..", "/") or text not in str(refusal.value)
            assert not await sessions.revoke(text)

    assert store.handles == []


@pytest.mark.anyio
async def test_a_request_can_ask_for_four_sessions_at_most() -> None:
    store = Listening()
    ids = [f"{number:021}A.{SECRET}" for number in range(1000)]

    field = "; ".join(f"{COOKIE}={id}" for id in ids).encode()
    answer = await present(SessionMiddleware(page, store), field, field)

    assert answer.status == 200
    assert len(store.handles) <= 4


def pieces() -> st.SearchStrategy[bytes]:
    """What cookies are made of, whole and broken, so that what is drawn is nearly one."""
    known = [COOKIE, "=", ";", " ", ".", '"', ",", HANDLE, SECRET, f"{HANDLE}.{SECRET}", "\0"]
    return st.sampled_from(known).map(str.encode) | st.binary(max_size=8)


fields = st.lists(pieces(), max_size=12).map(b"".join) | st.binary(max_size=200)


def test_no_cookie_field_breaks_anything_or_gets_further_than_it_should(tally: Tally) -> None:
    tried = 0

    @settings(max_examples=effort(200, soak=20_000), deadline=None)
    @given(st.lists(fields, min_size=1, max_size=3), st.sampled_from(["/", "/write"]))
    @example([f"{COOKIE}={HANDLE}.{SECRET}".encode()], "/write")
    def check(sent: list[bytes], path: str) -> None:
        nonlocal tried
        tried += 1
        store = Listening()
        app = SessionMiddleware(page, store)

        answer = anyio.run(lambda: present(app, *sent, path=path))

        assert (answer.status, answer.body) == (200, b"0")
        assert well_formed(store.handles)
        assert len(answer.cookies) == (path == "/write")
        assert SECRET not in "".join(answer.cookies)  # what was presented is not adopted

    check()
    tally("requests", tried)
