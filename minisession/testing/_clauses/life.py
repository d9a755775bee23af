"""Coming to life, expiring, ending, and never coming back."""

from __future__ import annotations

from dataclasses import replace

from minisession.abc import Committed, Destroy, Gone, LoadsNowait, Record, Touch

from .trial import HOUR, Clause, Trial, secret

KINDS = {
    "": b"an empty key",
    "nul\0inside": b"\0\1\2\0",
    "ключ \U0001f36a": b"",
    "a" * 500: b"x" * 300_000,
    "__proto__": bytes(range(256)),
}


async def a_created_session_loads_as_it_was(trial: Trial) -> None:
    change = trial.birth({"cart": b"[1]", "n": b"2"}, principal="ada")

    outcome = await trial.commit(change)

    trial.expect("the outcome of the Create", outcome, Committed(0))
    expected = Record(
        handle=change.handle,
        secret=change.secret,
        epoch=0,
        items={"cart": b"[1]", "n": b"2"},
        created=change.created,
        expires=change.expires,
        cookie_until=change.cookie_until,
        principal="ada",
    )
    trial.expect("the record", await trial.load(change.handle), expected)


async def keys_and_values_of_every_kind_come_back(trial: Trial) -> None:
    handle = await trial.born(KINDS)

    trial.expect("the items", await trial.items(handle), KINDS)


async def loading_at_once_agrees_with_loading(trial: Trial) -> None:
    if not isinstance(trial.store, LoadsNowait):
        return
    handle = await trial.born({"k": b"v"})

    for name, which in (("a living session", handle), ("none", handle + "x")):
        at_once = trial.store.load_nowait(which, trial.now)
        trial.expect(f"load_nowait of {name}", at_once, await trial.load(which))


async def an_absent_session_loads_as_none(trial: Trial) -> None:
    trial.expect("the record", await trial.load(trial.birth().handle), None)


async def creating_on_a_taken_handle_is_gone_and_changes_nothing(trial: Trial) -> None:
    first = trial.birth({"k": b"first"})
    await trial.commit(first)

    outcome = await trial.commit(replace(first, items={"k": b"second"}, secret=secret(9)))

    trial.expect_a("the outcome", outcome, Gone)
    record = await trial.load(first.handle)
    trial.expect(
        "the first record", record and (record.items, record.secret), (first.items, secret(0))
    )


async def creating_where_one_has_expired_starts_with_nothing_of_it(trial: Trial) -> None:
    first = trial.birth({"old": b"1"}, principal="ada")
    await trial.commit(first)
    later = trial.now + 2 * HOUR
    second = replace(first, items={"new": b"2"}, created=later, expires=later + 1, principal=None)

    outcome = await trial.commit(second, after=2 * HOUR)

    trial.expect("the outcome", outcome, Committed(0))
    record = await trial.load(first.handle, after=2 * HOUR)
    trial.expect("its items", record and record.items, {"new": b"2"})
    trial.expect("its principal", record and record.principal, None)


async def creating_what_has_expired_already_is_gone(trial: Trial) -> None:
    change = replace(trial.birth(), expires=trial.now)

    trial.expect_a("the outcome", await trial.commit(change), Gone)
    trial.expect("the record", await trial.load(change.handle), None)


async def a_write_to_an_absent_session_is_gone_and_creates_nothing(trial: Trial) -> None:
    handle = trial.birth().handle

    for change in (trial.write(handle, {"k": b"v"}), trial.rotation(handle)):
        trial.expect("the outcome", await trial.commit(change), Gone(replaced=False))
    trial.expect("the record", await trial.load(handle), None)


async def a_write_to_a_destroyed_session_is_gone_and_creates_nothing(trial: Trial) -> None:
    handle = await trial.ended()

    outcome = await trial.commit(trial.write(handle, {"k": b"late"}))

    trial.expect("the outcome", outcome, Gone(replaced=False))
    trial.expect("the record", await trial.load(handle), None)


async def a_session_ends_exactly_when_it_expires(trial: Trial) -> None:
    handle = await trial.born({"k": b"v"})

    trial.expect_a("the record just before", await trial.load(handle, after=HOUR - 1), Record)
    trial.expect("the record then", await trial.load(handle, after=HOUR), None)


async def a_write_to_an_expired_session_is_gone_and_does_not_revive_it(trial: Trial) -> None:
    handle = await trial.born({"k": b"v"})
    late = replace(trial.write(handle, {"k": b"late"}), expires=trial.now + 9 * HOUR)

    outcome = await trial.commit(late, after=HOUR)

    trial.expect("the outcome", outcome, Gone(replaced=False))
    trial.expect("the record", await trial.load(handle, after=HOUR), None)


async def a_write_moves_the_end(trial: Trial) -> None:
    handle = await trial.born({"k": b"v"})

    await trial.commit(replace(trial.write(handle, {}), expires=trial.now + 2 * HOUR))

    record = await trial.load(handle, after=1.5 * HOUR)
    trial.expect("the end", record and record.expires, trial.now + 2 * HOUR)


async def a_touch_moves_the_end_and_nothing_else(trial: Trial) -> None:
    handle = await trial.born({"k": b"v"})
    before = await trial.load(handle)

    outcome = await trial.commit(Touch(handle, 0, trial.now + 2 * HOUR))

    trial.expect("the outcome", outcome, Committed(0))
    moved = before and replace(before, expires=trial.now + 2 * HOUR)
    trial.expect("the record", await trial.load(handle), moved)


async def a_touch_never_shortens_a_life(trial: Trial) -> None:
    handle = await trial.born()

    outcome = await trial.commit(Touch(handle, 0, trial.now + 1))

    trial.expect("the outcome", outcome, Committed(0))
    record = await trial.load(handle)
    trial.expect("the end", record and record.expires, trial.now + HOUR)


async def a_touch_never_revives(trial: Trial) -> None:
    ended, expired, absent = await trial.ended(), await trial.born(), trial.birth().handle

    for name, handle in (("destroyed", ended), ("expired", expired), ("absent", absent)):
        outcome = await trial.commit(Touch(handle, 0, trial.now + 9 * HOUR), after=HOUR)
        trial.expect(f"the outcome, {name}", outcome, Gone(replaced=False))
        trial.expect(f"the record, {name}", await trial.load(handle, after=HOUR), None)


async def a_destroyed_session_is_gone_at_once_and_only_once(trial: Trial) -> None:
    handle = await trial.born({"k": b"v"})

    first = await trial.commit(Destroy(handle, 0))
    second = await trial.commit(Destroy(handle, 0))

    trial.expect("the first outcome", first, Committed(0))
    trial.expect("the record", await trial.load(handle), None)
    trial.expect("the second outcome", second, Gone(replaced=False))


async def a_revocation_ends_a_session_whatever_its_epoch(trial: Trial) -> None:
    handle = await trial.rotated({"k": b"v"})

    trial.expect("the outcome", await trial.commit(Destroy(handle, None)), Committed(1))
    trial.expect("the record", await trial.load(handle), None)


async def destroying_what_has_expired_is_gone(trial: Trial) -> None:
    handle = await trial.born()

    outcome = await trial.commit(Destroy(handle, None), after=HOUR)

    trial.expect("the outcome", outcome, Gone(replaced=False))


CLAUSES: tuple[Clause, ...] = (
    a_created_session_loads_as_it_was,
    keys_and_values_of_every_kind_come_back,
    loading_at_once_agrees_with_loading,
    an_absent_session_loads_as_none,
    creating_on_a_taken_handle_is_gone_and_changes_nothing,
    creating_where_one_has_expired_starts_with_nothing_of_it,
    creating_what_has_expired_already_is_gone,
    a_write_to_an_absent_session_is_gone_and_creates_nothing,
    a_write_to_a_destroyed_session_is_gone_and_creates_nothing,
    a_session_ends_exactly_when_it_expires,
    a_write_to_an_expired_session_is_gone_and_does_not_revive_it,
    a_write_moves_the_end,
    a_touch_moves_the_end_and_nothing_else,
    a_touch_never_shortens_a_life,
    a_touch_never_revives,
    a_destroyed_session_is_gone_at_once_and_only_once,
    a_revocation_ends_a_session_whatever_its_epoch,
    destroying_what_has_expired_is_gone,
)
