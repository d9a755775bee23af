"""The SQLite store and the memory store, driven by the same changes, never disagree."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    Touch,
    Write,
)
from minisession.errors import Conflict
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore

HANDLES = ["ada", "bob", "eve"]
KEYS = ["", "k", "ключ"]
LIMITS = [40, 60, 1 << 20]

handles = st.sampled_from(HANDLES)
keys = st.sampled_from(KEYS)
values = st.binary(max_size=25)
secrets = st.binary(min_size=32, max_size=32)
seconds = st.integers(min_value=0, max_value=60).map(float)
principals = st.sampled_from([None, None, "", "p", "q"])
steps_back = st.sampled_from([0, 0, 0, 0, 1, 1, 1, 2, -1])


def shown(outcome: Outcome) -> object:
    """What two outcomes are compared by: errors have no equality of their own."""
    if isinstance(outcome, Conflict):
        return type(outcome), str(outcome), outcome.current
    return (type(outcome), str(outcome)) if isinstance(outcome, Exception) else outcome


class Lockstep(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.model = MemoryStore()
        self.store = SQLiteStore(Path(self.folder.name) / "sessions.db")
        self.now = 1_000.0

    def teardown(self) -> None:
        self.runner.run(self.store.__aexit__(None, None, None))
        self.runner.close()
        self.folder.cleanup()

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
            expires=self.now + data.draw(seconds),
            cookie_until=self.now + data.draw(seconds),
            max_size=data.draw(st.sampled_from(LIMITS)),
            principal=data.draw(principals),
        )

    def a_write(self, data: st.DataObject) -> Write:
        handle = data.draw(handles)
        rotation = st.builds(
            Rotation, secrets, seconds.map(lambda delta: self.now + delta), st.booleans()
        )
        return Write(
            handle=handle,
            epoch=self.epoch(handle, data.draw(steps_back)),
            expires=self.now + data.draw(seconds),
            max_size=data.draw(st.sampled_from(LIMITS)),
            items=data.draw(st.dictionaries(keys, st.none() | values)),
            clear=data.draw(st.sampled_from([False, False, False, True])),
            rotation=data.draw(st.none() | st.none() | rotation),
            expect=data.draw(st.none() | st.none() | self.an_expectation(handle)),
            cookie_until=data.draw(st.none() | seconds),
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
            return Touch(handle, epoch, self.now + data.draw(seconds))
        return Destroy(handle, data.draw(st.sampled_from([epoch, None])))

    @rule(data=st.data())
    def one_change(self, data: st.DataObject) -> None:
        self.commit([self.a_change(data)])

    @rule(data=st.data(), number=st.integers(2, 6))
    def a_batch(self, data: st.DataObject, number: int) -> None:
        self.commit([self.a_change(data) for _ in range(number)])

    @rule(delta=st.sampled_from([0.5, 5.0, 30.0]))
    def time_passes(self, delta: float) -> None:
        self.now += delta

    @rule(limit=st.integers(1, 3))
    def purge(self, limit: int) -> None:
        expected = self.runner.run(self.model.purge(self.now, limit))
        came = self.runner.run(self.store.purge(self.now, limit))

        assert came == expected

    @rule()
    def open_again(self) -> None:
        self.runner.run(self.store.__aexit__(None, None, None))

    @invariant()
    def they_hold_the_same(self) -> None:
        for handle in HANDLES:
            assert self.store.load_nowait(handle, self.now) == self.model.load_nowait(
                handle, self.now
            )

    @rule(principal=st.sampled_from(["p", "q"]), after=st.sampled_from(["", "ada", "c"]))
    def they_list_the_same(self, principal: str, after: str) -> None:
        assert self.listed(self.store, principal, after) == self.listed(
            self.model, principal, after
        )

    def listed(self, store: SQLiteStore | MemoryStore, principal: str, after: str) -> list[Any]:
        return [
            self.runner.run(store.scan(self.now, after=after, limit=2)),
            self.runner.run(store.of_principal(principal, self.now)),
            self.runner.run(store.alive(HANDLES, self.now)),
        ]


@pytest.mark.slow
def test_sqlite_and_memory_agree_on_every_outcome_and_every_record() -> None:
    lockstep = settings(
        max_examples=40,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Lockstep, settings=lockstep)
