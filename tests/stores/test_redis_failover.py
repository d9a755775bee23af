"""A primary that dies under load, and slots that move under load: what is acknowledged stays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.to_thread
import pytest
from _pytest.mark.structures import ParameterSet

from minisession.abc import Change, Committed, Destroy, Gone
from minisession.errors import StoreError, StoreUnavailable
from minisession.stores._redis import courier, link
from minisession.stores._redis.keys import Keys, slot
from minisession.stores.redis import RedisStore
from tests import redis_servers
from tests.effort import SOAK, Tally, effort
from tests.redis_servers import Cluster, Program, Sentinels

from .kit import NOW, birth, write
from .kit import until as until_soon

pytestmark = [pytest.mark.anyio, redis_servers.NEEDS_REDIS]


@dataclass(frozen=True)
class Safety:
    """What is done so that an acknowledged change survives its server.

    Attributes:
        program: the server.
        settings: of the servers.
        options: of the store.
        confirms: whether the replica confirms each change.
        confirm_within: milliseconds.
        writes: how many of one visitor come before the failover. A replica tells once a second
            what is on its disk, so nobody makes many.
    """

    program: Program
    settings: tuple[str, ...]
    options: dict[str, str]
    confirms: bool = True
    confirm_within: int = 200
    writes: int = 30


NONE = Safety("redis-server", (), {}, confirms=False)
WAIT = Safety("redis-server", (), {"wait": "1"})
WAITAOF = Safety(
    "valkey-server",
    ("--appendonly", "yes", "--appendfsync", "always"),
    {"waitaof": "1,1"},
    confirm_within=1500,
    writes=2,
)
BACKENDS = ["asyncio", "trio"]
ON_VALKEY = pytest.param(WAITAOF, id="waitaof", marks=redis_servers.NEEDS_VALKEY)
ON_REDIS = [pytest.param(WAIT, id="wait"), *([pytest.param(NONE, id="none")] if SOAK else [])]


def _on(backends: list[str], *cases: ParameterSet) -> list[ParameterSet]:
    """Return cases on these backends, in the long run on both: each takes up to six servers."""
    return [
        pytest.param(*case.values, backend, id=f"{case.id}-{backend}", marks=case.marks)
        for case in cases
        for backend in (BACKENDS if SOAK else backends)
    ]


until = partial(until_soon, seconds=30)  # a failover takes its time on a busy machine


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CONNECT_TIMEOUT", 1.0)
    _confirm_within(200, monkeypatch)


def _confirm_within(milliseconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "CONFIRM_TIMEOUT", milliseconds)
    monkeypatch.setattr(link, "ANSWER_TIMEOUT", milliseconds / 1000 + 0.8)


@dataclass
class Crowd:
    """Visitors who write all the time, some of whom leave, and what they were told."""

    store: RedisStore
    names: list[str]
    few: int = 5  # writes of those who leave early
    acknowledged: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    refused: int = 0
    unconfirmed: int = 0
    gone: set[str] = field(default_factory=set)
    is_over: bool = False

    async def visit(self, name: str, last: int | None) -> None:
        """Write one number after the other; leave after the last."""
        number = 0
        while not self.is_over:
            number += 1
            change: Change = write(name, {"n": b"%d" % number})
            if number == 1:
                change = birth(name, n=b"1")
            if last is not None and number > last:
                change = Destroy(name, None)
            [outcome] = await self.store.commit([change], NOW)
            if outcome == Committed(0) and isinstance(change, Destroy):
                self.ended.add(name)
                return
            if outcome == Committed(0):
                self.acknowledged[name] = number
                await anyio.sleep(0.02)
            elif isinstance(outcome, StoreError):
                self.refused += 1
                self.unconfirmed += "asks for" in str(outcome)
                await anyio.sleep(0.05)
            elif number > 1:
                assert isinstance(outcome, Gone)
                self.gone.add(name)  # its creation was lost, or its end came without an answer
                return

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Have them all write during the block. A third leaves early, a third all the time."""
        async with anyio.create_task_group() as tasks:
            for index, name in enumerate(self.names):
                tasks.start_soon(self.visit, name, (None, self.few, 20 + index)[index % 3])
            yield
            self.is_over = True

    async def goes_on(self) -> None:
        """Wait until everybody who stays has written something more."""
        before = dict(self.acknowledged)

        def has_gone_on(name: str) -> bool:
            return name in self.gone or self.acknowledged[name] > before[name] + 3

        await until(lambda: all(has_gone_on(name) for name in self.names[::3] if name in before))

    async def revived(self) -> list[str]:
        """Who has left and lives all the same."""
        return sorted(await self.store.alive(self.ended, NOW))

    async def lost(self) -> list[str]:
        """Of whom something acknowledged is not stored."""
        lost = []
        staying = set(self.names[::3])  # of the others, an end may have come without an answer
        for name, number in self.acknowledged.items():
            if name in staying:
                record = await self.store.load(name, NOW)
                if record is None or int(record.items["n"]) < number:
                    lost.append(name)
        return lost


async def _until_it_loads(store: RedisStore) -> None:
    """Wait for the first load that is not refused: what is looked for is what was lost.

    Loads have a connection of their own, which is new now, and the time-outs are short here.
    """
    with anyio.fail_after(20):
        while True:
            try:
                await store.load("nobody", NOW)
            except StoreUnavailable:
                continue
            else:
                return


async def _fails_over(
    store: RedisStore, end: Callable[[], None], safety: Safety, tally: Tally
) -> None:
    """End a primary under load, wait until the next one serves, and look what it knows.

    Where every change is confirmed by the replica, it knows everything that was acknowledged; but
    it has no replica of its own then, so nothing more is confirmed.
    """
    crowd = Crowd(store, [f"visitor {number}" for number in range(30)], min(5, safety.writes - 1))
    async with crowd.at_work():
        await until(
            lambda: len(crowd.ended) >= 10 and max(crowd.acknowledged.values()) > safety.writes
        )
        await anyio.to_thread.run_sync(end)
        crowd.refused = crowd.unconfirmed = 0  # a replica does not confirm from its first moment
        await until(lambda: crowd.refused > 0)
        if safety.confirms:
            await until(lambda: crowd.unconfirmed > 10)
        else:
            await crowd.goes_on()

    tally("failovers", 1)
    tally("acknowledged writes before and after failovers", sum(crowd.acknowledged.values()))
    await _until_it_loads(store)
    lost, revived = await crowd.lost(), await crowd.revived()
    if safety.confirms:
        assert (lost, revived) == ([], [])
    for what, names in (("writes lost", lost), ("logouts undone", revived)):
        if names:
            tally(f"acknowledged {what} without WAIT", len(names))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("safety", "anyio_backend"), [*_on(BACKENDS, *ON_REDIS), *_on(["trio"], ON_VALKEY)]
)
async def test_when_sentinel_replaces_a_dead_primary_what_was_confirmed_is_kept(
    safety: Safety, anyio_backend: str, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    _confirm_within(safety.confirm_within, monkeypatch)
    start = partial(Sentinels, 1, *safety.settings, program=safety.program)
    for _ in range(effort(1, soak=20)):
        place = await anyio.to_thread.run_sync(start)
        try:
            async with RedisStore(place.url(**safety.options)) as store:
                await _fails_over(store, place.primary.kill, safety, tally)
        finally:
            place.end()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("safety", "anyio_backend"), [*_on(["trio"], *ON_REDIS), *_on(["asyncio"], ON_VALKEY)]
)
async def test_when_a_cluster_replaces_a_dead_primary_what_was_confirmed_is_kept(
    safety: Safety, anyio_backend: str, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    _confirm_within(safety.confirm_within, monkeypatch)
    start = partial(Cluster, 1, *safety.settings, program=safety.program)
    for _ in range(effort(1, soak=20)):
        place = await anyio.to_thread.run_sync(start)
        try:
            async with RedisStore(place.url(**safety.options)) as store:
                await _fails_over(store, place.primaries[1].kill, safety, tally)
        finally:
            place.end()


@pytest.mark.slow
async def test_a_frozen_primary_is_left_for_the_new_one_and_its_past_does_not_count(
    tally: Tally,
) -> None:
    place = await anyio.to_thread.run_sync(Sentinels, 1)
    try:
        async with RedisStore(place.url(wait=1)) as store:
            await _fails_over(store, place.primary.freeze, WAIT, tally)

            place.sentinel.freeze()  # which would make the old primary a replica, some time
            place.primary.thaw()  # which takes itself for the primary still
            await store.commit([birth("later")], NOW)

            assert await store.load("later", NOW) is not None
            assert place.primary.says("role:master", "INFO", "replication")
            assert place.primary.cli("EXISTS", "minisession:{later}") == "0"
    finally:
        place.end()


def _of_one_slot(number: int) -> list[str]:
    """Handles that share a slot."""
    found: list[str] = []
    keys = Keys("")
    wanted = slot(keys.session("0"))
    candidate = 0
    while len(found) < number:
        if slot(keys.session(f"{candidate}")) == wanted:
            found.append(f"{candidate}")
        candidate += 1
    return found


async def test_a_slot_that_moves_under_load_takes_its_sessions_along() -> None:
    place = redis_servers.cluster()
    prefix = redis_servers.fresh_prefix()
    names = _of_one_slot(12)
    moved = slot(Keys(prefix).session(names[0]))
    ids = {server.cli("CLUSTER", "MYID"): server for server in place.primaries}
    owner = next(
        s for s in place.primaries if not s.cli("EXISTS", f"{{{names[0]}}}").startswith("MOVED")
    )
    target = next(server for server in place.primaries if server is not owner)

    def move() -> None:
        mine = {server: name for name, server in ids.items()}
        target.cli("CLUSTER", "SETSLOT", moved, "IMPORTING", mine[owner])
        owner.cli("CLUSTER", "SETSLOT", moved, "MIGRATING", mine[target])
        while keys := owner.cli("CLUSTER", "GETKEYSINSLOT", moved, 1):
            owner.cli("MIGRATE", "127.0.0.1", target.port, keys, 0, 5000)
        for server in (target, owner, *place.primaries):
            server.cli("CLUSTER", "SETSLOT", moved, "NODE", mine[target])

    async with RedisStore(place.url(prefix=prefix)) as store:
        crowd = Crowd(store, names[:6])
        async with crowd.at_work():
            await until(lambda: len(crowd.acknowledged) == 6)
            await anyio.to_thread.run_sync(move)
            outcomes = await store.commit([birth(name) for name in names[6:]], NOW)
            await crowd.goes_on()

        assert outcomes == [Committed(0)] * 6
        assert crowd.refused == 0
        assert await crowd.lost() == []
        assert await crowd.revived() == []
        listed = await store.scan(NOW)
        assert {summary.handle for summary in listed} == {*names} - crowd.ended
