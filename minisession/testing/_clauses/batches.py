"""Outcomes in order, bad neighbours, lost waits."""

from __future__ import annotations

from dataclasses import replace

import anyio

from minisession.abc import Committed, Destroy, Expect, Gone, Touch, Withdraws
from minisession.errors import Conflict, SessionTooLarge

from .trial import HOUR, Clause, Trial

HANDLES = 20


async def an_empty_batch_has_no_outcomes(trial: Trial) -> None:
    trial.expect("the outcomes", await trial.store.commit([], trial.now), [])


async def each_change_has_its_outcome_in_order(trial: Trial) -> None:
    births = [trial.birth({"n": b"%d" % number}) for number in range(HANDLES)]
    first = births[0]

    outcomes = await trial.store.commit([*births, first, Destroy(first.handle, 0)], trial.now)

    expected = [Committed(0)] * HANDLES + [Gone(), Committed(0)]
    trial.expect(
        "the outcomes",
        [replace(o, replaced=False) if isinstance(o, Gone) else o for o in outcomes],
        expected,
    )
    loaded = [await trial.items(birth.handle) for birth in births]
    trial.expect("the items", loaded, [None, *(birth.items for birth in births[1:])])


async def a_change_that_fails_does_not_disturb_its_neighbours(trial: Trial) -> None:
    good, other, ended = await trial.born(), await trial.born({"n": b"1"}), await trial.ended()
    large = replace(trial.write(good, {"a": b"9", "large": b"x" * 100}), max_size=10)
    late = replace(trial.write(other, {"a": b"9", "n": b"2"}), expect=Expect("n", b"0"))

    outcomes = await trial.store.commit(
        [
            trial.write(good, {"a": b"1"}),
            large,
            trial.write(ended, {"a": b"9"}),
            trial.write(good, {"b": b"2"}),
            late,
            trial.write(other, {"c": b"3"}),
        ],
        trial.now,
    )

    expected = [Committed, SessionTooLarge, Gone, Committed, Conflict, Committed]
    trial.expect("the outcomes", list(map(type, outcomes)), expected)
    trial.expect("the good items", await trial.items(good), {"a": b"1", "b": b"2"})
    trial.expect("the other items", await trial.items(other), {"n": b"1", "c": b"3"})


async def changes_of_one_session_in_one_batch_follow_each_other(trial: Trial) -> None:
    birth = trial.birth({"a": b"0"})
    handle = birth.handle

    outcomes = await trial.store.commit(
        [
            birth,
            trial.write(handle, {"a": b"1"}),
            trial.rotation(handle),
            trial.write(handle, {"a": b"2"}, 1),
            Touch(handle, 1, trial.now + 2 * HOUR),
        ],
        trial.now,
    )

    trial.expect("the outcomes", outcomes, [Committed(n) for n in (0, 0, 1, 1, 1)])
    trial.expect("the items", await trial.items(handle), {"a": b"2"})


async def a_lost_wait_loses_no_change_and_nobody_elses_outcome(trial: Trial) -> None:
    handle = await trial.born()
    outcomes: list[object] = []

    async def patient() -> None:
        outcomes.append(await trial.commit(trial.write(handle, {"patient": b"1"})))

    async with anyio.create_task_group() as group:
        group.start_soon(patient)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await trial.commit(trial.write(handle, {"impatient": b"1"}))
    await trial.commit(trial.write(handle, {"afterwards": b"1"}))

    trial.expect("the outcome of who waited", outcomes, [Committed(0)])
    items = await trial.items(handle) or {}
    trial.expect("the keys", set(items), {"patient", "impatient", "afterwards"})


async def what_is_stored_cannot_be_withdrawn(trial: Trial) -> None:
    if not isinstance(trial.store, Withdraws):
        return
    stored = trial.birth()
    await trial.commit(stored)

    trial.expect("withdraw of a stored change", trial.store.withdraw(stored), False)
    trial.expect("withdraw of an unknown change", trial.store.withdraw(trial.birth()), False)
    trial.expect_a("the session", await trial.items(stored.handle), dict)


CLAUSES: tuple[Clause, ...] = (
    an_empty_batch_has_no_outcomes,
    each_change_has_its_outcome_in_order,
    a_change_that_fails_does_not_disturb_its_neighbours,
    changes_of_one_session_in_one_batch_follow_each_other,
    a_lost_wait_loses_no_change_and_nobody_elses_outcome,
    what_is_stored_cannot_be_withdrawn,
)
