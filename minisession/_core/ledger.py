"""`Ledger`: what an application may do with the books of its session.

The mapping `Session` is the application's face of it. A write is checked, shown and noted in the
journal in one step, under the lock; then the owner, the manager, takes notice. What must wait is
asked of the owner. Which write is possible in which state is the table in `books`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from minisession._ids import new_handle, new_secret
from minisession.errors import (
    CookieTooLate,
    SaveOutcomeUnknown,
    SessionClosed,
    SessionExcluded,
    UnstorableValue,
    UsageError,
)

from .books import Books, Candidates, State
from .change import Expect
from .journal import Kind, Life
from .plan import Flight, as_proposal
from .view import path_of

if TYPE_CHECKING:
    from minisession.config import SessionConfig


class Owner(Protocol):
    """What a session asks of its manager: all that reads a store, waits or wakes somebody."""

    def read_nowait(self, ledger: Ledger) -> None:
        """Load the session: call one of the `adopt` methods, or `fail`."""

    def wrote(self, ledger: Ledger) -> None:
        """Take notice of a write; called from any thread, after the write."""

    def save(self, ledger: Ledger) -> Coroutine[Any, Any, None]:
        """Wait until the store has everything written so far."""
        ...

    def refresh(self, ledger: Ledger) -> Coroutine[Any, Any, None]:
        """Read the session again."""
        ...

    def update(
        self, ledger: Ledger, key: str, fn: Callable[[Any], Any], default: Any
    ) -> Coroutine[Any, Any, Any]:
        """Change one value atomically."""
        ...


class Ledger(Books):
    """The books of one session, with an owner who reads, saves and wakes for it."""

    __slots__ = ("owner",)

    def __init__(
        self,
        owner: Owner,
        config: SessionConfig,
        candidates: Candidates = tuple,
        *,
        arrived: float = 0.0,
        is_flushed: bool = False,
        excluded: bool = False,
    ) -> None:
        super().__init__(
            config, candidates, arrived=arrived, is_flushed=is_flushed, excluded=excluded
        )
        self.owner = owner

    def require_ready(self) -> None:
        """Make the session readable: load it at the first touch; raise where it cannot be."""
        if self.ready:
            return
        with self.lock:
            if self.shut_down or self.state in (State.CLOSED, State.EXCLUDED):
                self._refuse()
            if self.state is State.UNREAD:
                self.owner.read_nowait(self)
            self.touched = True
            if self.state is State.FAILED and self.failure is not None:
                raise self.failure.with_traceback(None)
            self.active = self.active or not self.passive_depth
            self.ready = True

    def _refuse(self) -> NoReturn:
        if self.state is State.EXCLUDED:
            raise SessionExcluded(
                "this path has no session: it matches a pattern of SessionConfig(exclude=...)"
            )
        handle = "session.handle" if self.life is None else repr(self.life.handle)
        raise SessionClosed(
            "this session object has outlived its request; to work on the session afterwards,"
            f" open it again: async with manager.open_handle({handle}) as session: ..."
        )

    def put(self, key: str, value: Any) -> None:
        """Store a value; raise if it cannot be stored, or not here, or not any more."""
        _check_key(key)
        self.require_ready()
        data = self.view.encode(key, value, self.config.max_size)  # may take long: not under lock
        with self.lock:
            self.require_ready()
            growth = self.view.require_room(key, data, self.config.max_size)
            life = self._life_to_write()
            self.view.put(key, data, value, growth)
            if self.state is State.LIVE:
                self.journal.open_segment(life).items[key] = data
        self.owner.wrote(self)

    def drop(self, key: str) -> Any:
        """Remove a key and return its value; KeyError without it."""
        with self.lock:
            self.require_ready()
            if key not in self.view.values:
                raise KeyError(key)
            life = self._life_to_write()
            value = self.view.drop(key)
            if self.state is State.LIVE:
                self.journal.open_segment(life).items[key] = None
        self.owner.wrote(self)
        return value

    def clear(self) -> None:
        """Remove all values of a session, if there is one."""
        with self.lock:
            self.require_ready()
            if self.life is None:
                return
            life = self._life_to_write()
            self.view.show({})
            if self.state is State.LIVE:
                segment = self.journal.open_segment(life)
                segment.clear = True
                segment.items.clear()
        self.owner.wrote(self)

    def name_principal(self, principal: str | None) -> None:
        """Note whom the session belongs to, None for nobody."""
        with self.lock:
            self.require_ready()
            if principal is None and self.life is None:
                return
            life = self._life_to_write()
            self.principal = principal
            if self.state is State.LIVE:
                self.journal.open_segment(life).principal = principal or ""
        self.owner.wrote(self)

    def rotate(self, *, previous_loads: bool) -> None:
        """Give a stored session a new secret; one that has a new one already keeps it."""
        with self.lock:
            self.require_ready()
            if self.life is None or self.state is State.VOID:
                return
            life = self._life_to_write()
            if life.secret is None:
                raise UsageError(
                    "regenerate() on a session opened by its handle would lock its browser out;"
                    " open it by its id: async with manager.open(id) as session: ..."
                )
            pending = self.journal.issuing
            if pending is not None:
                pending.previous_loads = pending.previous_loads and previous_loads
                return
            self._refuse_if_sealed("regenerate() needs a new cookie")
            segment = self.journal.append(Kind.ROTATE, life)
            segment.replaced_secret = life.secret
            segment.previous_loads = previous_loads
            life.secret = new_secret()

    def destroy(self) -> None:
        """End the session; without one, only its cookie is to be deleted.

        This is also possible while an outcome is unknown: then the session is ended whatever the
        store has of it. One that others gave another id is theirs, and stays.
        """
        with self.lock:
            self.require_ready()
            if self.superseded:
                return
            if self.life is not None and self.state is not State.VOID:
                self.journal.destroy(self.life)
                self.life.ended = True
            self.life = self.doubt = None
            self.destroyed = True
            self.issued = self.confirmed = False
            self.state = State.NONE
            self._show_nothing()
        self.owner.wrote(self)

    def _life_to_write(self) -> Life:
        """Return the life that takes a write, starting one if there is none. Lock held."""
        if self.state is State.UNKNOWN:
            raise self.unknown()
        if self.life is None:
            self._refuse_if_sealed("the first write of a session needs a new cookie")
            handle, secret = self.adoptable or (new_handle(), new_secret())
            self.adoptable = None
            self.life = Life(handle, secret)
            self.journal.append(Kind.CREATE, self.life)
            self.state = State.LIVE
        return self.life

    def _refuse_if_sealed(self, what: str) -> None:
        if self.sealed:
            raise CookieTooLate(
                f"{what}, and the headers of this response have already left;"
                " do it before the response starts"
            )

    def unknown(self) -> SaveOutcomeUnknown:
        """Return the error that the application meets while an outcome is unknown."""
        self.doubt_told = True
        return SaveOutcomeUnknown(
            "the store has not said whether it has the last write;"
            " call `await session.refresh()` to look"
        )

    def propose(self, key: str, expected: bytes | None, value: Any, now: float) -> Flight:
        """Hand over a compare-and-set of one key. Nothing else may be in flight."""
        _check_key(key)
        data = self.view.encode(key, value, self.config.max_size)
        with self.lock:
            self.require_ready()
            self.view.require_room(key, data, self.config.max_size)
            life = self._life_to_write()
            self.flight = as_proposal(life, Expect(key, expected), data, self.config, now)
            return self.flight


def _check_key(key: str) -> None:
    """Refuse a key that has no bytes in UTF-8."""
    if key.isascii():
        return
    try:
        key.encode()
    except UnicodeEncodeError:
        raise UnstorableValue(
            f"{path_of(key)}: a key with a lone surrogate cannot be stored, it is not Unicode"
            " text; write key.encode('utf-8', 'replace').decode()"
        ) from None
