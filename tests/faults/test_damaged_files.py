"""A database that is damaged in many places: reported, or read as it was, and left as it is.

What SQLite cannot notice, nobody does: its pages carry no checksums, so a byte that changes inside
a value, and still is one, is another value. That is one session, where a byte is hit; what spoils a
whole page, or cuts the file, is an outage for all whom it concerns.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from minisession.abc import Committed, Gone
from minisession.errors import StoreCorrupt, StoreError, StoreUnavailable
from minisession.stores.sqlite import SQLiteStore
from tests.effort import Tally, effort
from tests.stores.kit import NOW, born, write

pytestmark = pytest.mark.slow

PAGE = 4096  # octets
HANDLES = [f"handle{number:03}" for number in range(60)]
STORED = {
    handle: {f"key {n}": f'"{handle * 10} {n}"'.encode() for n in range(4)} for handle in HANDLES
}

Damage = Callable[[bytearray, random.Random], None]


def flipped(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def scratched(content: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(content) - 64)
    content[start : start + 64] = chance.randbytes(64)


def replaced(content: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(content) // PAGE) * PAGE
    content[start : start + PAGE] = chance.randbytes(PAGE)


def cut(content: bytearray, chance: random.Random) -> None:
    """Not to nothing, which is a new database; and not within the last page: that is a scratch."""
    del content[chance.randrange(1, len(content) - PAGE) :]


SILENT: dict[Damage, int] = {flipped: 2, scratched: 2, replaced: 0, cut: 0}
"""How many of the sessions may read as something else that SQLite takes for sound."""


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def sound(tmp_path: Path) -> bytes:
    """The content of a database with many sessions."""
    path = tmp_path / "sound.db"

    async def fill() -> None:
        async with SQLiteStore(path) as store:
            for handle in HANDLES:
                await born(store, handle, **STORED[handle])

    anyio.run(fill)
    return path.read_bytes()


def read(store: SQLiteStore, handle: str) -> str:
    try:
        record = store.load_nowait(handle, NOW)
    except (StoreCorrupt, StoreUnavailable):
        return "reported"
    return "as it was" if record is not None and record.items == STORED[handle] else "silent"


def content_of(path: Path) -> bytes:
    return path.read_bytes()


async def use(path: Path) -> Counter[str]:
    """Load every session, then write to some; nothing but documented errors comes out."""
    store = SQLiteStore(path)
    before = content_of(path)
    seen = Counter(read(store, handle) for handle in HANDLES)
    assert content_of(path) == before
    outcomes = await store.commit([write(handle) for handle in HANDLES[::10]], NOW)
    assert all(isinstance(o, Committed | Gone | StoreError) for o in outcomes)
    for look in (store.scan(NOW), store.of_principal("ada", NOW), store.alive(HANDLES, NOW)):
        try:
            await look
        except StoreUnavailable:
            seen["reported"] += 1
    await store.__aexit__(None, None, None)
    return seen


@pytest.mark.parametrize("damage", SILENT)
def test_damage_is_reported_or_harmless_and_never_written_over(
    damage: Damage,
    sound: bytes,
    tmp_path: Path,
    tally: Tally,
) -> None:
    tries = effort(25, soak=4_000)
    reported = 0
    for seed in range(tries):
        content = bytearray(sound)
        damage(content, random.Random(seed))
        path = tmp_path / f"{seed}.db"
        path.write_bytes(content)

        seen = anyio.run(use, path)

        assert seen["silent"] <= SILENT[damage], f"seed {seed}"
        reported += seen["reported"] > 0
        path.unlink()

    assert reported > (tries / 2 if damage in (replaced, cut) else 0)
    tally("faulted operations", tries * len(HANDLES))


def test_a_damaged_name_in_the_schema_is_an_outage(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.write_bytes(
        sound.replace(b"sqlite_autoindex_session_1", b"sqlite_autoin\xff\xff\xff_session_1")
    )

    assert anyio.run(use, path)["reported"] >= len(HANDLES)
