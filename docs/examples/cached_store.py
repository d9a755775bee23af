"""A store with a cache in front, and what the conformance suite has to say about it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from minisession.abc import Change, Outcome, Record
from minisession.stores.memory import MemoryStore
from minisession.testing import check_store


# --8<-- [start:cached]
class CachedStore(MemoryStore):
    """Remembers what it has loaded. (Think of a database instead of the memory.)"""

    def __init__(self) -> None:
        super().__init__()
        self._cache: dict[str, Record | None] = {}

    def load_nowait(self, handle: str, now: float) -> Record | None:
        """Ask only for what was not asked for before."""
        if handle not in self._cache:
            self._cache[handle] = super().load_nowait(handle, now)
        return self._cache[handle]


@pytest.mark.anyio  # anyio's own plugin for pytest: on asyncio, and on trio
async def test_it_keeps_the_contract() -> None:
    """Clause by clause."""
    await check_store(CachedStore)


# --8<-- [end:cached]


# --8<-- [start:mended]
class CarefulStore(CachedStore):
    """Forgets what was changed here and what has expired, and keeps its own copy to itself."""

    def load_nowait(self, handle: str, now: float) -> Record | None:
        """Return a copy of what lives."""
        record = super().load_nowait(handle, now)
        if record is None or record.expires <= now:
            return None
        return replace(record, items=dict(record.items))

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        """Apply the changes, and remember nothing of what they were about."""
        outcomes = await super().commit(changes, now)
        for change in changes:
            self._cache.pop(change.handle, None)
        return outcomes


# --8<-- [end:mended]
