"""What one response does to the browser's cookie and to caches, and when it does nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest

from minisession import SessionConfig, SessionMiddleware, session
from minisession.config import InsecureConfigWarning, _report_not_sent
from minisession.errors import CookieTooLate
from minisession.stores.memory import MemoryStore
from tests.asgi_client import COOKIE, Answer, Browser, Receive, Scope, Send, ask, respond
from tests.clock import Clock

pytestmark = pytest.mark.anyio

HOUR = 3600.0
Do = Callable[[], object]


class Site:
    """A site over https whose every page runs the function that a test gives it."""

    def __init__(self, config: SessionConfig | None = None) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.app = SessionMiddleware(self._page, self.store, config, clock=self.clock)
        self.do: Do = dict
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = []

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.do()
        await respond(send, status=self.status, headers=self.headers)

    async def visit(self, browser: Browser, do: Do) -> Answer:
        """Have the page do something for a browser."""
        self.do = do
        return await browser.get()


def write() -> None:
    session["n"] = session.get("n", 0) + 1


def read() -> None:
    session.get("n")


def regenerate() -> None:
    session.regenerate()


def login() -> None:
    session.regenerate()
    session["user"] = "Ada"


def log_out() -> None:
    session.destroy()


def nothing() -> None:
    pass


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def browser(site: Site) -> Browser:
    return Browser(site.app)


@pytest.fixture
async def visitor(site: Site, browser: Browser) -> Browser:
    """A browser that has a session already."""
    await site.visit(browser, write)
    return browser


# --- when there is a cookie, and which -----------------------------------------------------------


async def test_the_first_write_sends_a_cookie_and_nothing_else_does(
    site: Site, browser: Browser
) -> None:
    answers = [await site.visit(browser, do) for do in (nothing, read, write, write, read, nothing)]

    assert [len(answer.cookies) for answer in answers] == [0, 0, 1, 0, 0, 0]


async def test_the_cookie_is_as_safe_as_a_cookie_can_be(site: Site, browser: Browser) -> None:
    [cookie] = (await site.visit(browser, write)).cookies

    name, *attributes = cookie.split("; ")
    assert name == f"{COOKIE}={browser.id}"
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=21600"} <= set(attributes)


async def test_over_http_the_cookie_has_another_name(site: Site) -> None:
    browser = Browser(site.app, "MINISESSID", scheme="http")

    [cookie] = (await site.visit(browser, write)).cookies

    assert cookie.startswith("MINISESSID=")
    assert "Secure" not in cookie


async def test_over_http_a_secure_cookie_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    _report_not_sent.cache_clear()  # it is reported once per process and name
    site = Site(SessionConfig(cookie_secure=True, name="secure"))
    browser = Browser(site.app, "secure", scheme="http")

    answers = [await site.visit(browser, write) for _ in range(2)]

    assert [answer.cookies for answer in answers] == [[], []]
    assert caplog.text.count("is Secure and was not sent over http") == 1


async def test_regenerate_sends_the_new_id_and_keeps_the_data(site: Site, visitor: Browser) -> None:
    old = visitor.id
    answer = await site.visit(visitor, regenerate)

    assert len(answer.cookies) == 1
    assert visitor.id != old
    await site.visit(visitor, lambda: session["n"])


async def test_regenerate_before_anything_was_stored_does_nothing(
    site: Site, browser: Browser
) -> None:
    answer = await site.visit(browser, regenerate)

    assert answer.cookies == []


async def test_the_old_id_is_dead_after_a_regenerate(site: Site, visitor: Browser) -> None:
    thief = Browser(site.app)
    thief.id = visitor.id
    await site.visit(visitor, login)

    seen: list[object] = []
    answer = await site.visit(thief, lambda: seen.append(dict(session)))

    assert seen == [{}]
    assert answer.cookies == []


async def test_destroy_deletes_the_cookie(site: Site, visitor: Browser) -> None:
    [cookie] = (await site.visit(visitor, log_out)).cookies

    assert cookie.startswith(f"{COOKIE}=;")
    assert {"Max-Age=0", "Path=/", "Secure"} <= set(cookie.split("; "))
    assert visitor.id is None
    assert repr(site.store) == "<MemoryStore sessions=0>"


async def test_destroy_without_a_cookie_sends_none(site: Site, browser: Browser) -> None:
    assert (await site.visit(browser, log_out)).cookies == []


async def test_destroy_deletes_a_cookie_that_no_session_belongs_to(
    site: Site, browser: Browser
) -> None:
    browser.id = "nonsense"

    assert len((await site.visit(browser, log_out)).cookies) == 1


async def test_a_write_after_destroy_starts_a_new_session(site: Site, visitor: Browser) -> None:
    old = visitor.id

    def log_out_with_a_message() -> None:
        session.destroy()
        session["flash"] = "Bye"

    answer = await site.visit(visitor, log_out_with_a_message)

    assert len(answer.cookies) == 1
    assert visitor.id != old
    seen: list[object] = []
    await site.visit(visitor, lambda: seen.append(dict(session)))
    assert seen == [{"flash": "Bye"}]


async def test_an_unknown_id_is_not_adopted(site: Site, browser: Browser) -> None:
    planted = browser.id = f"{'A' * 22}.{'B' * 32}"

    await site.visit(browser, write)

    assert browser.id != planted
    assert browser.id is not None


@pytest.mark.parametrize("id", ["nonsense", f"{'A' * 22}.{'B' * 32}"])
async def test_an_unknown_id_is_left_alone_until_the_first_write(
    site: Site, browser: Browser, id: str
) -> None:
    browser.id = id

    assert (await site.visit(browser, read)).cookies == []


async def test_without_strict_mode_an_unknown_id_is_adopted_as_in_php() -> None:
    with pytest.warns(InsecureConfigWarning):
        config = SessionConfig(use_strict_mode=False)
    site = Site(config)
    browser = Browser(site.app)
    brought = browser.id = f"{'A' * 22}.{'B' * 32}"

    await site.visit(browser, write)

    assert browser.id == brought
    seen: list[object] = []
    await site.visit(browser, lambda: seen.append(session["n"]))
    assert seen == [1]


async def test_without_strict_mode_a_wrong_secret_still_opens_nothing() -> None:
    with pytest.warns(InsecureConfigWarning):
        config = SessionConfig(use_strict_mode=False)
    site = Site(config)
    visitor, thief = Browser(site.app), Browser(site.app)
    await site.visit(visitor, write)
    thief.id = f"{str(visitor.id)[:22]}.{'B' * 32}"

    seen: list[object] = []

    def look_and_write() -> None:
        seen.append(dict(session))
        write()

    answer = await site.visit(thief, look_and_write)

    assert seen == [{}]
    assert len(answer.cookies) == 1
    assert str(thief.id)[:22] != str(visitor.id)[:22], "a handle that is taken is not claimed"
    await site.visit(visitor, lambda: seen.append(dict(session)))
    assert seen[1] == {"n": 1}


# --- several cookies -----------------------------------------------------------------------------


def unknown(n: int) -> str:
    return f"{n:021d}A.{'B' * 32}"


@pytest.mark.parametrize(
    ("values", "found"),
    [
        pytest.param(["{id}"], True, id="alone"),
        pytest.param(["nonsense", "{id}"], True, id="after a malformed one"),
        pytest.param([unknown(1), "{id}"], True, id="after an unknown one"),
        pytest.param(["{id}", unknown(1)], True, id="before an unknown one"),
        pytest.param([*map(unknown, range(3)), "{id}"], True, id="as the fourth"),
        pytest.param([*map(unknown, range(4)), "{id}"], False, id="as the fifth"),
        pytest.param([unknown(1)] * 9 + ["{id}"], True, id="after repetitions"),
        pytest.param(["nonsense"] * 9 + ["{id}"], True, id="after many malformed ones"),
    ],
)
async def test_of_several_cookies_the_first_that_lives_is_taken_and_four_are_tried(
    values: list[str], found: bool
) -> None:
    site = Site(SessionConfig(name="sid"))
    browser = Browser(site.app, "sid")
    await site.visit(browser, write)

    seen: list[object] = []
    site.do = lambda: seen.append(session.get("n"))
    cookies = "; ".join(f"sid={value}" for value in values).format(id=browser.id)
    await ask(site.app, cookie=cookies)

    assert seen == [1 if found else None]


async def test_two_values_of_a_host_cookie_are_both_refused(site: Site, visitor: Browser) -> None:
    seen: list[object] = []
    site.do = lambda: seen.append(session.get("n"))

    await ask(site.app, cookie=f"{COOKIE}={visitor.id}; {COOKIE}={unknown(1)}")

    assert seen == [None]


# --- a response that would put an old id back ----------------------------------------------------


class Meeting:
    """Two requests of one session: the first has loaded it when the second runs, whole."""

    def __init__(self, config: SessionConfig | None = None) -> None:
        self.clock = Clock()
        self.app = SessionMiddleware(self._page, "memory://", config, clock=self.clock)
        self.go_on = anyio.Event()
        self.is_in = anyio.Event()
        self.first: Do = nothing
        self.then: Do = nothing
        self.second: Do = nothing

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/first":
            self.first()
            self.is_in.set()
            await self.go_on.wait()
            self.then()
        else:
            self.second()
        await respond(send)

    async def hold(self, browser: Browser) -> tuple[Answer, Answer]:
        """Run the second request while the first one waits; return both answers."""
        first = Browser(self.app)
        first.id = browser.id
        slow = Answer()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: first.get("/first", into=slow))
            await self.is_in.wait()
            fast = await browser.get("/second")
            self.go_on.set()
        return slow, fast

    async def begun(self) -> Browser:
        browser = Browser(self.app)
        self.second = write
        await browser.get("/second")
        return browser


@pytest.mark.parametrize("first", [read, write, regenerate, login])
@pytest.mark.parametrize("then", [nothing, read, write])
async def test_a_slow_response_that_began_before_a_login_never_sends_an_id(
    first: Do, then: Do
) -> None:
    meeting = Meeting()
    browser = await meeting.begun()
    meeting.clock.advance(5 * HOUR / 2)  # the cookie is about due, too
    meeting.first, meeting.then, meeting.second = first, then, login

    slow, fast = await meeting.hold(browser)

    assert slow.cookies == []
    assert len(fast.cookies) == 1
    assert (slow.status, fast.status) == (200, 200)


async def test_a_slow_cart_request_beside_a_login_loses_nothing() -> None:
    meeting = Meeting()
    browser = await meeting.begun()
    meeting.first, meeting.second = read, login
    meeting.then = lambda: session.update(cart=["tea"])

    await meeting.hold(browser)

    seen: list[object] = []
    meeting.second = lambda: seen.append(dict(session))
    await browser.get("/second")
    assert seen == [{"n": 1, "user": "Ada", "cart": ["tea"]}]


async def test_a_login_that_was_clicked_twice_takes_effect_once() -> None:
    meeting = Meeting()
    browser = await meeting.begun()

    def slow_login() -> None:
        session.regenerate()
        session["user"] = "twice"

    meeting.first, meeting.then, meeting.second = read, slow_login, login
    slow, fast = await meeting.hold(browser)

    assert (len(slow.cookies), len(fast.cookies)) == (0, 1)
    seen: list[object] = []
    meeting.second = lambda: seen.append(session.get("user"))
    await browser.get("/second")
    assert seen == ["Ada"]


@pytest.mark.parametrize("do", [read, write, login, log_out])
async def test_a_request_that_was_on_the_way_during_a_login_reads_nothing_and_sends_no_cookie(
    do: Do, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    site = Site()
    visitor, late = Browser(site.app), Browser(site.app)
    await site.visit(visitor, write)
    late.id = visitor.id
    await site.visit(visitor, login)

    seen: list[object] = []

    def look_and_do() -> None:
        seen.append(dict(session))
        do()

    answer = await site.visit(late, look_and_do)

    assert seen == [{}]
    assert answer.cookies == []
    assert answer.status == 200
    assert ("writes of this request are void" in caplog.text) == (do is write or do is login)
    await site.visit(visitor, lambda: seen.append(dict(session)))
    assert seen[1] == {"n": 1, "user": "Ada"}


async def test_after_the_grace_a_replaced_id_is_reported_and_starts_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site()
    visitor, late = Browser(site.app), Browser(site.app)
    await site.visit(visitor, write)
    late.id = visitor.id
    await site.visit(visitor, login)
    site.clock.advance(31)

    answer = await site.visit(late, write)

    assert len(answer.cookies) == 1
    assert "a reused secret was presented" in caplog.text


def lend() -> None:
    session.regenerate(delete_old_session=False)


@pytest.mark.parametrize(
    ("do", "status", "cookies"),
    [(read, 200, 0), (write, 200, 0), (regenerate, 200, 0), (log_out, 200, 1)],
)
async def test_a_borrowed_id_sends_no_cookie_but_the_deletion(
    do: Do, status: int, cookies: int
) -> None:
    site = Site()
    visitor, late = Browser(site.app), Browser(site.app)
    await site.visit(visitor, write)
    late.id = visitor.id
    await site.visit(visitor, lend)

    answer = await site.visit(late, do)

    assert answer.status == status
    assert len(answer.cookies) == cookies


# --- renewal -------------------------------------------------------------------------------------


@pytest.mark.parametrize("do", [read, write])
async def test_an_active_users_cookie_is_renewed_when_less_than_one_timeout_is_left(
    site: Site, visitor: Browser, do: Do
) -> None:
    id = visitor.id
    renewals = []
    for _ in range(24):
        site.clock.advance(HOUR / 2)
        renewals.append(len((await site.visit(visitor, do)).cookies))

    # Max-Age is six hours; less than three are left after seven half hours.
    assert renewals == [0, 0, 0, 0, 0, 0, 1] * 3 + [0, 0, 0]
    assert visitor.id == id


async def test_a_fixed_lifetime_is_not_renewed() -> None:
    site = Site(SessionConfig(cookie_lifetime=600))
    visitor = Browser(site.app)
    [cookie] = (await site.visit(visitor, write)).cookies
    site.clock.advance(599)

    assert "Max-Age=600" in cookie
    assert (await site.visit(visitor, write)).cookies == []


async def test_a_cookie_of_the_browser_session_has_no_lifetime() -> None:
    site = Site(SessionConfig(cookie_lifetime=None))
    visitor = Browser(site.app)

    [cookie] = (await site.visit(visitor, write)).cookies

    assert "Max-Age" not in cookie
    assert "Expires" not in cookie


async def expiry(site: Site, browser: Browser) -> float:
    record = await site.store.load(str(browser.id).partition(".")[0], site.clock())
    assert record is not None
    return record.expires


async def test_a_poll_that_is_passive_keeps_no_session_alive(site: Site, visitor: Browser) -> None:
    site.clock.advance(HOUR * 2.5)
    await site.visit(visitor, read)
    before = await expiry(site, visitor)
    site.clock.advance(HOUR * 2.5)

    def poll() -> None:
        with session.passive():
            assert session["n"] == 1

    await site.visit(visitor, poll)

    assert await expiry(site, visitor) == before


async def test_without_refresh_on_read_reading_keeps_no_session_alive() -> None:
    site = Site(SessionConfig(refresh_on_read=False))
    visitor = Browser(site.app)
    await site.visit(visitor, write)
    site.clock.advance(HOUR * 2.5)
    await site.visit(visitor, write)
    before = await expiry(site, visitor)
    site.clock.advance(HOUR * 2.5)

    await site.visit(visitor, read)

    assert await expiry(site, visitor) == before


async def test_without_refresh_on_read_writing_never_lets_the_cookie_end_before_the_session() -> (
    None
):
    site = Site(SessionConfig(refresh_on_read=False))
    visitor = Browser(site.app)
    cookie_ends = 0.0
    for _ in range(20):
        answer = await site.visit(visitor, write)
        if answer.cookies:
            cookie_ends = site.clock() + 6 * HOUR
        assert cookie_ends >= await expiry(site, visitor)
        site.clock.advance(HOUR)


async def test_a_renewal_that_meets_a_logout_sends_nothing() -> None:
    meeting = Meeting()
    browser = await meeting.begun()
    meeting.clock.advance(HOUR * 2.5)
    meeting.second = read
    await browser.get("/second")
    meeting.clock.advance(HOUR)
    meeting.first, meeting.second = read, log_out

    slow, fast = await meeting.hold(browser)

    assert slow.cookies == []
    assert len(fast.cookies) == 1


# --- caches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "vary"),
    [(nothing, []), (read, ["Cookie"]), (write, ["Cookie"]), (log_out, ["Cookie"])],
)
async def test_a_response_that_depends_on_the_session_varies_by_cookie(
    site: Site, visitor: Browser, do: Do, vary: list[str]
) -> None:
    assert (await site.visit(visitor, do)).values(b"vary") == vary


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("nocache", "no-store"),
        ("private", "private"),
        ("private_no_expire", "private"),
        ("public", "public"),
        ("none", ""),
    ],
)
async def test_the_cache_limiter_comes_with_the_cookie_and_only_with_it(
    mode: str, expected: str
) -> None:
    site = Site(SessionConfig(cache_limiter=mode))
    browser = Browser(site.app)

    with_cookie = await site.visit(browser, write)
    without = await site.visit(browser, write)

    policies = with_cookie.values(b"cache-control")
    assert [expected in policy for policy in policies] == [True] * bool(expected)
    assert without.values(b"cache-control") == []


async def test_a_stricter_response_stays_strict(site: Site, browser: Browser) -> None:
    site.headers = [(b"Cache-Control", b"no-store"), (b"X-Own", b"1")]

    answer = await site.visit(browser, write)

    assert "no-store" in ", ".join(answer.values(b"cache-control"))
    assert answer.values(b"x-own") == ["1"]


async def test_a_first_touch_after_the_headers_is_reported_once_per_path(
    caplog: pytest.LogCaptureFixture, anyio_backend: str
) -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        private = scope["path"].endswith("private")
        headers = [(b"cache-control", b"private")] if private else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        session.get("n")
        await send({"type": "http.response.body", "body": b""})

    app = SessionMiddleware(late, "memory://")
    path = f"/late/on/{anyio_backend}"
    for each in (path, path, f"{path}/private"):
        await ask(app, each)

    assert caplog.text.count("without `Vary: Cookie`") == 1
    assert f"{path}: the session was first used" in caplog.text


# --- paths without a session, and too late -------------------------------------------------------


async def test_nothing_can_issue_an_id_after_the_headers_have_left(
    visitor: Browser, site: Site
) -> None:
    late: list[str] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for do in (write, regenerate, log_out, write):
            try:
                do()
            except CookieTooLate:
                late.append(do.__name__)
        await send({"type": "http.response.body", "body": b""})

    app = SessionMiddleware(page, site.store, clock=site.clock)
    with_session, without = Browser(app), Browser(app)
    with_session.id = visitor.id
    answers = [await with_session.get(), await without.get()]

    assert late == ["regenerate", "write", "write", "write"]
    assert [answer.cookies for answer in answers] == [[], []]
    assert repr(site.store) == "<MemoryStore sessions=0>"


async def test_each_setting_of_a_site_is_its_own() -> None:
    config = SessionConfig(name="a")
    one, two = Site(config), Site(replace(config, name="b"))

    [first] = (await one.visit(Browser(one.app, "a"), write)).cookies
    [second] = (await two.visit(Browser(two.app, "b"), write)).cookies

    assert (first[:2], second[:2]) == ("a=", "b=")
