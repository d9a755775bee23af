"""A store, a clock and exchanges without any waiting: what the core needs around it.

The desk does what the manager does, minus all that awaits, so that a test can hold a commit in
flight and choose its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from minisession import Session, SessionConfig, SessionGone
from minisession._core.ledger import Ledger
from minisession._core.plan import Flight
from minisession._core.rules import Standing, standing
from minisession._core.settle import settle
from minisession._ids import hash_secret, split_id
from minisession.abc import Change, Destroy, Outcome, Record
from minisession.stores.memory import MemoryStore

NOW = 1_800_000_000.0


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")


@dataclass
class Desk:
    """The owner of ledgers: loads from a store in memory, and notes what it is told."""

    config: SessionConfig = field(default_factory=SessionConfig)
    store: MemoryStore = field(default_factory=MemoryStore)
    now: float = NOW
    told_of: list[Ledger] = field(default_factory=list)
    loads: int = 0

    # --- what a ledger asks of its owner

    def read_nowait(self, ledger: Ledger) -> None:
        self.loads += 1
        for handle, secret in ledger.candidates():
            record = self.store.load_nowait(handle, self.now)
            if record is None:
                continue
            worth = standing(record, hash_secret(secret), self.now)
            if worth in (Standing.CURRENT, Standing.BORROWED):
                ledger.adopt(record, secret, borrowed=worth is Standing.BORROWED)
                return
            if worth is Standing.STALE:
                ledger.adopt_stale(handle)
                return
        ledger.adopt_nothing()

    def wrote(self, ledger: Ledger) -> None:
        self.told_of.append(ledger)

    async def save(self, ledger: Ledger) -> None:
        self.commit(ledger)

    async def refresh(self, ledger: Ledger) -> None:
        self.refresh_now(Session(ledger))

    async def update(
        self, ledger: Ledger, key: str, fn: Callable[[Any], Any], default: Any
    ) -> tuple[Ledger, str, Any]:
        return ledger, key, fn(default)

    # --- what tests ask

    def exchange(self, id: str | None = None) -> Session:
        """Begin an exchange that presents an id."""
        pair = None if id is None else split_id(id)
        candidates = () if pair is None else (pair,)
        return Session(Ledger(self, self.config, lambda: candidates))

    def begun(self, **values: Any) -> str:
        """Store a session and return its id."""
        session = self.exchange()
        session.update(values or {"seed": 0})
        assert self.commit(ledger_of(session)).error is None
        assert session.id is not None
        return session.id

    def take(self, session: Session, *, issuing: bool = True) -> Flight:
        """Hand over what is unsaved; the answer is up to the test."""
        ledger = ledger_of(session)
        ledger.look()
        flight = ledger.take(self.now, issuing=issuing)
        assert flight is not None, "nothing to hand over"
        return flight

    def answer(self, session: Session, flight: Flight, *outcomes: Outcome) -> Flight:
        """Let a flight land with these answers, or with those of the store."""
        ledger = ledger_of(session)
        settle(ledger, flight, outcomes or self.apply([leg.change for leg in flight.legs]))
        return flight

    def commit(self, ledger: Ledger, *, issuing: bool = True) -> Flight:
        """Save, and let the store answer; what follows a destroy waits for its answer."""
        ledger.look()
        flight = self._commit_once(ledger, issuing=issuing)
        if flight.legs and isinstance(flight.legs[-1].change, Destroy):
            return self._commit_once(ledger, issuing=issuing)
        return flight

    def _commit_once(self, ledger: Ledger, *, issuing: bool) -> Flight:
        flight = ledger.take(self.now, issuing=issuing) or Flight([])
        settle(ledger, flight, self.apply([leg.change for leg in flight.legs]))
        return flight

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Let the store apply changes."""
        outcomes: list[Outcome] = at_once(self.store.commit(changes, self.now))
        return outcomes

    def refresh_now(self, session: Session) -> None:
        """Read a session again, as the manager does."""
        ledger = ledger_of(session)
        assert ledger.life is not None
        record = self.store.load_nowait(ledger.life.handle, self.now)
        for secret in ledger.stored_secrets:
            if record is not None and self._is_good(record, secret):
                ledger.adopt(record, secret)
                return
        ledger.void(ledger.life, superseded=record is not None)
        raise SessionGone("it has ended")

    def _is_good(self, record: Record, secret: str | None) -> bool:
        return secret is None or standing(record, hash_secret(secret), self.now) is Standing.CURRENT

    def stored(self, id: str) -> dict[str, Any] | None:
        """Return what a new request with this id sees, None if there is no such session."""
        session = self.exchange(id)
        return session.all() if session.is_started else None


def ledger_of(session: Session) -> Ledger:
    """Return what is behind the mapping."""
    return session._ledger
