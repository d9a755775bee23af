"""Every operation on a session, struck at every one of its suspension points, in every way.

Afterwards the session is in one of the states that the operation goes through, nothing is locked,
queued or running, and the next operation is right.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from minisession import SessionManager
from minisession.abc import Store
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore
from tests.cancellation.conftest import Setting, Sweep, cases, counted, raises_nothing_into_siblings
from tests.cancellation.operations import OPERATIONS
from tests.cancellation.trial import Operation, Trial
from tests.effort import Tally
from tests.tripwire import cancelled, failed

pytestmark = pytest.mark.anyio


@pytest.fixture
async def sessions(any_store: Store) -> AsyncIterator[SessionManager]:
    async with SessionManager(any_store) as manager:
        yield manager


@pytest.mark.parametrize(
    ("setting", "operation"),
    cases(OPERATIONS, raises_nothing_into_siblings),
    indirect=["setting"],
)
async def test_an_operation_leaves_a_state_before_or_after_and_nothing_else(
    sessions: SessionManager, setting: Setting, swept: Sweep, operation: Operation
) -> None:
    trial = Trial(sessions)

    async def prepare() -> Awaitable[object]:
        await trial.begin()
        if setting.blow is failed:
            return operation.may_fail_on(trial)
        return operation.on(trial)

    async def check() -> None:
        await trial.require_one_of(operation.worlds)
        await trial.require_usable()

    points = await swept(prepare, check)

    assert points or isinstance(sessions.store, MemoryStore)  # which never waits


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_where_no_manager_runs_a_cancellation_is_as_safe(
    anyio_backend: str, tmp_path: Path, operation: Operation, tally: Tally
) -> None:
    async with SQLiteStore(tmp_path / "sessions.db") as store:
        trial = Trial(SessionManager(store))

        async def prepare() -> Awaitable[object]:
            await trial.begin()
            return operation.on(trial)

        async def check() -> None:
            await trial.require_one_of(operation.worlds)
            await trial.require_usable()

        assert await counted(cancelled, tally, prepare, check) >= 1
