"""Each store and the memory store, driven by the same changes, never disagree."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from minisession.abc import (
    Change,
    Create,
    Destroy,
    Expect,
    Outcome,
    Rotation,
    Store,
    Touch,
    Write,
)
from minisession.errors import Conflict
from minisession.stores.files import FilesStore
from minisession.stores.memory import MemoryStore
from minisession.stores.redis import RedisStore
from minisession.stores.sqlite import SQLiteStore
from tests import redis_servers
from tests.effort import Tally, effort
from tests.scratch import scratch_folder

HANDLES = ["ada", "bob"]  # few of each, so that changes meet
KEYS = ["", "ключ"]
LIMITS = [40, 60, 1 << 20]

handles = st.sampled_from(HANDLES)
keys = st.sampled_from(KEYS)
values = st.sampled_from([b"", b"1", b"x" * 15, b"y" * 16, b"z" * 25])
limits = st.sampled_from(LIMITS)
secrets = st.binary(min_size=32, max_size=32)
# Seconds; far longer than the test runs, because Redis also counts those that really pass.
lives = st.sampled_from([0.0, 500.0, 6000.0, 60_000.0, 60_000.0])
graces = st.sampled_from([0.0, 2000.0, 6000.0])
principals = st.sampled_from([None, None, "", "p", "q"])
steps_back = st.sampled_from([0, 0, 0, 0, 1, 1, 1, 2, -1])


def shown(outcome: Outcome) -> object:
    """What two outcomes are compared by: errors have no equality of their own."""
    if isinstance(outcome, Conflict):
        return type(outcome), str(outcome), outcome.current
    return (type(outcome), str(outcome)) if isinstance(outcome, Exception) else outcome


class Lockstep(RuleBasedStateMachine):
    """Drives a store and the memory store in the same way."""

    purges = True

    def __init__(self) -> None:
        super().__init__()
        self.held = ExitStack()
        self.folder = self.held.enter_context(scratch_folder())
        self.runner = self.held.enter_context(asyncio.Runner())
        self.model = MemoryStore()
        self.now = 1_000.0
        self.open()

    def open(self) -> None:
        self.store = self.make_store()
        self.leave = asyncio.Event()
        entered = asyncio.Event()
        self.life = self.runner.get_loop().create_task(self.live(entered))
        self.runner.run(entered.wait())

    async def live(self, entered: asyncio.Event) -> None:
        """Open and close the store in one task, as some must be."""
        async with self.store:
            entered.set()
            await self.leave.wait()

    def close(self) -> None:
        self.leave.set()
        self.runner.get_loop().run_until_complete(self.life)

    @abstractmethod
    def make_store(self) -> Store:
        """Return the store, always in the same place."""

    def teardown(self) -> None:
        self.close()
        self.held.close()

    def epoch(self, handle: str, back: int) -> int:
        """An epoch counted from the current one of a session."""
        record = self.model.load_nowait(handle, self.now)
        return (record.epoch if record else 0) - back

    def commit(self, changes: Sequence[Change]) -> None:
        expected = self.runner.run(self.model.commit(changes, self.now))
        came = self.runner.run(self.store.commit(changes, self.now))

        assert list(map(shown, came)) == list(map(shown, expected))

    def a_create(self, data: st.DataObject) -> Create:
        return Create(
            handle=data.draw(handles),
            secret=data.draw(secrets),
            items=data.draw(st.dictionaries(keys, values)),
            created=self.now,
            expires=self.now + data.draw(lives),
            cookie_until=self.now + data.draw(lives),
            max_size=data.draw(limits),
            principal=data.draw(principals),
        )

    def a_write(self, data: st.DataObject) -> Write:
        handle = data.draw(handles)
        ends = graces.map(lambda grace: self.now + grace)
        rotation = st.builds(Rotation, secrets, ends, st.booleans())
        return Write(
            handle=handle,
            epoch=self.epoch(handle, data.draw(steps_back)),
            expires=self.now + data.draw(lives),
            max_size=data.draw(limits),
            items=data.draw(st.dictionaries(keys, st.none() | values)),
            clear=data.draw(st.sampled_from([False] * 7 + [True])),
            rotation=data.draw(st.none() | st.none() | rotation),
            expect=data.draw(st.none() | st.none() | self.an_expectation(handle)),
            cookie_until=data.draw(st.none() | lives),
            principal=data.draw(principals),
        )

    def an_expectation(self, handle: str) -> st.SearchStrategy[Expect]:
        """One that is as likely to be right as not."""
        record = self.model.load_nowait(handle, self.now)
        right = [Expect(key, (record.items if record else {}).get(key)) for key in KEYS]
        return st.sampled_from(right) | st.builds(Expect, keys, st.none() | values)

    def a_change(self, data: st.DataObject) -> Change:
        kind = data.draw(st.sampled_from("cwwwwtd"))
        if kind == "c":
            return self.a_create(data)
        if kind == "w":
            return self.a_write(data)
        handle = data.draw(handles)
        epoch = self.epoch(handle, data.draw(steps_back))
        if kind == "t":
            return Touch(handle, epoch, self.now + data.draw(lives))
        return Destroy(handle, data.draw(st.sampled_from([epoch, None])))

    @rule(data=st.data())
    def one_change(self, data: st.DataObject) -> None:
        self.commit([self.a_change(data)])

    @rule(data=st.data(), number=st.integers(2, 6))
    def many_changes_at_once(self, data: st.DataObject, number: int) -> None:
        """What a store may decide together and store by one step."""
        self.commit([self.a_change(data) for _ in range(number)])

    @rule(data=st.data(), handle=handles, grace=graces, number=st.integers(0, 5))
    def a_rotation_and_writers_on_both_sides_of_it(
        self, data: st.DataObject, handle: str, grace: float, number: int
    ) -> None:
        """What random changes seldom do: keep sessions alive, and meet in the grace."""
        end, secret = self.now + 60_000, data.draw(secrets)
        if self.model.load_nowait(handle, self.now) is None:
            self.commit([Create(handle, secret, {}, self.now, end, end, 1 << 20)])
        rotation = Rotation(secret, self.now + grace)
        self.commit([Write(handle, self.epoch(handle, 0), end, 1 << 20, {}, rotation=rotation)])
        for _ in range(number):
            items = data.draw(st.dictionaries(keys, st.none() | values))
            epoch = self.epoch(handle, data.draw(st.integers(0, 1)))
            clear = data.draw(st.integers(0, 3)) == 0
            self.commit([Write(handle, epoch, end, data.draw(limits), items, clear)])

    @rule(delta=st.sampled_from([50.0, 500.0, 2000.0]))
    def time_passes(self, delta: float) -> None:
        self.now += delta

    @rule(limit=st.integers(1, 3))
    def purge(self, limit: int) -> None:
        expected = self.runner.run(self.model.purge(self.now, limit))
        came = self.runner.run(self.store.purge(self.now, limit))

        assert came == (expected if self.purges else 0)

    @rule()
    def open_again(self) -> None:
        self.close()
        self.open()

    @invariant()
    def they_hold_the_same(self) -> None:
        for handle in HANDLES:
            came = self.runner.run(self.store.load(handle, self.now))
            expected = self.model.load_nowait(handle, self.now)
            assert came == expected
            if came is not None and expected is not None:
                assert list(came.items) == list(expected.items), "keys come in the same order"

    @rule(principal=st.sampled_from(["p", "q"]), after=st.sampled_from(["", "ada", "c"]))
    def they_list_the_same(self, principal: str, after: str) -> None:
        assert self.listed(self.store, principal, after) == self.listed(
            self.model, principal, after
        )

    def listed(self, store: Store, principal: str, after: str) -> list[Any]:
        return [
            self.runner.run(store.scan(self.now, after=after, limit=2)),
            self.runner.run(store.of_principal(principal, self.now)),
            self.runner.run(store.alive(HANDLES, self.now)),
        ]


class SQLiteLockstep(Lockstep):
    def make_store(self) -> Store:
        return SQLiteStore(self.folder / "sessions.db")


class FilesLockstep(Lockstep):
    def make_store(self) -> Store:
        return FilesStore(self.folder / "sessions")


class RedisLockstep(Lockstep):
    purges = False
    server: ClassVar[Callable[[], Any]]

    def __init__(self) -> None:
        self.prefix = redis_servers.fresh_prefix()
        super().__init__()

    def make_store(self) -> Store:
        return RedisStore(type(self).server().url(prefix=self.prefix))


class SingleLockstep(RedisLockstep):
    server = staticmethod(redis_servers.redis)


class ClusterLockstep(RedisLockstep):
    server = staticmethod(redis_servers.cluster)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "examples"),
    [
        pytest.param(SQLiteLockstep, effort(40, soak=800), id="sqlite"),
        pytest.param(FilesLockstep, effort(12, soak=400), id="files"),
        pytest.param(
            SingleLockstep, effort(10, soak=800), id="redis", marks=redis_servers.NEEDS_REDIS
        ),
        pytest.param(
            ClusterLockstep, effort(3, soak=200), id="cluster", marks=redis_servers.NEEDS_REDIS
        ),
    ],
)
def test_it_agrees_with_memory_on_every_outcome_and_every_record(
    machine: type[Lockstep], examples: int, tally: Tally
) -> None:
    lockstep = settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=lockstep)
    tally("programs in lockstep", examples)
