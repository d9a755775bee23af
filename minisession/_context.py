"""The ContextVar that binds a session to the tasks of one request, and the `session` proxy.

The variable is set once per exchange, to one `Session`, and changes happen inside that object: a
variable that is set again in a thread pool or under some middlewares is not seen outside them.
Child tasks, `anyio.to_thread` and background tasks inherit it with their context.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextvars import ContextVar
from typing import Any, NoReturn, cast

from minisession._core.session import Session
from minisession.errors import NoActiveSession

_bound: ContextVar[Session] = ContextVar("minisession.session")


def current() -> Session:
    """Return the session of the request that this task works for.

    Raises:
        NoActiveSession: there is none; the message says what to add.
    """
    try:
        return _bound.get()
    except LookupError:
        _no_active_session()


class bound:  # noqa: N801  # used as a verb: `with bound(session):`
    """Binds a session to this task, and all that it starts, for as long as the block lasts.

    An asynchronous framework may leave the block in another context than it entered it (an
    asynchronous generator that is closed late); the binding is then gone with its own context.
    """

    __slots__ = ("_session", "_token")

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> None:
        self._token = _bound.set(self._session)

    def __exit__(self, *_: object) -> None:
        try:
            _bound.reset(self._token)
        except ValueError:  # "was created in a different Context": nothing to undo here
            return


def _no_active_session() -> NoReturn:
    raise NoActiveSession(
        "`session` was used where no request is being handled. In an ASGI application wrap it:"
        ' app = SessionMiddleware(app, store="sqlite:///sessions.db"). Elsewhere:'
        " async with SessionManager(...) as sessions: async with sessions.open(id) as session: ..."
        " A thread that was not started by anyio, and `loop.run_in_executor`, do not inherit the"
        " request's context: run them with `contextvars.copy_context().run`"
    )


class _CurrentSession:
    """Forwards everything to the session of the current request; holds nothing itself.

    Everywhere it is what it is declared to be: `isinstance(session, Session)` is true. A name that
    no session has is missing outside of requests too, so that tools which look at everything in a
    module (doctest, `unittest.mock.patch`) meet no error that they do not know.
    """

    __slots__ = ()
    __reversed__ = None  # as `Mapping` says; else `reversed` would try __len__ and numbers

    @property  # type: ignore[misc]  # `object` lets it be assigned
    def __class__(self) -> type[Session]:  # type: ignore[override]
        return Session

    def __dir__(self) -> list[str]:
        return dir(Session)

    def __getattr__(self, name: str) -> Any:
        if not hasattr(Session, name):
            raise AttributeError(f"'Session' object has no attribute {name!r}", name=name, obj=self)
        return getattr(current(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(current(), name, value)

    def __getitem__(self, key: str) -> Any:
        return current()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        current()[key] = value

    def __delitem__(self, key: str) -> None:
        del current()[key]

    def __contains__(self, key: object) -> bool:
        return key in current()

    def __iter__(self) -> Iterator[str]:
        return iter(current())

    def __len__(self) -> int:
        return len(current())

    def __eq__(self, other: object) -> bool:
        return current() == (current() if other is self else other)

    def __hash__(self) -> NoReturn:
        raise TypeError("unhashable type: 'Session'")

    def __repr__(self) -> str:
        bound_one = _bound.get(None)
        return "<session: none is active here>" if bound_one is None else repr(bound_one)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default`; written out because it is called most."""
        return current().get(key, default)


# `match session: case {"user": user}` asks the type itself, not its __class__.
MutableMapping.register(_CurrentSession)  # pyright: ignore[reportAttributeAccessIssue]

session: Session = cast(Session, _CurrentSession())
"""The session of the current request, as a dict. See `Session` for what it can do."""
