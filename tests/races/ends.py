"""Scenarios of P3: what has ended stays ended.

Whoever writes, reads or touches beside a logout, a revocation or an expiry either came before it,
or counts for nothing.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from functools import partial

import anyio

from minisession import SessionConfig, SessionGone, SessionManager, SessionMiddleware, session
from tests.asgi_client import (
    COOKIE,
    Answer,
    Browser,
    Receive,
    Scope,
    Send,
    ask,
    converse,
    respond,
    routed,
)
from tests.races.refusing import RefusesOnce
from tests.races.world import CONFIG, START, World, handle_of, log_out, pause, together, write


async def a_writer_beside_a_logout(world: World) -> None:
    id = await world.begin(seed=0)

    async def slow(sessions: SessionManager) -> None:
        with suppress(SessionGone):
            async with sessions.open(id) as mine:
                if mine.is_started:
                    mine["early"] = 1
                    await pause()
                    mine["late"] = 2

    async with world.process() as sessions:
        await together(partial(slow, sessions), partial(log_out, sessions, id))

    assert await world.everything() == {}


async def a_writer_beside_a_revocation_elsewhere(world: World) -> None:
    id = await world.begin(seed=0)

    async def revoke(there: SessionManager) -> None:
        assert await there.revoke(handle_of(id))
        assert await world.items(id) is None

    async with world.process() as here, world.process() as there:
        await together(partial(write, here, id, late=1), partial(revoke, there))

    assert await world.everything() == {}


async def a_counter_beside_a_logout(world: World) -> None:
    id = await world.begin(n=0)

    async def count(sessions: SessionManager) -> None:
        with suppress(SessionGone):
            async with sessions.open(id) as mine:
                if mine.is_started:
                    assert await mine.update("n", lambda n: n + 1) == 1

    async with world.process() as sessions:
        await together(partial(count, sessions), partial(log_out, sessions, id))

    assert await world.everything() == {}


async def readers_beside_a_logout(world: World) -> None:
    """Who has seen the session dead never sees it alive again; their touches revive nothing."""
    id = await world.begin(seed=0, expires=START + 60)
    seen = []

    async def look(sessions: SessionManager) -> None:
        async with sessions.open(id) as mine:
            seen.append(mine.is_started)
            await pause()

    async def look_thrice(sessions: SessionManager) -> None:
        for _ in range(3):
            await look(sessions)

    async def leave(sessions: SessionManager) -> None:
        assert await log_out(sessions, id)
        async with sessions.open(id) as mine:
            assert not mine.is_started

    async with world.process() as here, world.process() as there:
        await together(partial(look_thrice, here), partial(leave, there))
        await look(here)

    assert seen == sorted(seen, reverse=True)
    assert not seen[-1]
    assert await world.everything() == {}


async def two_logouts(world: World) -> None:
    """Both browser tabs are told to forget the cookie, whoever was first."""
    id = await world.begin(seed=0)

    async def logout(scope: Scope, receive: Receive, send: Send) -> None:
        session.destroy()
        await respond(send)

    async with world.process() as sessions:
        app = SessionMiddleware(routed(logout=logout), sessions)
        tabs = [Browser(app), Browser(app)]
        for tab in tabs:
            tab.id = id
        await together(*(partial(tab.get, "/logout") for tab in tabs))

    assert [tab.id for tab in tabs] == [None, None]
    assert await world.everything() == {}


async def a_logout_with_a_last_message_beside_a_slow_request(world: World) -> None:
    """The new session belongs to who logged out; the slow request neither reads nor writes it."""
    id = await world.begin(seed=0)
    slow_answer = Answer()

    async def logout(scope: Scope, receive: Receive, send: Send) -> None:
        session.destroy()
        session["flash"] = "bye"
        await respond(send)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if "seed" in session:
            await pause()
            session["late"] = True
        await respond(send)

    async with world.process() as sessions:
        app = SessionMiddleware(routed(logout=logout, slow=slow), sessions)
        browser = Browser(app)
        browser.id = id
        await together(
            partial(ask, app, "/slow", cookie=browser.cookie, into=slow_answer),
            partial(browser.get, "/logout"),
        )

    assert (slow_answer.status, slow_answer.cookies) == (200, [])
    assert await world.is_current(browser.id)
    assert browser.id is not None
    assert handle_of(browser.id) != handle_of(id)
    assert await world.everything() == {handle_of(browser.id): {"flash": "bye"}}


async def a_writer_beside_the_expiry(world: World) -> None:
    id = await world.begin(seed=0, expires=START + 10)
    stored = []

    async def request(sessions: SessionManager) -> None:
        stored.append(await write(sessions, id, late=1))

    async with world.process() as sessions:
        await together(partial(request, sessions), partial(_let_it_expire, world, sessions))

    record = await world.record(id)
    expected = {handle_of(id): {"seed": 0, "late": 1}} if stored[0] else {}
    assert await world.everything() == expected
    assert record is None or record.expires == START + CONFIG.idle


async def a_touch_beside_the_expiry(world: World) -> None:
    """Either the touch was in time, and counts from then; or it revives nothing."""
    id = await world.begin(seed=0, expires=START + 10)

    async def read(sessions: SessionManager) -> None:
        async with sessions.open(id) as mine:
            assert mine.get("seed", 0) == 0
            await pause()

    async with world.process() as sessions:
        await together(partial(read, sessions), partial(_let_it_expire, world, sessions))

    record = await world.record(id)
    assert record is None or record.expires == START + CONFIG.idle
    assert await world.everything() == ({} if record is None else {handle_of(id): {"seed": 0}})


async def a_touch_that_the_store_refuses(world: World) -> None:
    """It disturbs nobody who reads; their next use of the session renews it after all."""
    id = await world.begin(seed=0, expires=START + 60)
    refusing = RefusesOnce(world.stored, handle_of(id))
    answers = [Answer(), Answer()]

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        assert session["seed"] == 0
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await anyio.sleep(1)  # of virtual time: the store has answered
        assert session["seed"] == 0
        await send({"type": "http.response.body", "body": b""})

    async with world.process(store=refusing) as sessions:
        app = SessionMiddleware(routed(stream=stream), sessions)
        visit = partial(ask, app, "/stream", cookie=f"{COOKIE}={id}")
        await together(*(partial(visit, into=answer) for answer in answers))

    record = await world.record(id)
    assert record is not None
    assert record.expires == START + CONFIG.idle
    assert all(answer.is_complete for answer in answers)
    assert await world.everything() == {handle_of(id): {"seed": 0}}


async def _let_it_expire(world: World, sessions: SessionManager) -> None:
    await pause()
    world.clock.advance(11)
    await pause()
    await sessions.store.purge(world.clock(), 10)


async def activity_beside_the_absolute_end(world: World) -> None:
    """Neither reading nor writing moves the hard end of a session."""
    config = SessionConfig(absolute_timeout=timedelta(seconds=100))
    id = await world.begin(seed=0, created=START - 90, expires=START + 5)

    async def read(sessions: SessionManager) -> None:
        async with sessions.open(id) as mine:
            assert mine["seed"] == 0
            await pause()

    async with world.process(config) as sessions:
        await together(partial(read, sessions), partial(write, sessions, id, late=1))
        record = await world.record(id)
        assert record is not None
        assert record.expires == START + 10
        world.clock.advance(10)
        async with sessions.open(id) as mine:
            assert not mine.is_started

    assert await world.everything() == {}


async def a_websocket_beside_a_logout(world: World) -> None:
    """A connection that lives on writes into nothing."""
    id = await world.begin(seed=0)

    async def socket(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        writes = session.get("seed") == 0
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if writes:
                session[message["text"]] = True
        await pause()

    async with world.process() as sessions:
        app = SessionMiddleware(routed(socket=socket), sessions)
        connection = partial(converse, app, ["a", "b"], cookie=f"{COOKIE}={id}", path="/socket")
        await together(connection, partial(log_out, sessions, id))

    assert await world.everything() == {}
