"""P7: cancellation is safe, wherever it comes.

What was written before is stored, and every operation of several steps is one step in the store:
the old state or the new, never both, never neither. Nothing stays locked, the next operation is
right, and no cookie is sent for what is not stored. Here every operation is cancelled at every
one of its suspension points; in more ways, with more stores and in requests it is in
`tests/cancellation`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from minisession import Session, SessionConfig, SessionManager
from minisession.abc import Store
from minisession.errors import MinisessionError
from minisession.stores.memory import MemoryStore
from tests.cancellation.conftest import NEEDS, STORES, Sweep, counted
from tests.cancellation.trial import BEFORE, Trial
from tests.effort import Tally
from tests.remote_store import Fault, RemoteStore
from tests.tripwire import Blow, cancelled, natively_cancelled

pytestmark = pytest.mark.anyio

Way = tuple[str, Blow]

WAYS = [
    pytest.param(("asyncio", cancelled), id="asyncio"),
    pytest.param(("trio", cancelled), id="trio"),
    pytest.param(("asyncio", natively_cancelled), id="asyncio-native"),
]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def anyio_backend(way: Way) -> str:
    return way[0]


@pytest.fixture
def sweep(way: Way, tally: Tally) -> Sweep:
    return partial(counted, way[1], tally)


@pytest.fixture(params=[pytest.param(name, marks=NEEDS.get(name, ())) for name in STORES])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return STORES[request.param](tmp_path)


@pytest.fixture
async def sessions(any_store: Store) -> AsyncIterator[SessionManager]:
    async with SessionManager(any_store) as manager:
        yield manager


def least_points(sessions: SessionManager) -> int:
    """Return how often an operation suspends at the least: the memory store never waits."""
    return 0 if isinstance(sessions.store, MemoryStore) else 1


async def write(trial: Trial, one: Session) -> None:
    one["n"] = 1
    one["cart"].append("tea")
    trial.sure = 1
    await one.save()


async def write_and_leave(trial: Trial, one: Session) -> None:
    one["n"] = 1
    one["cart"].append("tea")
    trial.sure = 1
    await checkpoint()


@pytest.mark.parametrize("operation", [write, write_and_leave])
async def test_what_was_written_before_a_cancellation_is_stored(
    sessions: SessionManager, sweep: Sweep, operation: Callable[[Trial, Session], Awaitable[None]]
) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[None]:
        await trial.begin()
        return run()

    async def run() -> None:
        async with sessions.open(trial.id) as one:
            trial.kept.append(one)
            await operation(trial, one)

    async def check() -> None:
        after = {"n": 1, "cart": ["tea"]}
        assert await trial.look(trial.id) == (after if trial.sure else BEFORE)
        await trial.require_usable()

    assert await sweep(prepare, check) >= least_points(sessions)


async def test_an_update_happens_once_or_not_at_all(sessions: SessionManager, sweep: Sweep) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[None]:
        await trial.begin()
        return run()

    async def run() -> None:
        async with sessions.open(trial.id) as one:
            trial.kept.append(one)
            await one.update("n", lambda n: n + 1)

    async def check() -> None:
        left = await trial.look(trial.id)
        assert left in ({"n": 0, "cart": []}, {"n": 1, "cart": []})
        assert not sessions._turns
        await trial.require_usable()

    assert await sweep(prepare, check) >= least_points(sessions)


async def test_a_login_leaves_the_old_id_with_the_old_data_or_the_new_with_the_new(
    sessions: SessionManager, sweep: Sweep
) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[None]:
        await trial.begin()
        return run()

    async def run() -> None:
        async with sessions.open(trial.id) as one:
            trial.kept.append(one)
            one.regenerate()
            one["user"] = "Ada"
            del one["cart"]
            trial.new_id = one.id
            await one.save()

    async def check() -> None:
        old, new = await trial.look(trial.id), await trial.look(trial.new_id)
        assert (old, new) in ((BEFORE, None), (None, {"n": 0, "user": "Ada"}))
        await trial.require_usable()

    assert await sweep(prepare, check) >= least_points(sessions)


@pytest.mark.parametrize("flash", [False, True], ids=["", "with a flash message"])
async def test_a_logout_ends_the_session_and_starts_at_most_one(
    sessions: SessionManager, sweep: Sweep, flash: bool
) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[None]:
        await trial.begin()
        return run()

    async def run() -> None:
        async with sessions.open(trial.id) as one:
            trial.kept.append(one)
            assert one["n"] == 0
            one.destroy()
            trial.sure = 1
            if flash:
                one["flash"] = "Bye"
                trial.new_id = one.id
            await one.save()

    async def check() -> None:
        old, new = await trial.look(trial.id), await trial.look(trial.new_id)
        assert old == (None if trial.sure else BEFORE)
        assert new in (None, {"flash": "Bye"})
        await trial.require_usable()

    assert await sweep(prepare, check) >= least_points(sessions)


async def test_a_new_session_is_there_whole_or_not_at_all(
    sessions: SessionManager, sweep: Sweep
) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[None]:
        await trial.begin()
        return run()

    async def run() -> None:
        async with sessions.open() as one:
            trial.kept.append(one)
            one["a"] = 1
            trial.new_id = one.id
            one["b"] = 2
            await one.save()

    async def check() -> None:
        assert await trial.look(trial.new_id) in (None, {"a": 1, "b": 2})
        await trial.require_usable()

    assert await sweep(prepare, check) >= least_points(sessions)


async def test_a_refresh_changes_nothing_that_is_stored(
    sessions: SessionManager, sweep: Sweep
) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[None]:
        await trial.begin()
        return run()

    async def run() -> None:
        async with sessions.open(trial.id) as one:
            trial.kept.append(one)
            one["n"] = 1
            trial.sure = 1
            await one.refresh()
            one["cart"].append("tea")

    async def check() -> None:
        left = await trial.look(trial.id)
        assert left in ({"n": 1, "cart": []}, {"n": 1, "cart": ["tea"]}) or (
            left == BEFORE and not trial.sure
        )
        await trial.require_usable()

    await sweep(prepare, check)


# --- a store that does not answer ----------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.TOO_BUSY, Fault.SILENT_BEFORE, Fault.SILENT_AFTER])
async def test_a_cancelled_task_waits_for_its_writes_no_longer_than_the_deadline(
    fault: Fault, way: Way
) -> None:
    store = RemoteStore()
    config = SessionConfig(save_timeout=0.2)
    async with SessionManager(store, config) as sessions:
        trial = Trial(sessions)
        await trial.begin()
        store.fault = fault
        with anyio.fail_after(5), anyio.CancelScope() as scope:
            async with sessions.open(trial.id) as one:
                one["n"] = 1
                scope.cancel()
                await checkpoint()
        store.fault = Fault.NONE

        left = await trial.look(trial.id)
        assert left is not None
        assert left["n"] in (0, 1)
        await trial.require_usable()


async def test_a_waiter_that_is_cancelled_takes_nobody_elses_batch_with_it(
    sessions: SessionManager, way: Way
) -> None:
    trials = [Trial(sessions) for _ in range(10)]
    for trial in trials:
        await trial.begin()

    async def work(trial: Trial, gives_up: bool) -> None:
        with anyio.CancelScope() as scope:
            async with sessions.open(trial.id) as one:
                one["n"] = 1
                if gives_up:
                    scope.cancel()
                await one.save()

    async with anyio.create_task_group() as tasks:
        for number, trial in enumerate(trials):
            tasks.start_soon(work, trial, number % 2 == 0)

    assert [await trial.look(trial.id) for trial in trials] == [{"n": 1, "cart": []}] * 10


async def test_leaving_the_manager_by_cancellation_stores_what_is_left(
    any_store: Store, way: Way
) -> None:
    ids: list[str] = []
    with anyio.CancelScope() as scope:
        async with SessionManager(any_store) as sessions:
            trial = Trial(sessions)
            await trial.begin()
            ids.append(trial.id)
            async with sessions.open(trial.id) as one:
                one["n"] = 1
                scope.cancel()

    async with SessionManager(any_store) as sessions, sessions.open(ids[0]) as one:
        assert one["n"] == 1


async def test_no_error_of_ours_hides_a_cancellation(sessions: SessionManager, way: Way) -> None:
    trial = Trial(sessions)
    await trial.begin()
    errors: list[BaseException] = []
    with anyio.CancelScope() as scope:
        try:
            async with sessions.open(trial.id) as one:
                one["n"] = 1
                await sessions.revoke(str(one.handle))
                one["cart"] = []
                scope.cancel()
                await checkpoint()
        except MinisessionError as error:
            errors.append(error)

    assert scope.cancelled_caught
    assert errors == []
