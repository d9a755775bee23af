"""minisession: PHP's `$_SESSION` for structured concurrency, on asyncio and trio.

    from minisession import session

    session["user_id"] = 123

How a request goes through it:

    bytes -> server/     an ASGI server that has never heard of sessions
          -> asgi        SessionMiddleware: finds the session of a request, guards its response
          -> _exchange   one request: id in, headers out (_cookies, _caching: as text)
          -> _context    the ContextVar, and the `session` proxy
          -> _core/      what a session is and what may become of it; pure, nothing waits
          -> _manager    opens and saves sessions: everything about them that waits
             _loader       finds the stored session that a client may have
             _committer    hands changes to the store, and its answers back
          -> abc         the store contract
          -> stores/     memory, sqlite

Beside it: `config` (every choice a user has; `_settings` and `_ini` read it from elsewhere),
`errors`, `_ids`, `_codec` (values as bytes), `_loop` and `_alarm` (threads that wake the loop),
`cli/`, `demo/`, `bench/`, and `testing` (what checks a store). Who may import whom is kept, and
listed, by `tests/test_architecture.py`; nothing imports what uses it.
"""

from minisession._context import current, session
from minisession._core.session import Session
from minisession._manager import SessionManager
from minisession.asgi import SessionMiddleware
from minisession.config import SessionConfig
from minisession.errors import (
    ConfigError,
    Conflict,
    CookieTooLate,
    MinisessionError,
    NoActiveSession,
    SaveOutcomeUnknown,
    SaveTimeout,
    SessionClosed,
    SessionExcluded,
    SessionGone,
    SessionTooLarge,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    UnstorableValue,
    UsageError,
)

__all__ = [
    "ConfigError",
    "Conflict",
    "CookieTooLate",
    "MinisessionError",
    "NoActiveSession",
    "SaveOutcomeUnknown",
    "SaveTimeout",
    "Session",
    "SessionClosed",
    "SessionConfig",
    "SessionExcluded",
    "SessionGone",
    "SessionManager",
    "SessionMiddleware",
    "SessionTooLarge",
    "StoreCorrupt",
    "StoreError",
    "StoreUnavailable",
    "UnstorableValue",
    "UsageError",
    "current",
    "session",
]
