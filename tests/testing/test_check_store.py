"""The conformance suite finds what is wrong: stores with one bug each, and who tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from minisession.abc import (
    Change,
    Committed,
    Create,
    Destroy,
    Gone,
    Outcome,
    Record,
    Store,
    Summary,
    Touch,
    Write,
)
from minisession.errors import StoreUnavailable
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore
from minisession.testing import ContractBroken, check_clause, check_store, clauses
from minisession.testing._clauses import listing

pytestmark = pytest.mark.anyio


class Upserts(MemoryStore):
    """A write creates what is not there: what HSET and INSERT OR REPLACE do."""

    def _apply(self, change: Change, now: float) -> Outcome:
        if isinstance(change, Write) and change.handle not in self._rows:
            items = {key: data for key, data in change.items.items() if data is not None}
            end = change.expires
            super()._apply(
                Create(change.handle, bytes(32), items, now, end, end, change.max_size), now
            )
        return super()._apply(change, now)


class TouchRevives(MemoryStore):
    """A touch is not conditional on life."""

    def _apply(self, change: Change, now: float) -> Outcome:
        if isinstance(change, Touch) and change.handle in self._rows:
            self._rows[change.handle].expires = max(now + 1, change.expires)
        return super()._apply(change, now)


class TouchShortens(MemoryStore):
    """A touch sets the end, whatever it was."""

    def _apply(self, change: Change, now: float) -> Outcome:
        outcome = super()._apply(change, now)
        if isinstance(change, Touch) and isinstance(outcome, Committed):
            self._rows[change.handle].expires = change.expires
        return outcome


class StopsAtTheFirstFailure(MemoryStore):
    """One change that fails takes the rest of its batch with it."""

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for change in changes:
            failed = outcomes and not isinstance(outcomes[-1], Committed)
            outcomes.append(StoreUnavailable("rolled back") if failed else self._apply(change, now))
        return outcomes


class AnswersOutOfOrder(MemoryStore):
    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        return (await super().commit(changes, now))[::-1]


class HandsOutItself(MemoryStore):
    """Loads return what the store goes on using."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[str, Record] = {}

    def load_nowait(self, handle: str, now: float) -> Record | None:
        record = super().load_nowait(handle, now)
        return None if record is None else self.records.setdefault(handle, record)


class KeepsSnapshots(MemoryStore):
    """A write is slow, and saves what it had read before: the blob stores' way."""

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        before = {
            c.handle: dict(self._rows[c.handle].items) for c in changes if c.handle in self._rows
        }
        await anyio.lowlevel.checkpoint()
        for change in changes:
            if isinstance(change, Write) and change.handle in self._rows:
                self._rows[change.handle].items = before[change.handle]
        return await super().commit(changes, now)


class LosesWhatIsCancelled(MemoryStore):
    """The change is handed over after the first suspension."""

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        await anyio.lowlevel.checkpoint()
        return await super().commit(changes, now)


class GraceByHalves(MemoryStore):
    """A late write applies what still counts and leaves the rest."""

    def _apply(self, change: Change, now: float) -> Outcome:
        row = self._rows.get(change.handle)
        if isinstance(change, Write) and row is not None and change.epoch == row.epoch - 1:
            items = {k: v for k, v in change.items.items() if row.epoch_of(k) < row.epoch}
            change = replace(change, items=items)
        return super()._apply(change, now)


class ForgetsTombstones(MemoryStore):
    """A drop leaves nothing, so that a late writer brings the key back."""

    def _apply(self, change: Change, now: float) -> Outcome:
        outcome = super()._apply(change, now)
        row = self._rows.get(change.handle)
        if row is not None:
            row._drop_tombstones()
        return outcome


class IgnoresEpochs(MemoryStore):
    """Whoever knew the session once may write for ever."""

    def _apply(self, change: Change, now: float) -> Outcome:
        row = self._rows.get(change.handle)
        if isinstance(change, Write | Touch) and row is not None:
            change = replace(change, epoch=row.epoch)
        return super()._apply(change, now)


class StampsLateWritesAsNew(MemoryStore):
    """A late write counts as one of the new epoch, so that the next late one is refused."""

    def _apply(self, change: Change, now: float) -> Outcome:
        outcome = super()._apply(change, now)
        row = self._rows.get(change.handle)
        if isinstance(change, Write) and row is not None and isinstance(outcome, Committed):
            row.items.update({key: (row.data_of(key), row.epoch) for key in change.items})
        return outcome


class LeavesExpiredRows(MemoryStore):
    """A Create over an expired session keeps what it had."""

    def _apply(self, change: Change, now: float) -> Outcome:
        row = self._rows.get(change.handle)
        outcome = super()._apply(change, now)
        if isinstance(change, Create) and row is not None and outcome == Committed(0):
            self._rows[change.handle].items.update(row.items)
        return outcome


class OverwritesOnCreate(MemoryStore):
    def _apply(self, change: Change, now: float) -> Outcome:
        if isinstance(change, Create):
            self._rows.pop(change.handle, None)
        return super()._apply(change, now)


class CountsReplacedBytes(MemoryStore):
    """The size of a session only grows."""

    def _apply(self, change: Change, now: float) -> Outcome:
        row = self._rows.get(change.handle)
        size = row.size if row else 0
        outcome = super()._apply(change, now)
        if row is not None:
            row.size = max(size, row.size)
        return outcome


class EndsOneTickLate(MemoryStore):
    def load_nowait(self, handle: str, now: float) -> Record | None:
        return super().load_nowait(handle, now - 0.001)


class DestroysOnlyInTheFirstEpoch(MemoryStore):
    def _apply(self, change: Change, now: float) -> Outcome:
        if isinstance(change, Destroy) and change.epoch is None:
            change = replace(change, epoch=0)
        return super()._apply(change, now)


class ListsInOrderOfBirth(MemoryStore):
    async def scan(self, now: float, *, after: str = "", limit: int = 1000) -> list[Summary]:
        listed = [row for row in self._rows.values() if row.handle > after and row.expires > now]
        return [row.summary() for row in listed][:limit]


class PurgesWithoutBound(MemoryStore):
    async def purge(self, now: float, limit: int) -> int:
        return await super().purge(now, 1000)


class PurgesTheLiving(MemoryStore):
    async def purge(self, now: float, limit: int) -> int:
        return await super().purge(now + 7200, limit)


class ConflictsWithoutTelling(MemoryStore):
    """A compare-and-set that fails writes all the same."""

    def _apply(self, change: Change, now: float) -> Outcome:
        if isinstance(change, Write) and change.expect:
            super()._apply(replace(change, expect=None), now)
        return super()._apply(change, now)


class ResurrectsOnRotation(MemoryStore):
    """Two rotations of one epoch both succeed."""

    def _apply(self, change: Change, now: float) -> Outcome:
        row = self._rows.get(change.handle)
        if isinstance(change, Write) and change.rotation and row is not None:
            change = replace(change, epoch=row.epoch)
        return super()._apply(change, now)


BUGS: dict[type[MemoryStore], str] = {
    Upserts: "a_write_to_a_destroyed_session_is_gone_and_creates_nothing",
    TouchRevives: "a_touch_never_revives",
    TouchShortens: "a_touch_never_shortens_a_life",
    StopsAtTheFirstFailure: "a_change_that_fails_does_not_disturb_its_neighbours",
    AnswersOutOfOrder: "each_change_has_its_outcome_in_order",
    HandsOutItself: "what_was_handed_out_may_change_afterwards",
    KeepsSnapshots: "concurrent_writers_of_different_keys_all_stay",
    LosesWhatIsCancelled: "a_lost_wait_loses_no_change_and_nobody_elses_outcome",
    GraceByHalves: "a_late_write_of_a_key_written_since_is_refused_wholly",
    ForgetsTombstones: "a_late_write_of_a_key_dropped_since_is_refused",
    IgnoresEpochs: "a_write_of_two_epochs_before_is_refused",
    StampsLateWritesAsNew: "late_writes_come_before_the_rotation_so_another_one_still_counts",
    LeavesExpiredRows: "creating_where_one_has_expired_starts_with_nothing_of_it",
    OverwritesOnCreate: "creating_on_a_taken_handle_is_gone_and_changes_nothing",
    CountsReplacedBytes: "what_is_replaced_or_dropped_no_longer_counts",
    EndsOneTickLate: "a_session_ends_exactly_when_it_expires",
    DestroysOnlyInTheFirstEpoch: "a_revocation_ends_a_session_whatever_its_epoch",
    ListsInOrderOfBirth: "a_scan_goes_by_handle_in_steps_through_all_that_live",
    PurgesWithoutBound: "a_purge_removes_expired_sessions_in_bounded_steps",
    PurgesTheLiving: "a_purge_leaves_the_living_alone",
    ConflictsWithoutTelling: "a_compare_and_set_writes_only_over_what_it_expects",
    ResurrectsOnRotation: "of_two_rotations_of_one_epoch_the_second_is_refused",
}


@pytest.mark.parametrize(("store", "clause"), BUGS.items())
async def test_the_clause_finds_the_bug(store: type[MemoryStore], clause: str) -> None:
    (found,) = [which for which in clauses() if which.__name__ == clause]

    with pytest.raises(ContractBroken, match=f"^{clause}: .*expected .*, came ") as caught:
        await check_clause(found, store)

    assert caught.value.clause == clause


@pytest.mark.parametrize("store", BUGS)
async def test_the_whole_suite_finds_it_too(store: type[MemoryStore]) -> None:
    with pytest.raises(ContractBroken):
        await check_store(store)


async def test_what_a_purge_has_to_remove_does_not_go_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "PATIENCE", 0.3)

    with pytest.raises(ContractBroken, match=r"^what_has_expired_goes_by_itself: "):
        await check_store(MemoryStore, purges=False)


async def test_a_store_that_forgets_is_not_persistent() -> None:
    with pytest.raises(ContractBroken, match=r"^what_was_committed_is_there_when"):
        await check_store(MemoryStore, persistent=True)


async def test_a_place_that_others_use_too_can_be_checked(tmp_path: Path) -> None:
    make_store: Callable[[], Store] = lambda: SQLiteStore(tmp_path / "sessions.db")  # noqa: E731
    end = 4e9  # seconds: the year 2096
    async with make_store() as store:
        await store.commit([Create("other", bytes(32), {}, 0.0, end, end, 1)], 1.0)

    await check_store(make_store, persistent=True)

    async with make_store() as store:
        assert await store.alive(["other"], 1.0) == {"other"}


def test_the_clauses_of_persistence_are_asked_for() -> None:
    assert len(clauses(persistent=True)) > len(clauses())
    assert len(clauses(purges=False)) == len(clauses())
    assert len({clause.__name__ for clause in clauses(persistent=True)}) == len(
        clauses(persistent=True)
    )


async def test_a_destroyed_session_is_what_gone_means() -> None:
    store = MemoryStore()

    assert await store.commit([Destroy("h", None)], 0.0) == [Gone()]
    assert repr(store) == "<MemoryStore sessions=0>"
