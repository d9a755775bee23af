"""Scenarios of `regenerate`: one session, one id, at every moment.

A login gives the session another id and writes who logged in. Beside it run requests that came
with the id of before: they may finish, but neither read nor overwrite what the login wrote, and
their answers never put the old id back into the browser.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import anyio

from minisession import SessionGone, SessionManager, SessionMiddleware, session
from tests.asgi_client import (
    COOKIE,
    Answer,
    ASGIApp,
    Browser,
    Receive,
    Scope,
    Send,
    ask,
    respond,
    routed,
)
from tests.races.world import CONFIG, World, handle_of, log_in, log_out, pause, together, write


async def a_login_beside_a_reader_with_the_old_id(world: World) -> None:
    id = await world.begin(seed=0)
    new = []

    async def login(sessions: SessionManager) -> None:
        new.append(await log_in(sessions, id, user="Ada", level=9))

    async def read_thrice(sessions: SessionManager) -> None:
        for _ in range(3):
            async with sessions.open(id) as mine:
                assert mine.all() in ({"seed": 0}, {})
                await pause()

    async with world.process() as sessions:
        await together(partial(login, sessions), partial(read_thrice, sessions))

    assert await world.is_current(new[0])
    assert not await world.is_current(id)
    assert await world.everything() == {handle_of(id): {"seed": 0, "user": "Ada", "level": 9}}


async def login(scope: Scope, receive: Receive, send: Send) -> None:
    session.regenerate()
    session["user"] = "Ada"
    session["logins"] = session.get("logins", 0) + 1
    await respond(send)


async def a_login_beside_a_slow_request(world: World) -> None:
    """Whichever answer is last, the browser has the new id; and what the slow one wrote is kept."""
    id = await world.begin(seed=0)
    slow_answer = Answer()
    expected = {"seed": 0, "user": "Ada", "logins": 1}

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await pause()
        if "seed" in session:
            expected["cart"] = 2
            await pause()
            session["cart"] = 2
        await pause()
        await respond(send)

    async with world.process() as sessions:
        app = SessionMiddleware(routed(login=login, slow=slow), sessions)
        browser = Browser(app)
        browser.id = id
        await together(
            partial(ask, app, "/slow", cookie=browser.cookie, into=slow_answer),
            partial(browser.get, "/login"),
        )

    assert (slow_answer.status, slow_answer.cookies) == (200, [])
    assert await world.is_current(browser.id)
    assert await world.everything() == {handle_of(id): expected}


async def a_login_clicked_twice(world: World) -> None:
    """It takes effect once, and either answer leaves the browser logged in."""
    id = await world.begin(seed=0)
    answers = [Answer(), Answer()]

    async with world.process() as sessions:
        app = SessionMiddleware(routed(login=login), sessions)
        browser = Browser(app)
        browser.id = id
        cookie = browser.cookie
        await together(*(partial(ask, app, "/login", cookie=cookie, into=one) for one in answers))

    assert sorted(len(answer.cookies) for answer in answers) == [0, 1]
    for answer in answers:
        assert answer.status == 200
        browser.keep(answer)
    assert await world.is_current(browser.id)
    assert await world.everything() == {handle_of(id): {"seed": 0, "user": "Ada", "logins": 1}}


async def a_login_that_is_cancelled(world: World) -> None:
    """Nobody is logged in under the old id, and no answer promises what is not stored."""
    id = await world.begin(seed=0)
    answer = Answer()
    scope = anyio.CancelScope()

    async def request(app: ASGIApp) -> None:
        with scope:
            await ask(app, "/login", cookie=f"{COOKIE}={id}", into=answer)

    async def disconnect() -> None:
        await pause()
        scope.cancel()

    async with world.process() as sessions:
        app = SessionMiddleware(routed(login=login), sessions)
        await together(partial(request, app), disconnect)

    [stored] = (await world.everything()).values()
    is_logged_in = stored == {"seed": 0, "user": "Ada", "logins": 1}
    assert is_logged_in or stored == {"seed": 0}
    assert await world.is_current(id) != is_logged_in
    assert is_logged_in or not answer.cookies


async def a_save_beside_a_regenerate_elsewhere(world: World) -> None:
    id = await world.begin(seed=0)
    new, stored = [], []

    async def login(here: SessionManager) -> None:
        new.append(await log_in(here, id, user="Ada"))

    async def save(there: SessionManager) -> None:
        stored.append(await write(there, id, cart=1))

    async with world.process() as here, world.process() as there:
        await together(partial(login, here), partial(save, there))

    cart = {"cart": 1} if stored[0] else {}
    assert await world.is_current(new[0])
    assert await world.everything() == {handle_of(id): {"seed": 0, "user": "Ada", **cart}}


async def two_regenerates(world: World) -> None:
    """One of them wins, and the other one knows that it has not."""
    id = await world.begin(seed=0)
    new: dict[str, str] = {}

    async def rotate(sessions: SessionManager, name: str) -> None:
        own = await log_in(sessions, id, **{name: True})
        if own is not None:
            new[name] = own

    async with world.process() as here, world.process() as there:
        await together(partial(rotate, here, "here"), partial(rotate, there, "there"))

    assert len(new) == 1
    [(winner, fresh)] = new.items()
    assert await world.is_current(fresh)
    assert await world.everything() == {handle_of(id): {"seed": 0, winner: True}}


async def a_late_writer_of_what_the_login_wrote(world: World) -> None:
    """Within the grace a late change counts wholly, as if it had come before, or not at all."""
    id = await world.begin(seed=0)
    is_logged_in = anyio.Event()
    stored: list[str] = []

    async def login(sessions: SessionManager) -> None:
        assert await log_in(sessions, id, user="Ada") is not None
        is_logged_in.set()

    async def late(sessions: SessionManager) -> None:
        with suppress(SessionGone):
            async with sessions.open(id) as mine:
                if not mine.is_started:
                    return
                await pause()
                is_too_late = is_logged_in.is_set()
                mine.update(cart=1, user="Eve")
            stored.append("cart")
            assert not is_too_late

    async with world.process() as sessions:
        await together(partial(login, sessions), partial(late, sessions))

    cart = {"cart": 1} if stored else {}
    assert await world.everything() == {handle_of(id): {"seed": 0, **cart, "user": "Ada"}}


async def the_old_id_in_its_grace(world: World) -> None:
    """It goes on loading the session and may write, until the grace is over."""
    id = await world.begin(seed=0)
    new = []

    async def rotate(sessions: SessionManager) -> None:
        async with sessions.open(id) as mine:
            assert mine["seed"] == 0
            await pause()
            mine.regenerate(delete_old_session=False)
            await mine.save()
            new.append(mine.id)

    async with world.process() as sessions:
        await together(partial(rotate, sessions), partial(write, sessions, id, beside=1))
        assert await write(sessions, id, borrowed=2)
        world.clock.advance(CONFIG.rotation_grace)
        assert not await write(sessions, id, late=3)

    assert await world.is_current(new[0])
    assert await world.everything() == {handle_of(id): {"seed": 0, "beside": 1, "borrowed": 2}}


async def a_write_beside_the_end_of_the_grace(world: World) -> None:
    """A change of the old epoch is in time and stored, or late and refused."""
    id = await world.begin(seed=0)
    stored: list[str] = []

    async def late(sessions: SessionManager) -> None:
        with suppress(SessionGone):
            async with sessions.open(id) as mine:
                if not mine.is_started:
                    return
                await pause()
                is_too_late = world.clock() >= after_the_grace
                mine["cart"] = 1
            stored.append("cart")
            assert not is_too_late

    async def login(sessions: SessionManager) -> None:
        assert await log_in(sessions, id, user="Ada") is not None
        world.clock.advance(CONFIG.rotation_grace)

    after_the_grace = world.clock() + CONFIG.rotation_grace
    async with world.process() as sessions:
        await together(partial(late, sessions), partial(login, sessions))

    cart = {"cart": 1} if stored else {}
    assert await world.everything() == {handle_of(id): {"seed": 0, **cart, "user": "Ada"}}


async def a_logout_beside_a_login(world: World) -> None:
    """One of them was first; never is an id handed out that opens nothing, nor two that open."""
    id = await world.begin(seed=0)
    new, ended = [], []

    async def login(here: SessionManager) -> None:
        new.append(await log_in(here, id, user="Ada"))

    async def logout(there: SessionManager) -> None:
        ended.append(await log_out(there, id))

    async with world.process() as here, world.process() as there:
        await together(partial(login, here), partial(logout, there))

    assert (new[0] is None) == ended[0]
    assert await world.is_current(new[0]) != ended[0]
    left = {} if ended[0] else {handle_of(id): {"seed": 0, "user": "Ada"}}
    assert await world.everything() == left
