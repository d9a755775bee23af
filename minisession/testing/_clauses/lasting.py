"""What is still there when the store is opened again, or by somebody else at the same time."""

from __future__ import annotations

from dataclasses import replace

from minisession.abc import Committed, Destroy

from .rotation import REFUSED
from .trial import Clause, Trial


async def what_was_committed_is_there_when_the_store_is_opened_again(trial: Trial) -> None:
    handle = await trial.rotated({"a": b"1", "b": b"2"}, previous_loads=True)
    await trial.commit(replace(trial.write(handle, {"a": b"3", "b": None}, 1), principal="ada"))
    ended = await trial.ended()
    before = await trial.load(handle)
    await trial.store.__aexit__(None, None, None)

    async with trial.make_store() as again:
        loaded = [await again.load(which, trial.now) for which in (handle, ended)]

        trial.expect("the records", loaded, [before, None])
        late = await again.commit([trial.write(handle, {"b": b"late"})], trial.now)
        trial.expect("a late write of a key dropped before the store closed", late, [REFUSED])
        await again.commit([Destroy(handle, None)], trial.now)


async def a_second_store_in_the_same_place_sees_it_at_once(trial: Trial) -> None:
    async with trial.make_store() as other:
        handle = await trial.born({"n": b"0"})
        for number in range(10):
            one, two = (trial.store, other) if number % 2 else (other, trial.store)
            wrote = await one.commit([trial.write(handle, {"n": b"%d" % number})], trial.now)
            trial.expect("the outcome", wrote, [Committed(0)])
            record = await two.load(handle, trial.now)
            trial.expect("what the other loads", record and record.items, {"n": b"%d" % number})


async def a_store_can_be_opened_again_after_it_was_closed(trial: Trial) -> None:
    handle = await trial.born({"k": b"v"})
    await trial.store.__aexit__(None, None, None)

    async with trial.store:
        trial.expect("the items", await trial.items(handle), {"k": b"v"})


CLAUSES: tuple[Clause, ...] = (
    what_was_committed_is_there_when_the_store_is_opened_again,
    a_second_store_in_the_same_place_sees_it_at_once,
    a_store_can_be_opened_again_after_it_was_closed,
)
