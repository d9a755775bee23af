"""A store that says no once: for scenarios of what becomes of those whom it refuses."""

from __future__ import annotations

from collections.abc import Sequence

from minisession import StoreUnavailable
from minisession.abc import Change, Outcome, Store
from tests.remote_store import RemoteStore


class RefusesOnce(RemoteStore):
    """Stores nothing of the first change of one session, and says so; its neighbours are stored."""

    def __init__(self, inner: Store, handle: str) -> None:
        super().__init__(inner)
        self._handle: str | None = handle

    async def commit(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        refused = next((c for c in changes if c.handle == self._handle), None)
        if refused is None:
            return await super().commit(changes, now)
        self._handle = None
        good = [change for change in changes if change is not refused]
        outcomes = iter(await super().commit(good, now))
        no: Outcome = StoreUnavailable("the disk is full")
        return [no if change is refused else next(outcomes) for change in changes]
