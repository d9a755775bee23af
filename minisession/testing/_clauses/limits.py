"""How large a session may become: its live items' keys and values, in bytes."""

from __future__ import annotations

from dataclasses import replace

from minisession.abc import Committed, size_of
from minisession.errors import SessionTooLarge

from .trial import Clause, Trial

MAX = 100  # bytes


async def creating_more_than_the_limit_is_refused(trial: Trial) -> None:
    change = replace(trial.birth({"k": b"x" * MAX}), max_size=MAX)

    trial.expect_a("the outcome", await trial.commit(change), SessionTooLarge)
    trial.expect("the record", await trial.load(change.handle), None)


async def the_limit_itself_is_allowed_and_one_byte_more_is_not(trial: Trial) -> None:
    handle = await trial.born({"ä": b"x" * 50})
    room = MAX - size_of("ä", b"x" * 50) - size_of("k", b"")

    for size, allowed in ((room, True), (room + 1, False)):
        write = replace(trial.write(handle, {"k": b"y" * size}), max_size=MAX)
        outcome = await trial.commit(write)
        trial.expect_a(
            f"the outcome of {size} bytes", outcome, Committed if allowed else SessionTooLarge
        )


async def what_is_too_large_changes_nothing(trial: Trial) -> None:
    handle = await trial.born({"a": b"1", "b": b"2"})
    before = await trial.load(handle)
    large = {"a": None, "b": b"x" * MAX, "c": b"3"}
    write = replace(trial.rotation(handle), items=large, max_size=MAX, principal="ada")

    trial.expect_a("the outcome", await trial.commit(write), SessionTooLarge)
    trial.expect("the record", await trial.load(handle), before)


async def what_is_replaced_or_dropped_no_longer_counts(trial: Trial) -> None:
    handle = await trial.born({"a": b"1" * 40, "b": b"2" * 40})

    for _ in range(5):
        for items in (
            {"a": b"3" * 55},
            {"a": b"1" * 40},
            {"b": None, "c": b"4" * 40},
            {"b": b"2", "c": None},
        ):
            outcome = await trial.commit(replace(trial.write(handle, items), max_size=MAX))
            trial.expect("the outcome", outcome, Committed(0))


async def what_is_cleared_no_longer_counts(trial: Trial) -> None:
    handle = await trial.born({"a": b"1" * 80})

    write = replace(trial.write(handle, {"b": b"2" * 80}), max_size=MAX, clear=True)

    trial.expect("the outcome", await trial.commit(write), Committed(0))


async def a_session_beyond_the_limit_may_shrink_and_not_grow(trial: Trial) -> None:
    handle = await trial.born({"a": b"1" * 300, "b": b"2" * 300})

    for items, allowed in (
        ({"a": b"1" * 200}, True),
        ({"a": b"1" * 201}, False),
        ({"a": None, "c": b"3" * 10}, True),
        ({"c": b"3" * 10}, True),
        ({"d": b"4"}, False),
    ):
        write = replace(trial.write(handle, items), max_size=MAX)
        expected = Committed if allowed else SessionTooLarge
        trial.expect_a("the outcome", await trial.commit(write), expected)


CLAUSES: tuple[Clause, ...] = (
    creating_more_than_the_limit_is_refused,
    the_limit_itself_is_allowed_and_one_byte_more_is_not,
    what_is_too_large_changes_nothing,
    what_is_replaced_or_dropped_no_longer_counts,
    what_is_cleared_no_longer_counts,
    a_session_beyond_the_limit_may_shrink_and_not_grow,
)
