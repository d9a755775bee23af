"""A store that fails, and a task that is struck while it does.

Each commit of each operation meets each fault, and at each suspension point of that the task is
cancelled. The store may have the change or not, and the task may have an error; but the session is
in a state that the operation goes through, and the manager works on.
"""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from minisession import SessionConfig, SessionManager
from tests.cancellation.conftest import SETTINGS, Setting, Sweep
from tests.cancellation.operations import OPERATIONS
from tests.cancellation.trial import Operation, Trial
from tests.effort import SOAK
from tests.remote_store import Fault, RemoteStore
from tests.tripwire import failed

pytestmark = pytest.mark.anyio

FAULTS = [fault for fault in Fault if fault is not Fault.NONE]
ANSWERING = [Fault.REFUSES, Fault.UNSURE_AFTER]  # the others cost a deadline at each point

CHOSEN = (
    OPERATIONS
    if SOAK
    else [
        each
        for each in OPERATIONS
        if str(each)
        in {
            "writes_while_a_write_is_on_its_way",
            "logs_in",
            "logs_out_with_a_flash_message",
            "updates",
        }
    ]
)
"""The operations with more than one thing on its way."""

DEADLINE = 0.05
"""Seconds for the manager that meets the fault. A busy machine may need more than that for a
commit without one, which then is in doubt too; who looks afterwards has the usual patience."""

MOST_COMMITS = 3  # of an operation, beginning with its first


@pytest.mark.parametrize(
    "setting",
    [each for each in SETTINGS if each.store == "remote" and each.blow is not failed],
    ids=str,
    indirect=True,
)
@pytest.mark.parametrize("fault", FAULTS if SOAK else ANSWERING, ids=lambda fault: fault.name)
@pytest.mark.parametrize("commit", range(MOST_COMMITS) if SOAK else [0])
@pytest.mark.parametrize("operation", CHOSEN, ids=str)
async def test_a_failing_store_and_a_cancellation_leave_a_state_before_or_after(
    setting: Setting, fault: Fault, commit: int, operation: Operation, swept: Sweep
) -> None:
    store = RemoteStore()
    async with SessionManager(store, SessionConfig(save_timeout=DEADLINE)) as sessions:
        work, looks = Trial(sessions), Trial(SessionManager(store))

        async def prepare() -> Awaitable[object]:
            await looks.begin()
            work.start_over()
            work.id = looks.id
            store.faults = [*[Fault.NONE] * commit, fault]
            return operation.may_fail_on(work)

        async def check() -> None:
            store.faults.clear()
            looks.new_id, looks.kept = work.new_id, work.kept
            await looks.require_one_of(operation.worlds)
            await looks.require_usable()
            work.left.require_nothing()

        assert await swept(prepare, check) >= 1
