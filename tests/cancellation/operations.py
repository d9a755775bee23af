"""Everything that can be done to a session, with the states that it goes through."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from minisession import Session
from tests.cancellation.trial import BEFORE, Operation, Trial, World

LOGGED_IN = {"n": 0, "user": "Ada"}


def n_is(*numbers: int) -> list[World]:
    """The states in which only `n` differs."""
    return [({**BEFORE, "n": n}, None) for n in numbers]


async def only_reads(trial: Trial, one: Session) -> None:
    assert one["n"] == 0
    await checkpoint()


async def writes_and_saves(trial: Trial, one: Session) -> None:
    one["n"] = 1
    trial.sure = 1
    await one.save()


async def changes_inside_a_value(trial: Trial, one: Session) -> None:
    one["cart"].append("tea")
    trial.sure = 1
    await one.save()


async def writes_and_leaves(trial: Trial, one: Session) -> None:
    one["n"] = 1
    trial.sure = 1
    await checkpoint()


async def writes_while_a_write_is_on_its_way(trial: Trial, one: Session) -> None:
    one["n"] = 1
    trial.sure = 1
    await checkpoint()
    one["n"] = 2
    trial.sure = 2
    await checkpoint()
    one["n"] = 3
    trial.sure = 3
    await one.save()


async def writes_at_its_end(trial: Trial, one: Session) -> None:
    try:
        one["n"] = 1
        trial.sure = 1
        await one.save()
        await checkpoint()
    finally:
        one["n"] = 2
        trial.sure = 2


async def saves_twice(trial: Trial, one: Session) -> None:
    one["n"] = 1
    trial.sure = 1
    await one.save()
    one["n"] = 2
    trial.sure = 2
    await one.save()


async def saves_beside_a_sibling(trial: Trial, one: Session) -> None:
    async def sibling() -> None:
        await one.save()

    one["n"] = 1
    trial.sure = 1
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sibling)
        await one.save()
        one["n"] = 2
        trial.sure = 2


async def updates(trial: Trial, one: Session) -> None:
    await one.update("n", lambda n: n + 1)
    trial.sure = 1


async def updates_after_a_write(trial: Trial, one: Session) -> None:
    one["n"] = 1
    trial.sure = 1
    await one.update("n", lambda n: n + 1)
    trial.sure = 2


async def updates_beside_a_sibling(trial: Trial, one: Session) -> None:
    async def increment() -> None:
        await one.update("n", lambda n: n + 1)
        trial.sure += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(increment)
        await increment()


async def logs_in(trial: Trial, one: Session) -> None:
    one.regenerate()
    one["user"] = "Ada"
    del one["cart"]
    trial.new_id = one.id
    await one.save()
    trial.sure = 1


async def renews_its_id(trial: Trial, one: Session) -> None:
    one.regenerate(delete_old_session=False)
    trial.new_id = one.id
    await one.save()
    trial.sure = 1


async def logs_out(trial: Trial, one: Session) -> None:
    one.destroy()
    trial.sure = 1
    await one.save()


async def logs_out_with_a_flash_message(trial: Trial, one: Session) -> None:
    one.destroy()
    trial.sure = 1
    one["flash"] = "Bye"
    trial.new_id = one.id
    await one.save()
    trial.sure = 2


async def is_revoked(trial: Trial, one: Session) -> None:
    await trial.sessions.revoke(str(one.handle))
    trial.sure = 1


async def refreshes(trial: Trial, one: Session) -> None:
    one["n"] = 1
    trial.sure = 1
    await one.refresh()
    assert one["n"] == 1
    one["n"] = 2
    trial.sure = 2


async def opens_it_by_its_handle(trial: Trial, one: Session) -> None:
    async with trial.sessions.open_handle(str(one.handle)) as other:
        trial.kept.append(other)
        other["n"] = 1
        trial.sure = 1


async def starts_a_session(trial: Trial, one: Session) -> None:
    one["a"] = 1
    trial.new_id = one.id
    one["b"] = 2
    await one.save()
    trial.sure = 1


OPERATIONS = [
    Operation(only_reads, n_is(0)),
    Operation(writes_and_saves, n_is(0, 1)),
    Operation(changes_inside_a_value, [(BEFORE, None), ({"n": 0, "cart": ["tea"]}, None)]),
    Operation(writes_and_leaves, n_is(0, 1)),
    Operation(writes_while_a_write_is_on_its_way, n_is(0, 1, 2, 3)),
    Operation(writes_at_its_end, n_is(0, 1, 2)),
    Operation(saves_twice, n_is(0, 1, 2)),
    Operation(saves_beside_a_sibling, n_is(0, 1, 2), has_siblings=True),
    Operation(updates, n_is(0, 1)),
    Operation(updates_after_a_write, n_is(0, 1, 2)),
    Operation(updates_beside_a_sibling, n_is(0, 1, 2), has_siblings=True),
    Operation(logs_in, [(BEFORE, None), (None, LOGGED_IN)]),
    Operation(renews_its_id, [(BEFORE, None), (BEFORE, BEFORE)]),
    Operation(logs_out, [(BEFORE, None), (None, None)]),
    Operation(
        logs_out_with_a_flash_message,
        [(BEFORE, None), (None, None), (None, {"flash": "Bye"})],
    ),
    Operation(is_revoked, [(BEFORE, None), (None, None)]),
    Operation(refreshes, n_is(0, 1, 2)),
    Operation(opens_it_by_its_handle, n_is(0, 1)),
    Operation(starts_a_session, [(BEFORE, None), (BEFORE, {"a": 1, "b": 2})], opens=False),
]
