"""A new secret, and what late writers of the old one may still do (`rules.admits`)."""

from __future__ import annotations

from dataclasses import replace

from minisession.abc import Change, Committed, Destroy, Gone, Record, Touch, Write

from .trial import GRACE, HOUR, Clause, Trial, secret

REFUSED = Gone(replaced=True)


async def a_rotation_replaces_the_secret_and_keeps_the_rest(trial: Trial) -> None:
    handle = await trial.born({"k": b"v"}, principal="ada")
    before = await trial.load(handle)

    outcome = await trial.commit(trial.rotation(handle, previous_loads=True))

    trial.expect("the outcome", outcome, Committed(1))
    expected = before and replace(
        before,
        secret=secret(1),
        epoch=1,
        previous=secret(0),
        previous_loads=True,
        grace_until=trial.now + GRACE,
    )
    trial.expect("the record", await trial.load(handle), expected)


async def a_rotation_and_the_writes_beside_it_are_one_step(trial: Trial) -> None:
    handle = await trial.born({"a": b"1", "b": b"2"})
    change = trial.rotation(handle)

    await trial.commit(replace(change, items={"user": b"7"}, clear=True, principal="ada"))

    record = await trial.load(handle)
    came = record and (record.secret, record.epoch, record.items, record.principal)
    trial.expect("the record", came, (secret(1), 1, {"user": b"7"}, "ada"))


async def a_second_rotation_forgets_the_first_secret(trial: Trial) -> None:
    handle = await trial.rotated(previous_loads=True)

    outcome = await trial.commit(trial.rotation(handle, 1))

    trial.expect("the outcome", outcome, Committed(2))
    record = await trial.load(handle)
    came = record and (record.secret, record.previous, record.previous_loads)
    trial.expect("the secrets", came, (secret(2), secret(1), False))


async def of_two_rotations_of_one_epoch_the_second_is_refused(trial: Trial) -> None:
    handle = await trial.rotated()

    outcome = await trial.commit(trial.rotation(handle))

    trial.expect("the outcome", outcome, REFUSED)
    record = await trial.load(handle)
    trial.expect("the epoch", record and record.epoch, 1)


async def a_late_write_of_untouched_keys_counts(trial: Trial) -> None:
    handle = await trial.rotated({"a": b"1", "b": b"2"})

    outcome = await trial.commit(trial.write(handle, {"a": b"late", "b": None, "c": b"3"}))

    trial.expect("the outcome", outcome, Committed(1))
    trial.expect("the items", await trial.items(handle), {"a": b"late", "c": b"3"})


async def a_late_write_changes_items_and_nothing_else(trial: Trial) -> None:
    handle = await trial.rotated({"a": b"1"})
    before = await trial.load(handle)
    late = trial.write(handle, {"b": b"2"})

    await trial.commit(replace(late, expires=trial.now + 9 * HOUR, cookie_until=trial.now + 1))

    after = before and replace(before, items={"a": b"1", "b": b"2"})
    trial.expect("the record", await trial.load(handle), after)


async def late_writes_come_before_the_rotation_so_another_one_still_counts(trial: Trial) -> None:
    handle = await trial.rotated()

    for value in (b"first", b"second", None, b"third"):
        outcome = await trial.commit(trial.write(handle, {"k": value}))
        trial.expect(f"the outcome of {value!r}", outcome, Committed(1))

    trial.expect("the items", await trial.items(handle), {"k": b"third"})


async def a_late_write_of_a_key_written_since_is_refused_wholly(trial: Trial) -> None:
    handle = await trial.rotated({"a": b"1"})
    await trial.commit(trial.write(handle, {"user": b"new"}, 1))

    outcome = await trial.commit(trial.write(handle, {"a": b"late", "user": b"late"}))

    trial.expect("the outcome", outcome, REFUSED)
    trial.expect("the items", await trial.items(handle), {"a": b"1", "user": b"new"})


async def a_late_write_of_a_key_written_by_the_rotation_is_refused(trial: Trial) -> None:
    handle = await trial.born({"user": b"old"})
    await trial.commit(replace(trial.rotation(handle), items={"user": b"new"}))

    outcome = await trial.commit(trial.write(handle, {"user": b"late"}))

    trial.expect("the outcome", outcome, REFUSED)
    trial.expect("the items", await trial.items(handle), {"user": b"new"})


async def a_late_write_of_a_key_dropped_since_is_refused(trial: Trial) -> None:
    handle = await trial.rotated({"coupon": b"1"})
    await trial.commit(trial.write(handle, {"coupon": None}, 1))

    outcome = await trial.commit(trial.write(handle, {"coupon": b"late"}))

    trial.expect("the outcome", outcome, REFUSED)
    trial.expect("the items", await trial.items(handle), {})


async def a_late_write_of_a_key_dropped_by_the_rotation_is_refused(trial: Trial) -> None:
    handle = await trial.born({"coupon": b"1"})
    await trial.commit(replace(trial.rotation(handle), items={"coupon": None}))

    outcome = await trial.commit(trial.write(handle, {"coupon": b"late"}))

    trial.expect("the outcome", outcome, REFUSED)


async def a_late_write_to_a_session_cleared_since_is_refused(trial: Trial) -> None:
    by_a_write, by_the_rotation = await trial.rotated(), await trial.born()
    await trial.commit(replace(trial.write(by_a_write, {}, 1), clear=True))
    await trial.commit(replace(trial.rotation(by_the_rotation), clear=True))

    for handle in (by_a_write, by_the_rotation):
        outcome = await trial.commit(trial.write(handle, {"k": b"late"}))
        trial.expect("the outcome", outcome, REFUSED)
        trial.expect("the items", await trial.items(handle), {})


async def a_late_change_that_does_more_than_put_and_drop_is_refused(trial: Trial) -> None:
    handle = await trial.rotated({"k": b"v"})
    before = await trial.load(handle)
    write = trial.write(handle, {"new": b"1"})

    late: dict[str, Change] = {
        "clear": replace(write, clear=True),
        "rotation": trial.rotation(handle),
        "principal": replace(write, principal="eve"),
        "touch": Touch(handle, 0, trial.now + 9 * HOUR),
        "destroy": Destroy(handle, 0),
    }
    for name, change in late.items():
        trial.expect(f"the outcome of a {name}", await trial.commit(change), REFUSED)
    trial.expect("the record", await trial.load(handle), before)


async def a_late_destroy_counts_if_the_previous_secret_still_loads(trial: Trial) -> None:
    handle = await trial.rotated(previous_loads=True)

    trial.expect("the outcome", await trial.commit(Destroy(handle, 0)), Committed(1))
    trial.expect("the record", await trial.load(handle), None)


async def after_the_grace_nothing_of_the_old_epoch_counts(trial: Trial) -> None:
    handle = await trial.rotated(previous_loads=True)

    for change in (trial.write(handle, {"k": b"late"}), Destroy(handle, 0)):
        outcome = await trial.commit(change, after=GRACE)
        trial.expect("the outcome", outcome, REFUSED)
    trial.expect_a("the session", await trial.load(handle, after=GRACE), Record)


async def a_write_of_two_epochs_before_is_refused(trial: Trial) -> None:
    handle = await trial.rotated()
    await trial.commit(trial.rotation(handle, 1))

    trial.expect("the outcome", await trial.commit(trial.write(handle, {"k": b"late"})), REFUSED)


async def a_write_of_an_epoch_to_come_is_refused(trial: Trial) -> None:
    handle = await trial.born()

    trial.expect("the outcome", await trial.commit(trial.write(handle, {"k": b"v"}, 1)), REFUSED)


async def the_next_rotation_makes_late_writes_of_its_epoch_possible_again(trial: Trial) -> None:
    handle = await trial.rotated({"k": b"v"})
    changes: list[Write] = [
        trial.write(handle, {"k": None, "user": b"1"}, 1),
        trial.rotation(handle, 1),
        trial.write(handle, {"k": b"late", "user": b"late"}, 1),
    ]

    outcomes = [await trial.commit(change) for change in changes]

    trial.expect("the outcomes", outcomes, [Committed(1), Committed(2), Committed(2)])
    trial.expect("the items", await trial.items(handle), {"k": b"late", "user": b"late"})


CLAUSES: tuple[Clause, ...] = (
    a_rotation_replaces_the_secret_and_keeps_the_rest,
    a_rotation_and_the_writes_beside_it_are_one_step,
    a_second_rotation_forgets_the_first_secret,
    of_two_rotations_of_one_epoch_the_second_is_refused,
    a_late_write_of_untouched_keys_counts,
    a_late_write_changes_items_and_nothing_else,
    late_writes_come_before_the_rotation_so_another_one_still_counts,
    a_late_write_of_a_key_written_since_is_refused_wholly,
    a_late_write_of_a_key_written_by_the_rotation_is_refused,
    a_late_write_of_a_key_dropped_since_is_refused,
    a_late_write_of_a_key_dropped_by_the_rotation_is_refused,
    a_late_write_to_a_session_cleared_since_is_refused,
    a_late_change_that_does_more_than_put_and_drop_is_refused,
    a_late_destroy_counts_if_the_previous_secret_still_loads,
    after_the_grace_nothing_of_the_old_epoch_counts,
    a_write_of_two_epochs_before_is_refused,
    a_write_of_an_epoch_to_come_is_refused,
    the_next_rotation_makes_late_writes_of_its_epoch_possible_again,
)
