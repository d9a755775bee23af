"""Scenarios of P2, P5, P7 and P8: no write is lost, undone or applied by halves.

A scenario is a plain function over a fresh `World` that asserts a promise, whatever the order in
which its tasks run. It ends with a look at everything that is stored.
"""

from __future__ import annotations

from functools import partial

import anyio

from minisession import SessionManager, StoreUnavailable
from tests.races.refusing import RefusesOnce
from tests.races.world import World, handle_of, pause, together, write


async def two_writers_of_different_keys(world: World) -> None:
    id = await world.begin(seed=0)

    async with world.process() as sessions:
        await together(partial(write, sessions, id, a=1), partial(write, sessions, id, b=2))

    assert await world.everything() == {handle_of(id): {"seed": 0, "a": 1, "b": 2}}


async def writers_of_different_keys_in_two_processes(world: World) -> None:
    id = await world.begin(seed=0)

    async with world.process() as here, world.process() as there:
        await together(partial(write, here, id, a=1), partial(write, there, id, b=2))

    assert await world.everything() == {handle_of(id): {"seed": 0, "a": 1, "b": 2}}


async def two_writers_of_one_key(world: World) -> None:
    """The later commit wins, with all that was written together with it."""
    id = await world.begin(x=0, y=0)
    told: set[int] = set()
    beaten: set[int] = set()

    async def writer(sessions: SessionManager, number: int) -> None:
        beaten.update(told)  # they were stored before this one began
        assert await write(sessions, id, x=number, y=number)
        told.add(number)

    async with world.process() as sessions:
        await together(partial(writer, sessions, 1), partial(writer, sessions, 2))

    [stored] = (await world.everything()).values()
    assert stored in [{"x": number, "y": number} for number in {1, 2} - beaten]


async def counters_in_two_processes(world: World) -> None:
    id = await world.begin(n=0)
    seen = []

    async def count(sessions: SessionManager) -> None:
        async with sessions.open(id) as session:
            seen.append(await session.update("n", lambda n: n + 1))

    async with world.process() as here, world.process() as there:
        await together(partial(count, here), partial(count, here), partial(count, there))

    assert sorted(seen) == [1, 2, 3]
    assert await world.everything() == {handle_of(id): {"n": 3}}


async def counters_in_a_first_visit(world: World) -> None:
    """They start the session together, and count in it all the same."""
    seen = []

    async with world.process() as sessions, sessions.open() as session:

        async def count() -> None:
            await pause()
            seen.append(await session.update("n", lambda n: n + 1, default=0))

        await together(count, count, count)

    assert sorted(seen) == [1, 2, 3]
    assert list((await world.everything()).values()) == [{"n": 3}]


async def a_counter_beside_a_put(world: World) -> None:
    id = await world.begin(n=0)
    seen = []

    async def count(sessions: SessionManager) -> None:
        async with sessions.open(id) as session:
            assert session["n"] in (0, 100)
            seen.append(await session.update("n", lambda n: n + 1))
            seen.append(await session.update("n", lambda n: n + 1))

    async with world.process() as sessions:
        await together(partial(count, sessions), partial(write, sessions, id, n=100))

    [stored] = (await world.everything()).values()
    histories = {(1, 2): 100, (1, 101): 101, (101, 102): 102}
    assert stored == {"n": histories[tuple(seen)]}


async def a_drop_beside_a_write(world: World) -> None:
    """Who merges snapshots brings the dropped key back."""
    id = await world.begin(old=0, seed=0)

    async def drop(sessions: SessionManager) -> None:
        async with sessions.open(id) as session:
            assert session["old"] == 0
            await pause()
            del session["old"]

    async with world.process() as sessions:
        await together(partial(drop, sessions), partial(write, sessions, id, new=1))

    assert await world.everything() == {handle_of(id): {"seed": 0, "new": 1}}


async def a_clear_beside_a_write(world: World) -> None:
    id = await world.begin(old=0)

    async def clear(sessions: SessionManager) -> None:
        async with sessions.open(id) as session:
            assert "old" in session
            await pause()
            session.clear()

    async with world.process() as sessions:
        await together(partial(clear, sessions), partial(write, sessions, id, new=1))

    [stored] = (await world.everything()).values()
    assert stored in ({}, {"new": 1})


async def a_reader_beside_a_writer(world: World) -> None:
    """A read renews the idle timeout, and overwrites nothing."""
    id = await world.begin(cart=[], expires=world.clock() + 60)

    async def read(sessions: SessionManager) -> None:
        async with sessions.open(id) as session:
            assert session["cart"] in ([], ["tea"])
            await pause()
            assert session["cart"] in ([], ["tea"])

    async with world.process() as sessions:
        await together(
            partial(read, sessions),
            partial(read, sessions),
            partial(write, sessions, id, cart=["tea"]),
        )

    world.clock.advance(61)
    assert await world.everything() == {handle_of(id): {"cart": ["tea"]}}


async def a_nested_change_beside_a_put_of_another_request(world: World) -> None:
    """The later commit wins; in any case it is one of the two carts, whole."""
    id = await world.begin(cart=["tea"])
    changed = []
    told = anyio.Event()

    async def add(sessions: SessionManager) -> None:
        async with sessions.open(id) as session:
            cart = session["cart"]
            await pause()
            cart.append("milk")
            changed.append((cart, told.is_set()))

    async def put(sessions: SessionManager) -> None:
        assert await write(sessions, id, cart=["rum"])
        told.set()

    async with world.process() as sessions:
        await together(partial(add, sessions), partial(put, sessions))

    [(cart, was_put_before)] = changed
    possible = [cart] if was_put_before else [cart, ["rum"]]
    [stored] = (await world.everything()).values()
    assert stored in [{"cart": one} for one in possible]


async def a_nested_change_beside_a_put_of_the_same_request(world: World) -> None:
    """What the session shows at its end is what is stored."""
    id = await world.begin(cart=["tea"])
    shown = []

    async with world.process() as sessions, sessions.open(id) as session:
        cart = session["cart"]

        async def add() -> None:
            cart.append("milk")
            await session.save()
            cart.append("sugar")

        async def put() -> None:
            await pause()
            session["cart"] = ["rum"]
            await pause()

        await together(add, put)
        shown.append(session.all())

    assert await world.everything() == {handle_of(id): shown[0]}
    assert shown == [{"cart": ["rum"]}]


async def a_change_that_is_taken_back(world: World) -> None:
    """Requests share no objects: what one has not saved, no other sees."""
    id = await world.begin(cart=[])

    async def change_one_s_mind(sessions: SessionManager) -> None:
        async with sessions.open(id) as session:
            session["cart"].append("rum")
            await pause()
            session["cart"].remove("rum")

    async def read(sessions: SessionManager) -> None:
        async with sessions.open(id) as session:
            assert session["cart"] == []
            await pause()
            assert session["cart"] == []

    async with world.process() as sessions:
        await together(partial(change_one_s_mind, sessions), partial(read, sessions))

    assert await world.everything() == {handle_of(id): {"cart": []}}


async def a_refresh_beside_a_writer(world: World) -> None:
    id = await world.begin(seed=0)
    told = anyio.Event()

    async def tell(sessions: SessionManager) -> None:
        assert await write(sessions, id, theirs=1)
        told.set()

    async def look_again(sessions: SessionManager) -> None:
        async with sessions.open(id) as session:
            session["mine"] = 2
            await pause()
            must_be_seen = told.is_set()
            await session.refresh()
            assert session.get("mine") == 2
            assert session.get("theirs") == 1 or not must_be_seen

    async with world.process() as sessions:
        await together(partial(tell, sessions), partial(look_again, sessions))

    assert await world.everything() == {handle_of(id): {"seed": 0, "theirs": 1, "mine": 2}}


async def a_refresh_beside_a_sibling(world: World) -> None:
    """What other tasks of the request write while the session is read again is kept."""
    id = await world.begin(seed=0)

    async with world.process() as sessions, sessions.open(id) as session:

        async def write_on() -> None:
            session["a"] = 1
            await pause()
            session["b"] = 2
            await session.save()
            session["c"] = 3

        async def look_again() -> None:
            await session.refresh()

        await together(look_again, write_on)
        assert session.all() == {"seed": 0, "a": 1, "b": 2, "c": 3}

    assert await world.everything() == {handle_of(id): {"seed": 0, "a": 1, "b": 2, "c": 3}}


async def the_flusher_beside_the_end_of_the_exchange(world: World) -> None:
    """Each write is handed over once, in order, whoever does it: flusher, save or end."""
    id = await world.begin(n=0)

    async with world.process() as sessions, sessions.open(id) as session:

        async def count() -> None:
            for n in (1, 2, 3):
                session["n"] = n
                session[f"step {n}"] = True
                await pause()

        async def save() -> None:
            await session.save()
            session["saved"] = True

        await together(count, save)

    steps = {f"step {n}": True for n in (1, 2, 3)}
    assert await world.everything() == {handle_of(id): {"n": 3, **steps, "saved": True}}


async def a_commit_that_is_cancelled(world: World) -> None:
    """What was written before is stored, what belongs together is stored together."""
    id = await world.begin(seed=0)
    written: dict[str, int] = {}

    async def request(sessions: SessionManager, scope: anyio.CancelScope) -> None:
        with scope:
            async with sessions.open(id) as session:
                assert session["seed"] == 0
                written.update(a=1, b=2)
                session.update(a=1, b=2)
                await session.save()
                written.update(c=3)
                session["c"] = 3
                await pause()

    async def disconnect(scope: anyio.CancelScope) -> None:
        await pause()
        scope.cancel()

    async with world.process() as sessions:
        scope = anyio.CancelScope()
        await together(partial(request, sessions, scope), partial(disconnect, scope))
        assert await write(sessions, id, afterwards=4)

    assert await world.everything() == {handle_of(id): {"seed": 0, **written, "afterwards": 4}}


async def a_store_that_fails_in_the_middle_of_a_batch(world: World) -> None:
    """Only who was refused is told so, or is stored at the second try; nobody else notices."""
    ids = [await world.begin(seed=0) for _ in range(3)]
    told = []

    async def request(sessions: SessionManager, id: str) -> None:
        try:
            async with sessions.open(id) as session:
                session["a"] = 1
                await pause()
                session["b"] = 2
        except StoreUnavailable:
            told.append(id)

    refusing = RefusesOnce(world.stored, handle_of(ids[1]))
    async with world.process(store=refusing) as sessions:
        await together(*(partial(request, sessions, id) for id in ids))

    assert set(told) <= {ids[1]}
    stored = await world.everything()
    whole = {"seed": 0, "a": 1, "b": 2}
    assert stored.pop(handle_of(ids[1])) in (
        ({"seed": 0}, {"seed": 0, "a": 1}) if told else (whole,)
    )
    assert stored == {handle_of(id): whole for id in (ids[0], ids[2])}
