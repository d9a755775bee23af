"""`Session`: the mapping that applications use.

It is the application's face of a `Ledger`, which holds everything that is known of the session
and decides what a write means. Reads look at the ledger's view directly: they are the hot path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, overload

from minisession.errors import UnstorableValue

from .books import State
from .view import CONTAINERS

if TYPE_CHECKING:
    from .ledger import Ledger

_MISSING: Any = object()


class Session(MutableMapping[str, Any]):
    """The data of one browser's session, as a dict that is saved by itself.

    Reading a session that was never written gives an empty mapping and starts nothing. The first
    write starts it; from then on it has an `id`. Every write is handed to the store at the task's
    next await, and the response leaves only after the store has it. Values come back equal and of
    the same type, or are refused where they are assigned.

    One object serves one exchange: all tasks and threads that work for a request share it. Use
    the module-level `minisession.session`, or get one from `SessionManager.open()`.
    """

    __slots__ = ("__weakref__", "_ledger")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # --- what is known of it -------------------------------------------------------------------

    @property
    def id(self) -> str | None:
        """The whole id, as the cookie carries it: a secret. None if no session was started.

        None also where the secret is not known, as under `SessionManager.open_handle()`.
        """
        self._ledger.require_ready()
        return self._ledger.id

    @property
    def handle(self) -> str | None:
        """The public name of the session, for logs and lists. None if no session was started."""
        self._ledger.require_ready()
        life = self._ledger.life
        return None if life is None else life.handle

    @property
    def is_started(self) -> bool:
        """Whether there is a session: one that was loaded, or one that was written to."""
        self._ledger.require_ready()
        return self._ledger.life is not None and self._ledger.state is not State.VOID

    @property
    def principal(self) -> str | None:
        """Whom the session belongs to, as the application named them: for lists of sessions.

        Assign a name after login (`session.principal = "user:7"`), None to take it back.
        """
        self._ledger.require_ready()
        return self._ledger.principal

    @principal.setter
    def principal(self, name: str | None) -> None:
        if name is not None and (type(name) is not str or not name):
            raise UnstorableValue(
                f"session.principal: {type(name).__name__} is not a name;"
                ' assign a str such as "user:7", or None'
            )
        if name is not None:
            _check_name(name)
        self._ledger.name_principal(name)

    def __repr__(self) -> str:
        ledger = self._ledger
        if ledger.state is not State.LIVE or ledger.life is None:
            return f"<Session {ledger.state.value}>"
        return f"<Session live handle={ledger.life.handle} keys={len(ledger.view.values)}>"

    # --- reading -------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        ledger = self._ledger
        if not ledger.ready:
            ledger.require_ready()
        value = ledger.view.values[key]
        if type(value) in CONTAINERS:
            ledger.view.exposed.add(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default` if there is none."""
        ledger = self._ledger
        if not ledger.ready:
            ledger.require_ready()
        value = ledger.view.values.get(key, _MISSING)
        if value is _MISSING:
            return default
        if type(value) in CONTAINERS:
            ledger.view.exposed.add(key)
        return value

    def __contains__(self, key: object) -> bool:
        ledger = self._ledger
        if not ledger.ready:
            ledger.require_ready()
        return key in ledger.view.values

    def has(self, key: str) -> bool:
        """Tell whether there is a value under `key`."""
        return key in self

    def __iter__(self) -> Iterator[str]:
        self._ledger.require_ready()
        return iter(tuple(self._ledger.view.values))

    def __len__(self) -> int:
        self._ledger.require_ready()
        return len(self._ledger.view.values)

    def all(self) -> dict[str, Any]:
        """Return everything as a plain dict: a deep copy, which is the caller's own."""
        self._ledger.require_ready()
        return deepcopy(dict(self._ledger.view.values))  # at one moment: threads may write

    # --- writing -------------------------------------------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        if type(key) is not str:
            raise UnstorableValue(
                f"session[{key!r}]: a key must be a str, not {type(key).__name__};"
                f" write session[{str(key)!r}]"
            )
        self._ledger.put(key, value)

    def set(self, key: str, value: Any) -> None:
        """Store `value` under `key`; the same as `session[key] = value`."""
        self[key] = value

    def __delitem__(self, key: str) -> None:
        self._ledger.drop(key)

    def remove(self, key: str) -> None:
        """Remove `key`, if it is there."""
        self.pop(key, None)

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Remove `key` and return its value; without it return `default`, or raise KeyError."""
        try:
            return self._ledger.drop(key)
        except KeyError:
            if default is _MISSING:
                raise
            return default

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the pair that was added last; KeyError if there is none."""
        with self._ledger.lock:
            self._ledger.require_ready()
            if not self._ledger.view.values:
                raise KeyError("popitem(): the session is empty")
            key = next(reversed(self._ledger.view.values))
            return key, self._ledger.drop(key)

    def clear(self) -> None:
        """Remove all values. The session and its id stay; `destroy()` is for logging out."""
        self._ledger.clear()

    @overload  # type: ignore[override]  # a second meaning, told apart by the second argument
    def update(
        self, key: str, fn: Callable[[Any], Any], /, *, default: Any = None
    ) -> Awaitable[Any]: ...
    @overload
    def update(
        self, other: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **values: Any
    ) -> None: ...
    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, other: Any = (), fn: Callable[[Any], Any] | None = None, /, **values: Any
    ) -> Awaitable[Any] | None:
        """Change one value atomically (`await update(key, fn)`), or many as a dict does.

        `await session.update(key, fn, default=None)` calls `fn` with the value that the store
        holds under `key`, or with `default`, stores what it returns and returns that. It is an
        atomic read-modify-write: of n concurrent increments none is lost, in any number of
        processes. `fn` is synchronous and has no side effects: it runs again when somebody else
        was faster. What was written before is saved with it.

        `session.update(mapping)` and `session.update(a=1)` are those of a dict.

        Raises:
            Conflict: the awaitable lost too many races; nothing was stored.
            SessionGone: the session has ended meanwhile; nothing was stored.
        """
        if fn is None and not isinstance(other, str):
            super().update(other, **values)
            return None
        default = values.pop("default", None)
        if values or not callable(fn) or type(other) is not str:
            raise TypeError(
                "update() takes a mapping, or a key and a function:"
                " await session.update('visits', lambda n: n + 1, default=0)"
            )
        return self._ledger.owner.update(self._ledger, other, fn, default)

    # --- the session as a whole ----------------------------------------------------------------

    def regenerate(self, delete_old_session: bool = True) -> None:
        """Give the session a new id: at every login, before writing who logged in.

        The data stays. The new id and everything written after this line are stored in one step
        when the response starts; then the old id is dead for new requests, while requests that
        are under way may finish by the rule of `rotation_grace`. Without a session, or with one
        that was just started, nothing happens: its id is new anyway.

        Args:
            delete_old_session: False lets the old id go on loading the session for
                `rotation_grace` seconds. For hygiene, never across a change of privilege.

        Raises:
            CookieTooLate: the headers have left; nobody could deliver the new id.
        """
        self._ledger.rotate(previous_loads=not delete_old_session)

    def destroy(self) -> None:
        """End the session: logout. Its data and its id are gone from the store for good.

        A write after it, in the same request, starts a new session with a new id (a message for
        the next page). Without a session, the browser is told to forget its cookie.
        """
        self._ledger.destroy()

    def save(self) -> Awaitable[None]:
        """Wait until the store has everything written so far, changes in nested values included.

        Raises:
            SessionGone: the session has ended meanwhile; the writes are void.
            StoreUnavailable: nothing was stored; the writes are kept and tried again.
            SaveOutcomeUnknown: the store did not say; `await session.refresh()` looks.
            UnstorableValue: a nested value cannot be stored; that key is as it was before.
        """
        return self._ledger.owner.save(self._ledger)

    def refresh(self) -> Awaitable[None]:
        """Read the session again from the store, and put what is not saved yet on top.

        Values that were handed out before are no longer watched: fetch them again.

        Raises:
            SessionGone: the session has ended meanwhile.
            StoreError: it could not be read; nothing has changed here.
        """
        return self._ledger.owner.refresh(self._ledger)

    @contextmanager
    def passive(self) -> Iterator[None]:
        """Within this block, using the session does not count as activity: polls, heartbeats.

        That holds for all tasks of the request while the block is open: do not wait in it.
        """
        ledger = self._ledger
        ledger.passive_depth += 1
        try:
            yield
        finally:
            ledger.passive_depth -= 1
            if not ledger.active:
                ledger.ready = False


def _check_name(name: str) -> None:
    """Refuse a principal that has no bytes in UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UnstorableValue(
            "session.principal: a name with a lone surrogate cannot be stored, it is not Unicode"
            " text; write name.encode('utf-8', 'replace').decode()"
        ) from None
