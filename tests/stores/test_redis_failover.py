"""A primary that dies under load, and slots that move under load: what is acknowledged stays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.to_thread
import pytest

from minisession.abc import Committed, Destroy, Gone
from minisession.errors import StoreError
from minisession.stores._redis import link
from minisession.stores._redis.keys import Keys, slot
from minisession.stores.redis import RedisStore
from tests import redis_servers
from tests.effort import Tally, effort
from tests.redis_servers import Cluster, Sentinels

from .kit import NOW, birth, until, write

pytestmark = [pytest.mark.anyio, redis_servers.NEEDS_REDIS]


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "ANSWER_TIMEOUT", 1.0)
    monkeypatch.setattr(link, "CONNECT_TIMEOUT", 1.0)


@dataclass
class Crowd:
    """Visitors who write all the time, some of whom leave, and what they were told."""

    store: RedisStore
    names: list[str]
    acknowledged: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    refused: int = 0
    is_over: bool = False

    async def visit(self, name: str, last: int | None) -> None:
        """Write one number after the other; leave after the last."""
        number = 0
        while not self.is_over:
            number += 1
            change = birth(name, n=b"1") if number == 1 else write(name, {"n": b"%d" % number})
            if last is not None and number > last:
                change = Destroy(name, None)
            [outcome] = await self.store.commit([change], NOW)
            if outcome == Committed(0) and isinstance(change, Destroy):
                self.ended.add(name)
                return
            if outcome == Committed(0):
                self.acknowledged[name] = number
            elif isinstance(outcome, StoreError):
                self.refused += 1
                await anyio.sleep(0.02)
            elif number > 1:
                assert isinstance(outcome, Gone)
                return  # its creation was lost, or its end arrived without an answer

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Have them all write during the block. A third leaves early, a third all the time."""
        async with anyio.create_task_group() as tasks:
            for index, name in enumerate(self.names):
                tasks.start_soon(self.visit, name, (None, 5, 20 + index)[index % 3])
            yield
            self.is_over = True

    async def goes_on(self) -> None:
        """Wait until everybody who stays has written something more."""
        before = dict(self.acknowledged)
        staying = [name for name in self.names[::3] if name in before]
        await until(lambda: all(self.acknowledged[name] > before[name] + 3 for name in staying))

    async def revived(self) -> list[str]:
        """Who has left and lives all the same."""
        return sorted(await self.store.alive(self.ended, NOW))

    async def lost(self) -> list[str]:
        """Of whom something acknowledged is not stored."""
        lost = []
        for name, number in self.acknowledged.items():
            if name not in self.ended:
                record = await self.store.load(name, NOW)
                if record is None or int(record.items["n"]) < number:
                    lost.append(name)
        return lost


async def _fails_over(
    store: RedisStore, kill: Callable[[], None], *, names: int, confirmed: bool, tally: Tally
) -> None:
    crowd = Crowd(store, [f"visitor {number}" for number in range(names)])
    async with crowd.at_work():
        await until(lambda: len(crowd.ended) > names // 3)
        await anyio.to_thread.run_sync(kill)
        await until(lambda: crowd.refused > 0)
        await crowd.goes_on()

    lost = await crowd.lost()
    assert await crowd.revived() == []
    if confirmed:
        assert lost == []
    else:
        print(f"without WAIT, {len(lost)} of {names} lost an acknowledged write")
    tally("failovers", 1)
    if lost:
        tally("sessions that lost an acknowledged write, without WAIT", len(lost))


@pytest.mark.slow
@pytest.mark.parametrize("confirmations", [0, 1])
async def test_when_sentinel_replaces_a_dead_primary_no_logout_is_undone(
    confirmations: int, tally: Tally
) -> None:
    for _ in range(effort(1, soak=20)):
        place = await anyio.to_thread.run_sync(Sentinels, 1)
        try:
            async with RedisStore(place.url(wait=confirmations)) as store:
                await _fails_over(
                    store, place.primary.kill, names=30, confirmed=confirmations > 0, tally=tally
                )
        finally:
            place.end()


@pytest.mark.slow
async def test_a_frozen_primary_is_left_for_the_new_one_and_its_past_does_not_count(
    tally: Tally,
) -> None:
    place = await anyio.to_thread.run_sync(Sentinels, 1)
    try:
        async with RedisStore(place.url(wait=1)) as store:
            await _fails_over(store, place.primary.freeze, names=30, confirmed=False, tally=tally)
            ended = birth("ended after the failover")
            await until(lambda: str(place.replicas[0].port) in place.address())
            assert await store.commit([ended], NOW)

            place.primary.thaw()
            await until(lambda: place.primary.says("role:slave", "INFO", "replication"))
            assert await store.commit([Destroy(ended.handle, None)], NOW)
            assert await store.load(ended.handle, NOW) is None
    finally:
        place.end()


@pytest.mark.slow
@pytest.mark.parametrize("confirmations", [0, 1])
async def test_when_a_cluster_replaces_a_dead_primary_no_logout_is_undone(
    confirmations: int, tally: Tally
) -> None:
    for _ in range(effort(1, soak=20)):
        place = await anyio.to_thread.run_sync(Cluster, 1)
        try:
            async with RedisStore(place.url(wait=confirmations)) as store:
                await _fails_over(
                    *(store, place.primaries[1].kill),
                    names=45,
                    confirmed=confirmations > 0,
                    tally=tally,
                )
        finally:
            place.end()


def _of_one_slot(number: int) -> list[str]:
    """Handles that share a slot."""
    keys, found = Keys(""), []
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
