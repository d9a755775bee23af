"""Stores with the classic mistakes, one each, for the scenarios to find.

What is stored is in the `MemoryStore`s; the others are connections to one, as a process has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from math import inf

from minisession.abc import Change, Create, Destroy, Outcome, Record, Touch, Write
from minisession.stores._row import Row
from minisession.stores.memory import MemoryStore
from tests.races.world import pause
from tests.remote_store import RemoteStore


class UpsertsWhatIsGone(MemoryStore):
    """A write of a session that has ended makes it anew: SET, or INSERT OR REPLACE."""

    def _apply(self, change: Change, now: float) -> Outcome:
        if isinstance(change, Write) and change.handle not in self._rows:
            items = {key: data for key, data in change.items.items() if data is not None}
            secret = b"\0" * 32
            change = Create(
                change.handle, secret, items, now, change.expires, change.expires, change.max_size
            )
        return super()._apply(change, now)


class ChecksThenActs(MemoryStore):
    """Looks whether the session lives, and then writes or deletes without looking again."""

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        return [await self._look_and_act(change, now) for change in changes]

    async def _look_and_act(self, change: Change, now: float) -> Outcome:
        row = self._rows.get(change.handle)
        if row is None or isinstance(change, Create):
            return self._apply(change, now)
        if isinstance(change, Destroy):
            return await self._look_and_destroy(change, row, now)
        await pause()
        outcome = row.apply(change, now)
        self._rows[change.handle] = row
        return outcome

    async def _look_and_destroy(self, change: Destroy, row: Row, now: float) -> Outcome:
        as_it_was = deepcopy(row)
        await pause()
        self._rows[change.handle] = as_it_was
        return self._apply(change, now)


class WritesKeyByKey(MemoryStore):
    """Stores one key after the other: HSET in a loop."""

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        return [await self._key_by_key(change, now) for change in changes]

    async def _key_by_key(self, change: Change, now: float) -> Outcome:
        if not isinstance(change, Write) or len(change.items) < 2:
            return self._apply(change, now)
        for key, data in change.items.items():
            outcome = self._apply(replace(change, items={key: data}), now)
            await pause()
        return outcome


class RegeneratesOneByOne(MemoryStore):
    """Writes who logged in, and then replaces the id."""

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        return [await self._one_by_one(change, now) for change in changes]

    async def _one_by_one(self, change: Change, now: float) -> Outcome:
        if not isinstance(change, Write) or change.rotation is None:
            return self._apply(change, now)
        self._apply(replace(change, rotation=None), now)
        await pause()
        return self._apply(replace(change, items={}, clear=False), now)


class RegeneratesByCopying(MemoryStore):
    """Copies the session, and puts the copy with another id into the place of the old one."""

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        return [await self._by_copying(change, now) for change in changes]

    async def _by_copying(self, change: Change, now: float) -> Outcome:
        row = self._rows.get(change.handle)
        if not isinstance(change, Write) or change.rotation is None or row is None:
            return self._apply(change, now)
        copied = deepcopy(row)
        await pause()
        self._rows[change.handle] = copied
        return self._apply(change, now)


class RevivesAtATouch(MemoryStore):
    """Sets the time to live of whatever it has, or had: EXPIRE on a key that is written back."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, Row] = {}

    def _apply(self, change: Change, now: float) -> Outcome:
        if isinstance(change, Touch) and change.handle in self._seen:
            row = self._rows[change.handle] = self._seen[change.handle]
            row.expires = change.expires
        outcome = super()._apply(change, now)
        self._seen.update(self._rows)
        return outcome


class CountsEveryEpoch(MemoryStore):
    """Takes a change, whatever id its request came with."""

    def _apply(self, change: Change, now: float) -> Outcome:
        row = self._rows.get(change.handle)
        if row is not None and not isinstance(change, Create):
            change = replace(change, epoch=row.epoch)
        return super()._apply(change, now)


class TakesHalvesOfLateWrites(MemoryStore):
    """Stores of a late change what it may, and drops the rest of it."""

    def _apply(self, change: Change, now: float) -> Outcome:
        row = self._rows.get(change.handle)
        if row is not None and isinstance(change, Write) and change.epoch == row.epoch - 1:
            allowed = {k: data for k, data in change.items.items() if row.epoch_of(k) < row.epoch}
            change = replace(change, items=allowed)
        return super()._apply(change, now)


class GivesGraceForEver(MemoryStore):
    """Lets the replaced id count without an end."""

    def _apply(self, change: Change, now: float) -> Outcome:
        if isinstance(change, Write) and change.rotation is not None:
            change = replace(change, rotation=replace(change.rotation, grace_until=inf))
        return super()._apply(change, now)


class SetsWithoutComparing(MemoryStore):
    """Has no compare-and-set: it sets."""

    def _apply(self, change: Change, now: float) -> Outcome:
        if isinstance(change, Write):
            change = replace(change, expect=None)
        return super()._apply(change, now)


class IgnoresExpiry(MemoryStore):
    """Takes what is not swept yet for alive."""

    def _apply(self, change: Change, now: float) -> Outcome:
        row = self._rows.get(change.handle)
        if row is not None and isinstance(change, Write) and row.expires <= now:
            row.expires = inf
        return super()._apply(change, now)


class ReadsThroughACache(RemoteStore):
    """Forgets a cached session when it is changed, and not what a load brings at that moment."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self._cache: dict[str, Record | None] = {}

    async def load(self, handle: str, now: float) -> Record | None:
        if handle not in self._cache:
            self._cache[handle] = await super().load(handle, now)
        return self._cache[handle]

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        outcomes = await super().commit(changes, now)
        for change in changes:
            self._cache.pop(change.handle, None)
        return outcomes


class CommitsInTheCallersTask(RemoteStore):
    """Hands nothing over: who loses the wait loses the change."""

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        await pause()
        outcomes = await self.inner.commit(changes, now)
        await pause()
        return outcomes
