"""The words with which a change is refused, which are the same whatever keeps the session."""

from __future__ import annotations

from pathlib import Path

import pytest

from minisession.abc import Change, Committed, Create, Expect, Store, Write
from minisession.errors import Conflict, SessionTooLarge
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore

from .kit import END, LIMIT, NOW, birth

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "sessions.db")


async def refusal(store: Store, change: Change) -> object:
    async with store:
        (born,) = await store.commit([birth("h", kept=b"x" * 996)], NOW)
        assert born == Committed(0), "1,000 bytes: a key of 4 and its value"
        (outcome,) = await store.commit([change], NOW)
        return outcome


@pytest.mark.parametrize(
    "change",
    [
        Create("h2", bytes(32), {"key": b"y" * 1231}, NOW, END, END, max_size=1233),
        Write("h", 0, END, 1233, {"key": b"y" * 231}),
        Write("h", 0, END, 1233, {"kept": b"y" * 1230}),
        Write("h", 0, END, 1233, {"kept": None, "key": b"y" * 1231}),
        Write("h", 0, END, 1233, {"key": b"y" * 1231}, clear=True),
    ],
    ids=["create", "add", "replace", "drop and add", "clear and add"],
)
async def test_a_session_too_large_is_told_its_size_the_limit_and_where_that_is_set(
    store: Store, change: Change
) -> None:
    outcome = await refusal(store, change)

    assert isinstance(outcome, SessionTooLarge)
    assert str(outcome) == (
        f"session {change.handle}: with this change and those of other requests it would have"
        " 1,234 bytes; SessionConfig(max_size=1233) allows no more"
    )


async def test_a_conflict_names_the_session_and_carries_the_value_without_showing_it(
    store: Store,
) -> None:
    change = Write("h", 0, END, LIMIT, {"kept": b"new"}, expect=Expect("kept", b"expected"))

    outcome = await refusal(store, change)

    assert isinstance(outcome, Conflict)
    assert outcome.current == b"x" * 996
    assert str(outcome) == "session h: the key was changed by somebody else"
