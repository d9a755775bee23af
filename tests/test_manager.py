"""The manager outside HTTP: opening, saving, updating, and what its background tasks do."""

# ruff: noqa: PT012  # it is often the end of an `async with sessions.open()` that raises

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from contextvars import Context

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from minisession import (
    Conflict,
    NoActiveSession,
    SaveOutcomeUnknown,
    SaveTimeout,
    Session,
    SessionClosed,
    SessionConfig,
    SessionGone,
    SessionManager,
    SessionTooLarge,
    StoreUnavailable,
    UnstorableValue,
    UsageError,
    session,
)
from minisession._ids import split_id
from minisession._manager import SWEEP_BATCH, SWEEP_EVERY, SWEEP_PAUSE, UPDATE_TRIES
from minisession.abc import Create, Destroy, Write
from minisession.stores.memory import MemoryStore
from tests.clock import Clock
from tests.remote_store import Fault, RemoteStore

pytestmark = pytest.mark.anyio

HOUR = 3600.0
UNANSWERED = (Fault.TOO_BUSY, Fault.SILENT_BEFORE, Fault.SILENT_AFTER)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def remote() -> RemoteStore:
    return RemoteStore()


@pytest.fixture
async def sessions(remote: RemoteStore, clock: Clock) -> AsyncIterator[SessionManager]:
    async with SessionManager(remote, clock=clock) as manager:
        yield manager


@pytest.fixture
def hasty(remote: RemoteStore, clock: Clock) -> SessionManager:
    """Another one of the same store, which soon gives up on it: only where it never answers."""
    return SessionManager(remote, SessionConfig(save_timeout=0.2), clock=clock)


async def begun(sessions: SessionManager, **values: object) -> str:
    """Start a session, as an earlier request did, and return its id."""
    async with sessions.open() as one:
        one.update(values or {"begun": True})
        await one.save()
        assert one.id is not None
        return one.id


async def stored(sessions: SessionManager, id: str) -> dict[str, object]:
    """Return what the store has, seen by somebody else."""
    async with sessions.open(id) as other:
        return other.all()


def handle_of(id: str) -> str:
    pair = split_id(id)
    assert pair is not None
    return pair[0]


# --- opening -------------------------------------------------------------------------------------


async def test_a_session_that_is_only_read_is_never_stored(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    async with sessions.open() as one:
        assert one.get("n") is None
        assert one.id is None

    assert remote.commits == []


async def test_what_was_written_is_there_at_the_next_open(sessions: SessionManager) -> None:
    async with sessions.open() as one:
        one["n"] = 1
        await one.save()
        id = one.id

    async with sessions.open(id) as again:
        assert dict(again) == {"n": 1}


async def test_leaving_the_block_saves(sessions: SessionManager) -> None:
    id = await begun(sessions, n=1)

    async with sessions.open(id) as one:
        one["n"] = 2

    assert await stored(sessions, id) == {"n": 2}


async def test_the_block_binds_the_ambient_session_and_unbinds_it(
    sessions: SessionManager,
) -> None:
    async with sessions.open():
        session["n"] = 1
        assert session["n"] == 1

    with pytest.raises(NoActiveSession):
        session["n"]


async def test_blocks_nest(sessions: SessionManager) -> None:
    async with sessions.open():
        session["who"] = "outer"
        async with sessions.open():
            session["who"] = "inner"
        assert session["who"] == "outer"


async def test_leaving_the_block_in_another_context_leaves_that_context_alone(
    sessions: SessionManager,
) -> None:
    lease = sessions.open()
    async with sessions.open():
        session["who"] = "its own"
        foreign = Context()
        entered = foreign.run(lease.__aenter__)
        coroutine = entered.__await__()
        while True:  # driven by hand in the foreign context, as a late finalizer would
            try:
                step = foreign.run(next, coroutine)
            except StopIteration:
                break
            await _forward(step)
        await lease.__aexit__(None, None, None)

        assert session["who"] == "its own"


async def _forward(step: object) -> None:
    await checkpoint()


@pytest.mark.parametrize(
    "id",
    [
        pytest.param("", id="empty"),
        pytest.param("nonsense", id="malformed"),
        pytest.param(f"{'A' * 22}.{'B' * 32}", id="unknown"),
    ],
)
async def test_an_id_that_names_nothing_opens_an_empty_session_and_is_not_adopted(
    sessions: SessionManager, id: str
) -> None:
    async with sessions.open(id) as one:
        assert not one.is_started
        one["n"] = 1
        await one.save()
        assert one.id not in (None, id)


async def test_a_wrong_secret_opens_nothing_and_is_reported(
    sessions: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    id = await begun(sessions)

    async with sessions.open(f"{handle_of(id)}.{'x' * 32}") as one:
        assert not one.is_started

    assert f"session {handle_of(id)}: a wrong secret was presented" in caplog.text


async def test_a_handle_opens_the_session_without_its_secret(sessions: SessionManager) -> None:
    id = await begun(sessions, n=1)

    async with sessions.open_handle(handle_of(id)) as job:
        job["n"] += 1
        assert job.id is None
        assert job.handle == handle_of(id)

    assert await stored(sessions, id) == {"n": 2}


@pytest.mark.parametrize("handle", ["A" * 22, "", "../etc/passwd"])
async def test_a_handle_that_names_nothing_is_gone(sessions: SessionManager, handle: str) -> None:
    with pytest.raises(SessionGone):
        async with sessions.open_handle(handle):
            pass


async def test_an_object_that_outlived_its_block_says_how_to_go_on(
    sessions: SessionManager,
) -> None:
    async with sessions.open() as one:
        one["n"] = 1
        handle = one.handle

    with pytest.raises(SessionClosed, match=rf"open_handle\('{handle}'\)"):
        one["n"]


async def test_an_exception_in_the_block_is_raised_as_it_is_and_keeps_what_was_written(
    sessions: SessionManager,
) -> None:
    id = await begun(sessions, n=1)

    with pytest.raises(ZeroDivisionError):
        async with sessions.open(id) as one:
            one["n"] = 2
            raise ZeroDivisionError

    assert await stored(sessions, id) == {"n": 2}


async def test_a_nested_value_that_cannot_be_stored_costs_no_other_write(
    sessions: SessionManager,
) -> None:
    id = await begun(sessions, cart=[])
    manager = SessionManager(sessions.store, clock=sessions.clock)  # without background tasks

    with pytest.raises(UnstorableValue, match="cart"):
        async with manager.open(id) as one:
            one["cart"].append(object())
            one["n"] = 2

    assert await stored(sessions, id) == {"cart": [], "n": 2}


async def test_what_a_failed_block_could_not_store_is_logged_with_its_handle(
    sessions: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    id = await begun(sessions, cart=[])

    with pytest.raises(ZeroDivisionError):
        async with sessions.open(id) as one:
            one["cart"].append(object())
            raise ZeroDivisionError

    assert f"{handle_of(id)} live>: writes of a failed request could not be stored" in caplog.text


async def test_what_only_a_failed_block_could_have_told_its_client_is_not_stored(
    sessions: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    with pytest.raises(ZeroDivisionError):
        async with sessions.open() as one:
            one["n"] = 1
            raise ZeroDivisionError

    assert await sessions.store.scan(sessions.clock()) == []
    assert "had started or renewed was dropped" in caplog.text


# --- its own life --------------------------------------------------------------------------------


async def test_its_repr_says_whether_it_runs() -> None:
    manager = SessionManager("memory://")

    async with manager:
        assert repr(manager) == "<SessionManager running store=<MemoryStore sessions=0>>"
    assert repr(manager) == "<SessionManager idle store=<MemoryStore sessions=0>>"


async def test_a_manager_cannot_be_entered_twice_at_once(sessions: SessionManager) -> None:
    with pytest.raises(UsageError, match="entered already"):
        await sessions.__aenter__()


async def test_a_manager_can_be_entered_again_later() -> None:
    manager = SessionManager("memory://")

    for _ in range(2):
        async with manager:
            await begun(manager)

    assert "idle" in repr(manager)


async def test_an_exception_of_the_block_leaves_the_manager_unwrapped() -> None:
    with pytest.raises(ZeroDivisionError):
        async with SessionManager("memory://"):
            raise ZeroDivisionError


async def test_leaving_the_manager_stores_what_nobody_saved() -> None:
    store = MemoryStore()
    stack = AsyncExitStack()
    async with SessionManager(store) as manager:
        id = await begun(manager, n=1)
        one = await stack.enter_async_context(manager.open(id))
        one["n"] = 2

    async with SessionManager(store) as later:
        assert await stored(later, id) == {"n": 2}
    await stack.aclose()


async def test_expired_sessions_are_swept(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    purged = anyio.Event()

    class Swept(MemoryStore):
        async def purge(self, now: float, limit: int) -> int:
            removed = await super().purge(now, limit)
            purged.set()
            return removed

    monkeypatch.setattr("minisession._manager.SWEEP_EVERY", 0.001)
    store = Swept()
    async with SessionManager(store, clock=clock) as manager:
        await begun(manager)
        clock.advance(4 * HOUR)
        with anyio.fail_after(5):
            await purged.wait()

    assert repr(store) == "<MemoryStore sessions=0>"


class Counting(MemoryStore):
    """Notes the moments until which it was asked to purge, and removes at most `most` at once."""

    def __init__(self, most: int = SWEEP_BATCH) -> None:
        super().__init__()
        self.most = most
        self.moments: list[float] = []

    async def expire(self, number: int, now: float) -> None:
        births = [
            Create(f"h{each}", bytes(32), {}, now, now + HOUR, now + HOUR, 1000)
            for each in range(number)
        ]
        await self.commit(births, now)

    async def purge(self, now: float, limit: int) -> int:
        self.moments.append(now)
        return await super().purge(now, min(limit, self.most))


async def test_without_a_lifespan_a_backlog_goes_in_quick_succession(clock: Clock) -> None:
    store = Counting()
    sessions = SessionManager(store, clock=clock)
    await store.expire(3 * SWEEP_BATCH, clock())
    clock.advance(HOUR)
    expired_at = clock()

    left: list[str] = []
    for _ in range(6):
        async with sessions.open():
            pass
        left.append(repr(store))
        clock.advance(2 * SWEEP_PAUSE)

    assert left == [f"<MemoryStore sessions={number}>" for number in (400, 200, 0, 0, 0, 0)]
    # What expires meanwhile waits for the next minute, or a busy store would be swept for ever.
    assert store.moments == [expired_at] * 4


async def test_a_sweep_goes_on_while_something_is_removed(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    class Slow(Counting):
        async def purge(self, now: float, limit: int) -> int:
            monkeypatch.setattr("minisession._manager.SWEEP_EVERY", SWEEP_EVERY)
            removed = await super().purge(now, limit)
            if not removed:
                done.set()
            return removed

    done = anyio.Event()
    store = Slow(most=1)
    await store.expire(3, clock())
    clock.advance(HOUR)
    monkeypatch.setattr("minisession._manager.SWEEP_EVERY", 0.001)

    async with SessionManager(store, clock=clock):
        with anyio.fail_after(5):
            await done.wait()

    assert repr(store) == "<MemoryStore sessions=0>"


async def test_a_sweep_that_fails_is_logged_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    purges = anyio.Semaphore(0)

    class Failing(MemoryStore):
        async def purge(self, now: float, limit: int) -> int:
            purges.release()
            raise StoreUnavailable("away")

    monkeypatch.setattr("minisession._manager.SWEEP_EVERY", 0.001)
    async with SessionManager(Failing()):
        with anyio.fail_after(5):
            await purges.acquire()
            await purges.acquire()

    assert "expired sessions could not be removed" in caplog.text
    assert SWEEP_EVERY == 60


# --- the flusher ---------------------------------------------------------------------------------


async def test_a_store_that_is_down_is_not_asked_in_a_loop(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    id = await begun(sessions)
    async with sessions.open(id) as one:
        remote.fault = Fault.REFUSES
        before = len(remote.commits)
        one["n"] = 1
        for _ in range(200):
            await checkpoint()
        asked = len(remote.commits) - before
        remote.fault = Fault.NONE

    assert asked == 1
    assert (await stored(sessions, id))["n"] == 1


async def test_what_the_flusher_could_not_store_is_stored_by_the_next_save(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    id = await begun(sessions)
    async with sessions.open(id) as one:
        remote.faults = [Fault.REFUSES]
        one["n"] = 1
        await anyio.wait_all_tasks_blocked()

        await one.save()

        assert (await stored(sessions, id))["n"] == 1


async def test_what_the_flusher_was_refused_for_good_is_raised_by_the_next_save(
    clock: Clock,
) -> None:
    store = MemoryStore()
    async with SessionManager(store, SessionConfig(max_size=100), clock=clock) as sessions:
        id = await begun(sessions)
        async with sessions.open(id) as one, sessions.open(id) as two:
            assert len(one) == len(two)
            one["a"] = "x" * 50
            two["b"] = "x" * 50
            await anyio.wait_all_tasks_blocked()

            refusals = 0
            for each in (one, two):
                try:
                    await each.save()
                except SessionTooLarge:
                    refusals += 1

            assert refusals == 1
            assert ("a" in one) + ("b" in two) == 1


async def test_a_worker_thread_wakes_the_flusher(sessions: SessionManager) -> None:
    id = await begun(sessions)
    async with sessions.open(id) as one:
        await anyio.to_thread.run_sync(one.__setitem__, "n", 1)
        await anyio.wait_all_tasks_blocked()

        assert (await stored(sessions, id))["n"] == 1


async def test_many_sessions_are_handed_over_in_one_batch(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    ids = [await begun(sessions, n=n) for n in range(20)]
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(sessions.open(id)) for id in ids]
        remote.commits.clear()
        for one in opened:
            one["n"] = 100
        await anyio.wait_all_tasks_blocked()

        assert [len(batch) for batch in remote.commits] == [20]


async def test_writes_made_while_a_commit_is_in_flight_travel_together_in_the_next(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    id = await begun(sessions)
    async with sessions.open(id) as one:
        remote.commits.clear()
        one["a"] = 1
        while not remote.commits:
            await checkpoint()
        one["b"] = 2
        one["c"] = 3
        await one.save()

        writes = [change for batch in remote.commits for change in batch]
        assert [sorted(write.items) for write in writes if isinstance(write, Write)] == [
            ["a"],
            ["b", "c"],
        ]


# --- when the store does not play along ----------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault.REFUSES, StoreUnavailable, "nothing was stored"),
        (Fault.TOO_BUSY, SaveTimeout, r"within 0\.2 s \(SessionConfig\.save_timeout\); it is not"),
        (Fault.SILENT_BEFORE, SaveOutcomeUnknown, "did not say what became of it"),
        (Fault.SILENT_AFTER, SaveOutcomeUnknown, "did not say what became of it"),
        (Fault.UNSURE_BEFORE, SaveOutcomeUnknown, "the connection broke"),
        (Fault.UNSURE_AFTER, SaveOutcomeUnknown, "the connection broke"),
        (Fault.BREAKS, SaveOutcomeUnknown, "did not say what became of it"),
    ],
)
async def test_every_failure_of_a_save_is_told_as_what_it_is(
    sessions: SessionManager,
    hasty: SessionManager,
    remote: RemoteStore,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    error: type[Exception],
    words: str,
) -> None:
    id = await begun(sessions)
    with pytest.raises(error, match=words):
        async with (hasty if fault in UNANSWERED else sessions).open(id) as one:
            remote.fault = fault
            one["n"] = 1
            await one.save()
    broken = f"{remote!r} failed with something else than a StoreError"
    assert (broken in caplog.text) is (fault is Fault.BREAKS)
    remote.fault = Fault.NONE

    assert ("n" in await stored(sessions, id)) == (
        fault in (Fault.SILENT_AFTER, Fault.UNSURE_AFTER, Fault.BREAKS)
    )


@pytest.mark.parametrize("fault", [Fault.UNSURE_BEFORE, Fault.UNSURE_AFTER])
async def test_after_an_unknown_outcome_writes_are_refused_until_a_refresh(
    sessions: SessionManager, remote: RemoteStore, fault: Fault
) -> None:
    id = await begun(sessions)
    async with sessions.open(id) as one:
        remote.faults = [fault]
        one["n"] = 1
        with pytest.raises(SaveOutcomeUnknown):
            await one.save()

        with pytest.raises(SaveOutcomeUnknown, match="refresh"):
            one["m"] = 2
        await one.refresh()
        assert ("n" in one) == (fault is Fault.UNSURE_AFTER)
        one["m"] = 2

    assert (await stored(sessions, id))["m"] == 2


async def test_what_a_refresh_settles_unheard_is_told_by_the_next_save(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    id = await begun(sessions)
    async with sessions.open(id) as one:
        remote.faults = [Fault.UNSURE_BEFORE]
        commits = len(remote.commits)
        one["n"] = 1
        while len(remote.commits) == commits:
            await checkpoint()
        await one.refresh()  # behind the flusher, which alone has heard that nobody knows

        with pytest.raises(SaveOutcomeUnknown):
            await one.save()
        await one.save()

    assert "n" not in await stored(sessions, id)


@pytest.mark.parametrize("fault", [Fault.UNSURE_BEFORE, Fault.UNSURE_AFTER])
async def test_refresh_finds_out_which_id_is_good_after_a_regenerate_in_doubt(
    sessions: SessionManager, remote: RemoteStore, fault: Fault
) -> None:
    old = await begun(sessions)
    async with sessions.open(old) as one:
        remote.faults = [fault]
        one.regenerate()
        one["n"] = 1
        with pytest.raises(SaveOutcomeUnknown):
            await one.save()

        await one.refresh()

        assert (one.id == old) == (fault is Fault.UNSURE_BEFORE)
        one["m"] = 2
        await one.save()
        assert one.id is not None
        assert (await stored(sessions, one.id))["m"] == 2


@pytest.mark.parametrize("fault", [Fault.UNSURE_BEFORE, Fault.UNSURE_AFTER])
async def test_refresh_finds_out_whether_a_session_was_created(
    sessions: SessionManager, remote: RemoteStore, fault: Fault
) -> None:
    async with sessions.open() as one:
        remote.faults = [fault]
        one["n"] = 1
        with pytest.raises(SaveOutcomeUnknown):
            await one.save()

        await one.refresh()

        assert dict(one) == {"n": 1}, "it was created, or is to be created with the next save"
        one["m"] = 2
        await one.save()
        assert one.id is not None
        assert await stored(sessions, one.id) == {"n": 1, "m": 2}


async def test_a_session_that_was_created_in_doubt_and_revoked_does_not_come_back(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    async with sessions.open() as one:
        remote.faults = [Fault.UNSURE_AFTER]
        one["n"] = 1
        with pytest.raises(SaveOutcomeUnknown):
            await one.save()
        handle = one.handle
        assert handle is not None
        assert await sessions.revoke(handle)

        await one.refresh()
        await one.save()

        assert one.handle != handle
        assert await sessions.store.alive([handle], sessions.clock()) == set()


@pytest.mark.parametrize("fault", [Fault.REFUSES, Fault.TOO_BUSY])
async def test_a_regenerate_while_the_session_is_being_created_survives_a_refused_creation(
    sessions: SessionManager, hasty: SessionManager, remote: RemoteStore, fault: Fault
) -> None:
    async with (hasty if fault in UNANSWERED else sessions).open() as one:
        remote.faults = [fault]
        one["n"] = 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_save_refused, one)
            while not remote.commits:
                await checkpoint()
            one.regenerate()
        await one.save()

        assert one.id is not None
        assert await stored(sessions, one.id) == {"n": 1}


async def _save_refused(one: Session) -> None:
    with pytest.raises(StoreUnavailable):
        await one.save()


async def test_two_regenerates_of_which_the_first_was_refused_are_one(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    old = await begun(sessions, n=1)
    async with sessions.open(old) as one:
        remote.faults = [Fault.REFUSES, Fault.UNSURE_BEFORE]
        one.regenerate()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_save_refused, one)
            while len(remote.commits) < 2:
                await checkpoint()
            one.regenerate()
        with pytest.raises(SaveOutcomeUnknown):
            await one.save()

        await one.refresh()

        assert one.id == old


async def test_a_principal_that_the_store_refused_is_forgotten(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    async with (
        sessions.open(await begun(sessions)) as one,
        sessions.open_handle(str(one.handle)) as two,
    ):
        one["a"] = "x" * 600_000
        two["b"] = "x" * 600_000
        two.principal = "user:7"
        await one.save()
        with pytest.raises(SessionTooLarge):
            await two.save()

        assert two.principal is None


async def test_a_load_that_does_not_answer_is_an_error_and_not_an_empty_session(
    clock: Clock,
) -> None:
    class Deaf(RemoteStore):
        async def load(self, handle: str, now: float) -> None:
            await anyio.sleep_forever()

    config = SessionConfig(save_timeout=0.01)
    async with (
        SessionManager(Deaf(), config, clock=clock) as sessions,
        sessions.open(f"{'A' * 22}.{'B' * 32}") as one,
    ):
        with pytest.raises(StoreUnavailable, match=r"within 0\.01 s"):
            one.get("n")


async def test_a_load_that_failed_fails_at_every_touch(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    id = await begun(sessions, n=1)
    remote.load_error = StoreUnavailable("away")

    async with sessions.open(id) as one:
        for touch in (lambda: one["n"], lambda: one.get("n"), lambda: one.update(n=2), one.destroy):
            with pytest.raises(StoreUnavailable) as caught:
                touch()
            assert caught.value is remote.load_error


async def test_a_store_with_too_few_outcomes_leaves_no_one_waiting(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Forgetful(MemoryStore):
        forgets = False

        async def commit(self, changes, now):  # type: ignore[no-untyped-def]
            outcomes = await super().commit(changes, now)
            return [] if self.forgets else outcomes

    store = Forgetful()
    async with SessionManager(store, clock=clock) as sessions:
        id = await begun(sessions)
        with pytest.raises(SaveOutcomeUnknown):
            async with sessions.open(id) as one:
                store.forgets = True
                one["n"] = 1
                await one.save()

    assert f"{store!r} gave 0 outcomes for 1 changes" in caplog.text


async def test_a_failure_of_the_store_is_an_error_of_each_session_alone(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    ids = [await begun(sessions), await begun(sessions)]
    errors: list[StoreUnavailable] = []
    async with sessions.open(ids[0]) as one, sessions.open(ids[1]) as two:
        commits = len(remote.commits)
        remote.fault = Fault.REFUSES
        one["n"] = two["n"] = 1
        while len(remote.commits) == commits:
            await checkpoint()
        assert len(remote.commits[-1]) == 2
        for session_ in (one, two):
            with pytest.raises(StoreUnavailable) as caught:
                await session_.save()
            errors.append(caught.value)
        remote.fault = Fault.NONE

    assert errors[0] is not errors[1]
    assert all(isinstance(error.__cause__, StoreUnavailable) for error in errors)


async def test_a_cancelled_save_waits_for_the_answer_and_leaves_no_doubt(
    remote: RemoteStore, clock: Clock
) -> None:
    manager = SessionManager(remote, clock=clock)  # without tasks that could look for it
    async with remote:
        id = await begun(manager)
        async with manager.open(id) as one:
            commits = len(remote.commits)
            one["n"] = 1

            async def save() -> None:
                await one.save()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(save)
                while len(remote.commits) == commits:
                    await checkpoint()
                tasks.cancel_scope.cancel()
            one["m"] = 2

        assert await stored(manager, id) == {"begun": True, "n": 1, "m": 2}


async def test_one_save_ends_a_session_and_then_creates_the_one_that_follows_it(
    remote: RemoteStore, clock: Clock
) -> None:
    manager = SessionManager(remote, clock=clock)
    async with remote:
        id = await begun(manager)
        async with manager.open(id) as one:
            one.destroy()
            one["n"] = 1
            commits = len(remote.commits)
            await one.save()

            assert [[type(c) for c in cs] for cs in remote.commits[commits:]] == [
                [Destroy],
                [Create],
            ]
            assert await remote.alive([handle_of(id), str(one.handle)], clock()) == {one.handle}


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault.REFUSES, StoreUnavailable), (Fault.UNSURE_BEFORE, SaveOutcomeUnknown)],
)
async def test_a_logout_that_failed_is_told_before_anything_follows_it(
    remote: RemoteStore, clock: Clock, fault: Fault, error: type[Exception]
) -> None:
    manager = SessionManager(remote, clock=clock)
    async with remote:
        id = await begun(manager)
        async with manager.open(id) as one:
            one.destroy()
            one["n"] = 1
            commits = len(remote.commits)
            remote.faults = [fault]

            with pytest.raises(error):
                await one.save()

            assert remote.commits[commits:] == [[Destroy(handle_of(id), 0)]]


# --- update --------------------------------------------------------------------------------------


async def test_update_returns_what_it_stored(sessions: SessionManager) -> None:
    id = await begun(sessions)

    async with sessions.open(id) as one:
        assert await one.update("n", lambda n: n + 1, default=10) == 11
        assert await one.update("n", lambda n: n + 1) == 12
        assert one["n"] == 12

    assert (await stored(sessions, id))["n"] == 12


async def test_update_starts_a_session(sessions: SessionManager) -> None:
    async with sessions.open() as one:
        assert await one.update("n", lambda n: n + 1, default=0) == 1
        assert one.id is not None
        assert await stored(sessions, one.id) == {"n": 1}


async def test_update_stores_what_was_written_before_it(sessions: SessionManager) -> None:
    id = await begun(sessions, cart=[])
    async with sessions.open(id) as one:
        one["cart"].append("tea")
        one["n"] = 5
        assert await one.update("n", lambda n: n + 1) == 6

        assert await stored(sessions, id) == {"cart": ["tea"], "n": 6}


async def test_a_function_that_raises_changes_nothing_and_blocks_nobody(
    sessions: SessionManager,
) -> None:
    id = await begun(sessions, n=1)
    async with sessions.open(id) as one:
        with pytest.raises(ZeroDivisionError):
            await one.update("n", lambda n: n / 0)

        assert await one.update("n", lambda n: n + 1) == 2


async def test_update_gives_up_after_many_lost_races(
    clock: Clock,
) -> None:
    class Contested(MemoryStore):
        """Somebody else changes the key before every compare-and-set."""

        tries = 0

        async def commit(self, changes, now):  # type: ignore[no-untyped-def]
            for change in changes:
                if isinstance(change, Write) and change.expect:
                    self.tries += 1
                    rival = Write(change.handle, 0, now + 9, 9999, items={"n": b"%d" % self.tries})
                    await super().commit([rival], now)
            return await super().commit(changes, now)

    store = Contested()
    async with SessionManager(store, clock=clock) as sessions:
        id = await begun(sessions, n=0)
        async with sessions.open(id) as one:
            with pytest.raises(Conflict):
                await one.update("n", lambda n: n + 1000)

    assert store.tries == UPDATE_TRIES


async def test_update_of_a_session_that_has_ended_says_so(sessions: SessionManager) -> None:
    id = await begun(sessions, n=0)
    with pytest.raises(SessionGone):
        async with sessions.open(id) as one:
            assert one["n"] == 0
            assert await sessions.revoke(handle_of(id))
            await one.update("n", lambda n: n + 1)


async def test_racers_of_one_process_do_not_conflict(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    id = await begun(sessions, n=0)

    async def count() -> None:
        async with sessions.open(id) as one:
            await one.update("n", lambda n: n + 1)

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(count)

    changes = [change for batch in remote.commits for change in batch]
    assert sum(isinstance(change, Write) and change.expect is not None for change in changes) == 10


async def test_queues_for_keys_are_forgotten_when_nobody_waits(sessions: SessionManager) -> None:
    id = await begun(sessions, n=0)
    async with sessions.open(id) as one, anyio.create_task_group() as tasks:

        async def count() -> None:
            await one.update("n", lambda n: n + 1)

        for _ in range(10):
            tasks.start_soon(count)

    assert not sessions._turns
    assert (await stored(sessions, id))["n"] == 10


# --- ending, replacing, refreshing ---------------------------------------------------------------


async def test_revoke_ends_a_session_from_outside(sessions: SessionManager) -> None:
    id = await begun(sessions)

    assert await sessions.revoke(handle_of(id))
    assert not await sessions.revoke(handle_of(id))
    assert await stored(sessions, id) == {}


async def test_a_revocation_that_the_store_refuses_raises(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    id = await begun(sessions)
    remote.faults = [Fault.REFUSES]

    with pytest.raises(StoreUnavailable):
        await sessions.revoke(handle_of(id))

    assert remote.commits[-1] == [Destroy(handle_of(id), None)]


async def test_refresh_shows_what_others_wrote_and_keeps_what_is_unsaved(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    id = await begun(sessions, a=1, b=1)
    manager = SessionManager(remote, clock=sessions.clock)  # without a flusher: b stays unsaved
    async with manager.open(id) as one:
        one["b"] = 2
        async with sessions.open(id) as other:
            other["a"] = other["b"] = 9

        await one.refresh()

        assert dict(one) == {"a": 9, "b": 2}


async def test_refresh_of_a_session_that_has_ended_says_so(sessions: SessionManager) -> None:
    id = await begun(sessions)
    async with sessions.open(id) as one:
        assert one.is_started
        await sessions.revoke(handle_of(id))

        with pytest.raises(SessionGone, match="destroyed, revoked or replaced, or has expired"):
            await one.refresh()
        assert not one.is_started


async def test_writes_that_a_refresh_finds_void_are_told_at_the_end(
    sessions: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    id = await begun(sessions)
    with pytest.raises(SessionGone):
        async with sessions.open(id) as one:
            assert one.is_started
            await sessions.revoke(handle_of(id))
            one["n"] = 1
            with pytest.raises(SessionGone):
                await one.refresh()

    assert f"{handle_of(id)} gone>: it has ended or moved on" in caplog.text
    assert "writes of this request are void" in caplog.text


async def test_after_a_refresh_found_it_revoked_a_logout_begins_anew(
    sessions: SessionManager,
) -> None:
    id = await begun(sessions)
    async with sessions.open(id) as one:
        assert one.is_started
        await sessions.revoke(handle_of(id))
        with pytest.raises(SessionGone):
            await one.refresh()

        one.destroy()
        one["n"] = 1
        await one.save()

        assert one.handle != handle_of(id)
        assert await stored(sessions, str(one.id)) == {"n": 1}


async def test_after_a_refresh_found_another_id_a_logout_ends_and_begins_nothing(
    sessions: SessionManager, remote: RemoteStore, clock: Clock
) -> None:
    old = await begun(sessions)
    with pytest.raises(SessionGone):
        async with sessions.open(old) as late:
            assert late.is_started
            async with sessions.open(old) as login:
                login.regenerate()
                await login.save()
                new = str(login.id)
            with pytest.raises(SessionGone):
                await late.refresh()

            late.destroy()
            late["n"] = 1

    assert await stored(sessions, new) == {"begun": True}
    assert [s.handle for s in await remote.scan(clock())] == [handle_of(old)]


async def test_refresh_without_a_session_does_nothing(
    sessions: SessionManager, remote: RemoteStore
) -> None:
    async with sessions.open() as one:
        await one.refresh()

    assert remote.commits == []


async def test_a_request_with_a_replaced_id_cannot_refresh_its_way_in(
    sessions: SessionManager,
) -> None:
    old = await begun(sessions, public=1)
    async with sessions.open(old) as login:
        login.regenerate()
        login["user"] = "Ada"
        await login.save()

    async with sessions.open(old) as stale:
        assert stale.get("public") is None
        with pytest.raises(SessionGone):
            await stale.refresh()
        assert stale.get("user") is None
        assert stale.id is None


async def test_refresh_with_a_borrowed_id_stays_borrowed(sessions: SessionManager) -> None:
    old = await begun(sessions, n=1)
    with pytest.raises(SessionGone):
        async with sessions.open(old) as slow:
            assert slow["n"] == 1
            async with sessions.open(old) as rotating:
                rotating.regenerate(delete_old_session=False)
                rotating["n"] = 2
                await rotating.save()
                new = rotating.id

            await slow.refresh()
            assert slow["n"] == 2
            slow.regenerate()

    assert new is not None
    assert await stored(sessions, new) == {"n": 2}


async def test_leaving_a_block_whose_writes_were_void_says_so(sessions: SessionManager) -> None:
    id = await begun(sessions)
    with pytest.raises(SessionGone):
        async with sessions.open(id) as one:
            one["n"] = 1
            await one.save()
            await sessions.revoke(handle_of(id))
            one["n"] = 2


async def test_leaving_a_block_that_only_read_a_session_that_has_ended_is_no_error(
    sessions: SessionManager,
) -> None:
    id = await begun(sessions, n=1)
    async with sessions.open(id) as one:
        assert one["n"] == 1
        await sessions.revoke(handle_of(id))


# --- expiry --------------------------------------------------------------------------------------


async def expiry(sessions: SessionManager, id: str) -> float:
    record = await sessions.store.load(handle_of(id), sessions.clock())
    assert record is not None
    return record.expires


async def test_reading_renews_the_idle_timeout_when_a_part_of_it_is_over(
    sessions: SessionManager, clock: Clock
) -> None:
    id = await begun(sessions)
    first = await expiry(sessions, id)

    clock.advance(HOUR)
    assert await stored(sessions, id)
    await anyio.wait_all_tasks_blocked()

    assert await expiry(sessions, id) == first + HOUR


async def test_reading_soon_after_costs_no_touch(
    sessions: SessionManager, clock: Clock, remote: RemoteStore
) -> None:
    id = await begun(sessions)
    remote.commits.clear()

    clock.advance(60)
    assert await stored(sessions, id)
    await anyio.wait_all_tasks_blocked()

    assert remote.commits == []


async def test_a_touch_is_made_without_background_tasks_too(clock: Clock) -> None:
    store = MemoryStore()
    manager = SessionManager(store, clock=clock)
    id = await begun(manager)
    first = await expiry(manager, id)

    clock.advance(HOUR)
    assert await stored(manager, id)

    assert await expiry(manager, id) == first + HOUR


async def test_touches_of_one_session_are_one(
    sessions: SessionManager, clock: Clock, remote: RemoteStore
) -> None:
    id = await begun(sessions)
    clock.advance(HOUR)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(sessions.open(id)) for _ in range(10)]
        assert all(one["begun"] for one in opened)
        await anyio.wait_all_tasks_blocked()
        remote.commits.clear()

    await anyio.wait_all_tasks_blocked()
    assert sum(map(len, remote.commits)) <= 2


async def test_passive_use_is_no_activity(sessions: SessionManager, clock: Clock) -> None:
    id = await begun(sessions)
    first = await expiry(sessions, id)

    clock.advance(HOUR)
    async with sessions.open(id) as one:
        with one.passive():
            assert one["begun"]
    await anyio.wait_all_tasks_blocked()

    assert await expiry(sessions, id) == first


async def test_the_absolute_timeout_ends_a_session_however_active_it_is(clock: Clock) -> None:
    config = SessionConfig(absolute_timeout=300)
    async with SessionManager("memory://", config, clock=clock) as sessions:
        id = await begun(sessions, n=0)
        for n in range(1, 5):
            clock.advance(HOUR)
            async with sessions.open(id) as one:
                one["n"] = n

        clock.advance(HOUR - 1)
        assert (await stored(sessions, id))["n"] == 4
        clock.advance(1)
        assert await stored(sessions, id) == {}


async def test_with_rollback_only_explicit_saves_reach_the_store_before_the_end(
    clock: Clock,
) -> None:
    async with SessionManager(
        "memory://", SessionConfig(on_error="rollback"), clock=clock
    ) as sessions:
        id = await begun(sessions, cart=[])
        with pytest.raises(ZeroDivisionError):
            async with sessions.open(id) as one:
                one["saved"] = True
                await one.save()
                one["cart"].append("tea")
                await anyio.wait_all_tasks_blocked()
                raise ZeroDivisionError

        assert await stored(sessions, id) == {"cart": [], "saved": True}
