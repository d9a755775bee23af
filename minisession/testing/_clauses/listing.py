"""Lists, and what a purge removes. Others may keep sessions in the same place."""

from __future__ import annotations

import secrets
from dataclasses import replace

import anyio

from minisession.abc import Create, Summary

from .trial import HOUR, Clause, Trial

LIFE = 0.2  # seconds of a session that a store shall remove by itself
PATIENCE = 10.0  # seconds that it has for that


def summary(change: Create) -> Summary:
    """Return how a list shows the session that a change made."""
    return Summary(change.handle, change.created, change.expires, change.principal)


async def born(trial: Trial, number: int, principal: str | None = None) -> list[Create]:
    """Make several sessions, the later the older."""
    births = [
        replace(trial.birth({"k": b"v"}, principal=principal), created=trial.now - index)
        for index in range(number)
    ]
    for birth in births:
        await trial.commit(birth)
    return births


async def a_scan_goes_by_handle_in_steps_through_all_that_live(trial: Trial) -> None:
    ours = sorted((summary(birth) for birth in await born(trial, 7)), key=lambda s: s.handle)
    ended = await trial.ended()
    seen: list[Summary] = []

    after = ""
    while step := await trial.store.scan(trial.now, after=after, limit=3):
        trial.expect("a step longer than its limit", len(step) > 3, False)
        seen += step
        after = step[-1].handle

    handles = [item.handle for item in seen]
    trial.expect("the order", handles, sorted(set(handles)))
    trial.expect("our sessions", [item for item in seen if item in ours], ours)
    trial.expect("a destroyed session in it", ended in handles, False)
    await trial.forget([item.handle for item in ours])


async def a_scan_leaves_out_what_has_expired(trial: Trial) -> None:
    (birth,) = await born(trial, 1)
    just_before = birth.handle[:-1]

    listed = await trial.store.scan(trial.now + HOUR, after=just_before, limit=1)

    trial.expect("an expired session in it", summary(birth) in listed, False)


async def the_sessions_of_a_principal_are_listed_oldest_first(trial: Trial) -> None:
    ada, eve = secrets.token_hex(8), secrets.token_hex(8)
    births = await born(trial, 4, principal=ada)
    await born(trial, 1, principal=eve)
    await born(trial, 1)
    await trial.commit(replace(trial.write(births[0].handle, {}), principal=eve))

    listed = await trial.store.of_principal(ada, trial.now)
    later = await trial.store.of_principal(ada, trial.now + HOUR)
    no_text = await trial.store.of_principal("\ud800", trial.now)

    trial.expect("the list", listed, [summary(birth) for birth in reversed(births[1:])])
    trial.expect("the list when all have expired", later, [])
    trial.expect("the list of a name that is no Unicode text", no_text, [])


async def alive_tells_which_sessions_live(trial: Trial) -> None:
    births = await born(trial, 2)
    living = {birth.handle for birth in births}
    asked = {*living, await trial.ended(), trial.birth().handle}

    trial.expect("now", await trial.store.alive(asked, trial.now), living)
    trial.expect("of none", await trial.store.alive([], trial.now), set())
    trial.expect("later", await trial.store.alive(asked, trial.now + HOUR), set())


async def alive_can_be_asked_about_thousands(trial: Trial) -> None:
    handle = await trial.born()
    asked = [handle, *(f"nobody {number}" for number in range(3000))]

    trial.expect("the answer", await trial.store.alive(asked, trial.now), {handle})


async def a_purge_removes_expired_sessions_in_bounded_steps(trial: Trial) -> None:
    births = await born(trial, 5)
    after = trial.now + HOUR

    steps = [await trial.store.purge(after, 2) for _ in range(3)]

    trial.expect("a step larger than its limit", max(steps) > 2, False)
    while await trial.store.purge(after, 1000):
        pass
    trial.expect("a purge when nothing is left", await trial.store.purge(after, 2), 0)
    # What was purged is not even there for somebody whose clock is slow.
    loaded = [await trial.load(birth.handle) for birth in births]
    trial.expect("what still loads", loaded, [None] * 5)


async def what_has_expired_goes_by_itself(trial: Trial) -> None:
    birth = replace(trial.birth({"k": b"v"}), expires=trial.now + LIFE)
    await trial.commit(birth)

    # Asked as by somebody whose clock is slow, for whom it has not expired yet.
    with anyio.move_on_after(PATIENCE):
        while await trial.load(birth.handle) is not None:  # noqa: ASYNC110  # it sets no event
            await anyio.sleep(LIFE / 10)

    trial.expect("what still loads", await trial.load(birth.handle), None)


async def a_purge_leaves_the_living_alone(trial: Trial) -> None:
    births = await born(trial, 3)
    before = [await trial.load(birth.handle) for birth in births]

    while await trial.store.purge(trial.now, 1000):
        pass

    trial.expect("the records", [await trial.load(birth.handle) for birth in births], before)


CLAUSES: tuple[Clause, ...] = (
    a_scan_goes_by_handle_in_steps_through_all_that_live,
    a_scan_leaves_out_what_has_expired,
    the_sessions_of_a_principal_are_listed_oldest_first,
    alive_tells_which_sessions_live,
    alive_can_be_asked_about_thousands,
    a_purge_leaves_the_living_alone,
)
PURGES: tuple[Clause, ...] = (a_purge_removes_expired_sessions_in_bounded_steps,)
EXPIRES_BY_ITSELF: tuple[Clause, ...] = (what_has_expired_goes_by_itself,)
