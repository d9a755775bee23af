"""A batch of changes in one transaction is as good as one after the other."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minisession.abc import Change, Committed, Create, Destroy, Gone, Rotation, Touch, Write
from minisession.errors import SessionTooLarge
from minisession.stores._sqlite.apply import SIZE
from minisession.stores._writer import MAX_BATCH
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore
from tests.effort import effort
from tests.scratch import scratch_folder

from .kit import END, LIMIT, NOW, birth, write

HANDLES = [f"h{number:02}" for number in range(24)]
KEYS = ["", "a", "nul \0 inside", "ключ"]

handles = st.sampled_from(HANDLES)
epochs = st.sampled_from([0, 0, 1])
values = st.none() | st.sampled_from([b"", b"1", b"a longer value", b"\0\xff"])
limits = st.sampled_from([LIMIT, LIMIT, 20, 15])
ends = st.sampled_from([END, END, NOW + 1, NOW])
writes = st.builds(
    Write,
    handles,
    epochs,
    ends,
    limits,
    st.dictionaries(st.sampled_from(KEYS), values),
    clear=st.sampled_from([False] * 9 + [True]),
    rotation=st.sampled_from([None] * 9 + [Rotation(bytes(32), NOW + 60)]),
    cookie_until=st.sampled_from([None, END + 1]),
    principal=st.sampled_from([None] * 9 + ["p"]),
)
others = st.one_of(
    st.builds(lambda handle: birth(handle, a=b"born"), handles),
    st.builds(Touch, handles, epochs, ends),
    st.builds(Destroy, handles, st.none() | epochs),
)
changes = st.one_of(writes, writes, writes, writes, others)


BIRTHS: list[Change] = [birth(handle, a=b"1") for handle in HANDLES[:-2]]
ROTATIONS: list[list[Change]] = [
    [Write(handle, 0, END, LIMIT, {}, rotation=Rotation(bytes(32), NOW + grace))]
    for handle, grace in zip(HANDLES, [0.0, 60.0, 60.0, 60.0, 60.0, 60.0], strict=False)
]


def kinds(outcomes: Sequence[object]) -> list[object]:
    """Outcomes as they are compared: an error by its words."""
    return [str(each) if isinstance(each, Exception) else each for each in outcomes]


def too_lightly_weighed(path: Path) -> list[str]:
    """The sessions of which the file says that they take less room than they do."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT handle, size, id FROM session").fetchall()
        return [handle for handle, size, id in rows if size < db.execute(SIZE, (id,)).fetchone()[0]]


@pytest.mark.slow
@settings(
    max_examples=effort(60, soak=2000),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(st.lists(changes, max_size=40), min_size=1, max_size=4))
def test_a_batch_does_what_its_changes_do_one_after_the_other(batches: list[list[Change]]) -> None:
    async def compare(path: Path) -> None:
        model = MemoryStore()
        async with SQLiteStore(path) as store:
            for batch in [BIRTHS, *ROTATIONS, *batches]:
                came = await store.commit(batch, NOW)
                assert kinds(came) == kinds(await model.commit(batch, NOW))
                for handle in HANDLES:
                    assert store.load_nowait(handle, NOW) == model.load_nowait(handle, NOW)
                assert too_lightly_weighed(path) == []

    with scratch_folder() as folder:
        anyio.run(compare, folder / "sessions.db")


@pytest.mark.anyio
async def test_of_a_full_batch_each_is_answered_for_itself(tmp_path: Path) -> None:
    """Beside those that count, all that does not."""
    names = [f"h{number}" for number in range(MAX_BATCH)]
    async with SQLiteStore(tmp_path / "sessions.db") as store:
        await store.commit([birth(name, old=b"1") for name in names[2:]], NOW)
        batch: list[Change] = [write(name, {"old": None, "a": b"1", "b": b"2"}) for name in names]
        batch[2] = Write(names[2], 1, END, LIMIT, {"a": b"another epoch"})
        batch[3] = Write(names[3], 0, END, 5, {"a": b"too large"})
        batch[1] = Create(names[1], bytes(32), {"c": b"3"}, NOW, END, END, LIMIT)

        outcomes = await store.commit(batch, NOW)

        assert outcomes[:3] == [Gone(), Committed(0), Gone(replaced=True)]
        assert isinstance(outcomes[3], SessionTooLarge)
        assert outcomes[4:] == [Committed(0)] * (MAX_BATCH - 4)
        loaded = [store.load_nowait(name, NOW) for name in names]
        assert [record and dict(record.items) for record in loaded] == [
            None,
            {"c": b"3"},
            {"old": b"1"},
            {"old": b"1"},
            *[{"a": b"1", "b": b"2"}] * (MAX_BATCH - 4),
        ]
