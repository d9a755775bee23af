"""Puts, drops, clears, compare-and-set; nobody undoes what another wrote."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace
from typing import cast

import anyio

from minisession.abc import Committed, Expect
from minisession.errors import Conflict

from .trial import Clause, Trial

WRITERS = 40


async def a_write_changes_the_keys_it_names_and_no_other(trial: Trial) -> None:
    handle = await trial.born({"a": b"1", "b": b"2", "c": b"3"})

    outcome = await trial.commit(trial.write(handle, {"a": b"9", "b": None, "d": b"4"}))

    trial.expect("the outcome", outcome, Committed(0))
    trial.expect("the items", await trial.items(handle), {"a": b"9", "c": b"3", "d": b"4"})


async def dropping_what_is_not_there_is_fine(trial: Trial) -> None:
    handle = await trial.born({"a": b"1"})

    outcome = await trial.commit(trial.write(handle, {"b": None}))

    trial.expect("the outcome", outcome, Committed(0))
    trial.expect("the items", await trial.items(handle), {"a": b"1"})


async def a_clear_comes_before_the_puts_of_its_change(trial: Trial) -> None:
    handle = await trial.born({"a": b"1", "b": b"2"})

    await trial.commit(replace(trial.write(handle, {"c": b"3", "b": None}), clear=True))

    trial.expect("the items", await trial.items(handle), {"c": b"3"})


async def what_was_dropped_can_be_put_again(trial: Trial) -> None:
    handle = await trial.rotated({"a": b"1"})

    for value in (None, b"2", None, b"3"):
        await trial.commit(trial.write(handle, {"a": value}, 1))

    trial.expect("the items", await trial.items(handle), {"a": b"3"})


async def a_principal_is_kept_until_it_is_named_or_removed(trial: Trial) -> None:
    handle = await trial.born(principal="ada")
    write = trial.write(handle, {"k": b"v"})

    for given, expected in ((None, "ada"), ("eve", "eve"), ("", None)):
        await trial.commit(replace(write, principal=given))
        record = await trial.load(handle)
        trial.expect(f"after principal={given!r}", record and record.principal, expected)


async def the_life_of_the_cookie_is_kept_until_it_is_named(trial: Trial) -> None:
    handle = await trial.born()
    before = await trial.load(handle)

    for given, expected in ((None, before and before.cookie_until), (trial.now + 5, trial.now + 5)):
        await trial.commit(replace(trial.write(handle, {}), cookie_until=given))
        record = await trial.load(handle)
        trial.expect(f"after cookie_until={given!r}", record and record.cookie_until, expected)


async def what_was_handed_in_may_change_afterwards(trial: Trial) -> None:
    birth = trial.birth({"a": b"1"})
    write = trial.write(birth.handle, {"b": b"2"})
    for change in (birth, write):
        await trial.commit(change)

    for change in (birth, write):
        cast("MutableMapping[str, bytes]", change.items)["later"] = b"x"

    trial.expect("the items", await trial.items(birth.handle), {"a": b"1", "b": b"2"})


async def what_was_handed_out_may_change_afterwards(trial: Trial) -> None:
    handle = await trial.born({"a": b"1"})
    record = await trial.load(handle)

    if record is not None and isinstance(record.items, MutableMapping):
        record.items["later"] = b"x"

    trial.expect("the items", await trial.items(handle), {"a": b"1"})


async def concurrent_writers_of_different_keys_all_stay(trial: Trial) -> None:
    handle = await trial.born()
    wanted = {f"key {number}": b"%d" % number for number in range(WRITERS)}

    async with anyio.create_task_group() as group:
        for key, value in wanted.items():
            group.start_soon(trial.commit, trial.write(handle, {key: value}))

    trial.expect("the items", await trial.items(handle), wanted)


async def a_compare_and_set_writes_only_over_what_it_expects(trial: Trial) -> None:
    handle = await trial.born({"n": b"1"})
    write = trial.write(handle, {"n": b"2"})

    late = await trial.commit(replace(write, expect=Expect("n", b"0")))
    early = await trial.commit(replace(write, expect=Expect("n", None)))
    items = await trial.items(handle)
    right = await trial.commit(replace(write, expect=Expect("n", b"1")))

    for name, outcome in (("another value", late), ("no value", early)):
        trial.expect_a(f"the outcome if {name} is expected", outcome, Conflict)
        trial.expect("its current value", cast("Conflict", outcome).current, b"1")
    trial.expect("the items after a conflict", items, {"n": b"1"})
    trial.expect("the outcome if the value is expected", right, Committed(0))
    trial.expect("the items then", await trial.items(handle), {"n": b"2"})


async def a_compare_and_set_can_expect_nothing(trial: Trial) -> None:
    handle = await trial.rotated({"dropped": b"1"})
    await trial.commit(trial.write(handle, {"dropped": None}, 1))

    for key in ("absent", "dropped"):
        write = replace(trial.write(handle, {key: b"new"}, 1), expect=Expect(key, None))
        trial.expect(f"the outcome, {key}", await trial.commit(write), Committed(1))
    gone = replace(trial.write(handle, {"other": b"x"}, 1), expect=Expect("other", b"1"))
    outcome = await trial.commit(gone)

    trial.expect_a("the outcome if a value is expected", outcome, Conflict)
    trial.expect("its current value", cast("Conflict", outcome).current, None)


async def of_racing_compare_and_sets_one_wins(trial: Trial) -> None:
    handle = await trial.born({"n": b"0"})
    wins: list[int] = []

    async def race(number: int) -> None:
        write = trial.write(handle, {"n": b"%d" % (number + 1)})
        outcome = await trial.commit(replace(write, expect=Expect("n", b"0")))
        if isinstance(outcome, Committed):
            wins.append(number)

    async with anyio.create_task_group() as group:
        for number in range(WRITERS):
            group.start_soon(race, number)

    trial.expect("the number of winners", len(wins), 1)
    trial.expect("the items", await trial.items(handle), {"n": b"%d" % (wins[0] + 1)})


CLAUSES: tuple[Clause, ...] = (
    a_write_changes_the_keys_it_names_and_no_other,
    dropping_what_is_not_there_is_fine,
    a_clear_comes_before_the_puts_of_its_change,
    what_was_dropped_can_be_put_again,
    a_principal_is_kept_until_it_is_named_or_removed,
    the_life_of_the_cookie_is_kept_until_it_is_named,
    what_was_handed_in_may_change_afterwards,
    what_was_handed_out_may_change_afterwards,
    concurrent_writers_of_different_keys_all_stay,
    a_compare_and_set_writes_only_over_what_it_expects,
    a_compare_and_set_can_expect_nothing,
    of_racing_compare_and_sets_one_wins,
)
