"""What every clause is given: a store, a clock, and a way to say what is broken.

It owns how a broken clause is reported. It knows no store: handles are random, so that a place
which other sessions share can be checked as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace

from minisession.abc import Change, Create, Destroy, Outcome, Record, Rotation, Store, Write

HOUR = 3600.0  # seconds
GRACE = 30.0  # seconds
LIMIT = 1 << 20  # bytes


class ContractBroken(AssertionError):
    """A store does not keep a clause of the contract.

    Attributes:
        clause: the name of the clause.
    """

    def __init__(self, clause: str, message: str) -> None:
        super().__init__(f"{clause}: {message}")
        self.clause = clause


def secret(number: int) -> bytes:
    """Return what stands for the hash of a secret."""
    return bytes([number]) * 32


@dataclass(frozen=True)
class Trial:
    """One clause under examination in one store.

    Attributes:
        now: the time at which everything happens that is not said to happen later.
    """

    clause: str
    store: Store
    make_store: Callable[[], Store]
    now: float

    def expect(self, what: str, came: object, expected: object) -> None:
        """Report the clause as broken unless what came is what was expected."""
        if came != expected:
            raise ContractBroken(self.clause, f"{what}: expected {expected!r}, came {came!r}")

    def expect_a(self, what: str, came: object, expected: type) -> None:
        """Report the clause as broken unless what came is of the expected type."""
        if not isinstance(came, expected):
            raise ContractBroken(
                self.clause, f"{what}: expected {expected.__name__}, came {came!r}"
            )

    def birth(
        self, items: Mapping[str, bytes] | None = None, *, principal: str | None = None
    ) -> Create:
        """Return the change that makes a session which lives for an hour."""
        return Create(
            handle=secrets.token_urlsafe(16),
            secret=secret(0),
            items=dict(items or {}),
            created=self.now,
            expires=self.now + HOUR,
            cookie_until=self.now + 2 * HOUR,
            max_size=LIMIT,
            principal=principal,
        )

    def write(self, handle: str, items: Mapping[str, bytes | None], epoch: int = 0) -> Write:
        """Return a change of items; a clause replaces what it wants otherwise."""
        return Write(handle, epoch, self.now + HOUR, LIMIT, dict(items))

    def rotation(self, handle: str, epoch: int = 0, *, previous_loads: bool = False) -> Write:
        """Return the change that replaces the secret, with `GRACE` for late writers."""
        new = Rotation(secret(epoch + 1), self.now + GRACE, previous_loads)
        return replace(self.write(handle, {}, epoch), rotation=new)

    async def commit(self, change: Change, *, after: float = 0.0) -> Outcome:
        """Commit one change, `after` seconds from now, and return its outcome."""
        outcomes = await self.store.commit([change], self.now + after)
        self.expect("number of outcomes for one change", len(outcomes), 1)
        return outcomes[0]

    async def load(self, handle: str, *, after: float = 0.0) -> Record | None:
        """Load a session, `after` seconds from now."""
        return await self.store.load(handle, self.now + after)

    async def items(self, handle: str) -> Mapping[str, bytes] | None:
        """Return the items of a session, None if it does not live."""
        record = await self.load(handle)
        return None if record is None else dict(record.items)

    async def born(
        self, items: Mapping[str, bytes] | None = None, *, principal: str | None = None
    ) -> str:
        """Make a session and return its handle."""
        change = self.birth(items, principal=principal)
        await self.commit(change)
        return change.handle

    async def rotated(
        self, items: Mapping[str, bytes] | None = None, *, previous_loads: bool = False
    ) -> str:
        """Make a session whose secret was replaced just now: epoch 1, late writers have 0."""
        handle = await self.born(items)
        await self.commit(self.rotation(handle, previous_loads=previous_loads))
        return handle

    async def ended(self) -> str:
        """Make a session, destroy it, and return its handle."""
        handle = await self.born({"k": b"old"})
        await self.commit(Destroy(handle, 0))
        return handle

    async def forget(self, handles: Collection[str]) -> None:
        """Destroy sessions, to leave nothing behind."""
        await self.store.commit([Destroy(handle, None) for handle in handles], self.now)


Clause = Callable[[Trial], Awaitable[None]]
