"""`Trial`: one session, an operation on it that is disturbed, and what is left of both.

An operation goes through states, which it names beforehand: what the old id opens and what the
new id opens, both None where nothing is. It says how far it has come for certain, because the
store has acknowledged it or because what is written has to be stored whatever happens (P5, P7).
Afterwards the session must be in one of these states, and in none before that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from minisession import Session, SessionClosed, SessionManager
from minisession.errors import StoreError
from tests.cancellation.left import PATIENCE, Left

Items = dict[str, Any]
World = tuple[Items | None, Items | None]

BEFORE: Items = {"n": 0, "cart": []}


@dataclass
class Trial:
    """The session of one run.

    Attributes:
        id: that of the session, before the operation.
        new_id: the one that the operation has given to it, or to the one that follows it.
        sure: the index of the state that the operation has reached for certain.
        kept: the session objects that the operation has used.
    """

    sessions: SessionManager
    id: str = ""
    new_id: str | None = None
    sure: int = 0
    kept: list[Session] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left = Left(self.sessions)

    async def begin(self) -> None:
        """Store a session to work on."""
        async with self.sessions.open() as one:
            one.update(BEFORE)
            await one.save()
            self.id = str(one.id)
        self.start_over()

    def start_over(self) -> None:
        """Forget the run before."""
        self.new_id, self.sure, self.kept = None, 0, []

    async def look(self, id: str | None) -> Items | None:
        """Return what an id opens, once everything that was handed over has landed."""
        await self.left.landed()
        if id is None:
            return None
        async with self.sessions.open(id) as one:
            return one.all() if one.is_started else None

    async def require_one_of(self, worlds: Sequence[World]) -> None:
        """Fail if the session is in none of these states, or before the one that is sure."""
        world = await self.look(self.id), await self.look(self.new_id)
        assert world in worlds, f"between the states: {world}"
        assert world in worlds[self.sure :], f"lost: {world}; {worlds[self.sure]} was certain"

    async def require_usable(self) -> None:
        """Fail if anything is left behind, or the next operation goes wrong."""
        self.left.require_nothing()
        id = self.id if await self.look(self.new_id) is None else self.new_id
        with anyio.fail_after(PATIENCE):
            async with self.sessions.open(id if await self.look(id) else None) as one:
                before = one.get("n", 0)
                assert await one.update("n", lambda n: n + 1, default=0) == before + 1
        for each in self.kept:
            assert each._ledger.flight is None
            with pytest.raises(SessionClosed):
                each.get("n")


@dataclass(frozen=True)
class Operation:
    """What is done to a session, and the states that it goes through.

    Attributes:
        run: does it; a `StoreError` of a store that was made to fail ends it as an app would.
        worlds: the states, in order.
        opens: whether it wants the session of the trial, or a new one.
        has_siblings: whether it waits for other tasks; nothing can be raised out of that wait.
    """

    run: Callable[[Trial, Session], Awaitable[None]]
    worlds: Sequence[World]
    opens: bool = True
    has_siblings: bool = False

    def __str__(self) -> str:
        return str(getattr(self.run, "__name__", self.run))

    async def on(self, trial: Trial) -> None:
        """Run it as a job would."""
        async with trial.sessions.open(trial.id if self.opens else None) as one:
            trial.kept.append(one)
            await self.run(trial, one)

    async def may_fail_on(self, trial: Trial) -> None:
        """Run it where the store may fail: its own errors are allowed, and no others."""
        try:
            await self.on(trial)
        except* StoreError:
            pass
