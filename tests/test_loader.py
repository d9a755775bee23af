"""The loader: stores that load at once and those that must be waited for, and what is presented."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from minisession import SessionConfig, SessionGone, SessionManager, StoreUnavailable
from minisession._core.books import State
from minisession._core.ledger import Ledger
from minisession._ids import split_id
from minisession.abc import Record, Store
from minisession.stores.memory import MemoryStore
from tests.clock import Clock
from tests.remote_store import RemoteStore

pytestmark = pytest.mark.anyio

HOUR = 3600.0
NOBODY = f"{'A' * 22}.{'B' * 32}"
NOBODY_ELSE = f"{'Q' * 22}.{'C' * 32}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[MemoryStore, RemoteStore], ids=["at once", "waited for"])
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.param()
    return made


async def begun(sessions: SessionManager) -> tuple[str, str]:
    """Start a session; return its handle and its id."""
    async with sessions.open() as one:
        one["n"] = 1
        await one.save()
        return str(one.handle), str(one.id)


async def presented(sessions: SessionManager, ids: Sequence[str]) -> Ledger:
    """Load what a request presents, as the middleware does."""
    candidates = [pair for pair in map(split_id, ids) if pair is not None]
    assert len(candidates) == len(ids), "what has not the form of an id is never looked for"
    ledger = sessions.ledger(lambda: candidates)
    await sessions.load(ledger)
    ledger.require_ready()
    return ledger


async def test_a_handle_opens_the_living_session_and_no_other(store: Store, clock: Clock) -> None:
    async with SessionManager(store, clock=clock) as sessions:
        handle, _ = await begun(sessions)
        await begun(sessions)

        async with sessions.open_handle(handle) as one:
            assert (one.handle, one["n"], one.id) == (handle, 1, None)
        clock.advance(24 * HOUR)
        with pytest.raises(SessionGone, match=f"the handle '{handle}' lives"):
            async with sessions.open_handle(handle):
                pass


async def test_a_store_in_memory_is_opened_by_its_url() -> None:
    async with SessionManager("memory://") as sessions:
        handle, _ = await begun(sessions)

        async with sessions.open_handle(handle) as one:
            assert one["n"] == 1


async def test_the_first_of_several_ids_that_lives_is_taken(store: Store, clock: Clock) -> None:
    async with SessionManager(store, clock=clock) as sessions:
        handle, id = await begun(sessions)
        _, another = await begun(sessions)

        ledger = await presented(sessions, [NOBODY, id, another])

        assert ledger.life is not None
        assert ledger.life.handle == handle


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.filterwarnings("ignore::minisession.config.InsecureConfigWarning")
async def test_the_first_of_several_unknown_ids_is_adopted_if_that_is_allowed(
    store: Store, clock: Clock, strict: bool
) -> None:
    config = SessionConfig(use_strict_mode=strict)
    async with SessionManager(store, config, clock=clock) as sessions:
        ledger = await presented(sessions, [NOBODY, NOBODY_ELSE])

        assert (ledger.state, ledger.adoptable) == (
            State.NONE,
            None if strict else split_id(NOBODY),
        )


async def test_of_a_store_that_hangs_one_deadline_is_enough_for_all_ids(clock: Clock) -> None:
    class Deaf(RemoteStore):
        asked = 0

        async def load(self, handle: str, now: float) -> Record | None:
            self.asked += 1
            await anyio.sleep_forever()
            return None

    deaf = Deaf()
    async with SessionManager(deaf, SessionConfig(save_timeout=0.01), clock=clock) as sessions:
        with pytest.raises(StoreUnavailable) as caught:
            await presented(sessions, [NOBODY, NOBODY_ELSE])

    assert str(caught.value) == (
        "the store did not load a session within 0.01 s (SessionConfig.save_timeout)"
    )
    assert deaf.asked == 1


async def test_a_store_that_gives_up_itself_is_one_that_failed(clock: Clock) -> None:
    class Impatient(RemoteStore):
        async def load(self, handle: str, now: float) -> Record | None:
            with anyio.fail_after(0):
                await anyio.sleep_forever()
            return None

    async with SessionManager(Impatient(), clock=clock) as sessions:
        with pytest.raises(StoreUnavailable, match="gave up loading"):
            await presented(sessions, [NOBODY])
