"""Every error that minisession raises, drawn as a tree that branches by whose fault it is.

    MinisessionError
    ├── UsageError                the caller's: the message names the line that would be right
    │   ├── NoActiveSession       `session` was used where no request binds one
    │   ├── SessionExcluded       this path was excluded from sessions by the configuration
    │   ├── SessionClosed         the object outlived its request
    │   ├── CookieTooLate         a new id is needed, and the headers have left
    │   ├── UnstorableValue       this value would not come back as what it is
    │   ├── SessionTooLarge       the session would grow beyond `max_size`
    │   └── ConfigError           a field of the configuration is not allowed
    ├── StoreError                the store's: the request should fail with a 503
    │   ├── StoreUnavailable      nothing was stored; the same may work later
    │   │   └── SaveTimeout       the store did not take the change in time; it was withdrawn
    │   ├── SaveOutcomeUnknown    the store took the change and never answered
    │   └── StoreCorrupt          what is stored cannot be read; it was left as it is
    ├── SessionGone               the client's: logged out, revoked or expired meanwhile
    └── Conflict                  nobody's: `update()` lost the race too many times

No message holds an id, a secret or a stored value; handles are public and may appear.
"""

from __future__ import annotations


class MinisessionError(Exception):
    """The root of all errors of this package."""


class UsageError(MinisessionError):
    """The caller asked for something that cannot be; nothing was changed."""


class NoActiveSession(UsageError, RuntimeError):
    """No session is bound to this task: no request is being handled here."""


class SessionExcluded(NoActiveSession):
    """The path of this request matches a pattern in `SessionConfig.exclude`."""


class SessionClosed(UsageError, RuntimeError):
    """The request that this session object belonged to has ended."""


class CookieTooLate(UsageError, RuntimeError):
    """A new id would have to be sent, but the response's headers have already left."""


class UnstorableValue(UsageError, ValueError):
    """The value cannot be stored so that it comes back equal and of the same type."""


class SessionTooLarge(UsageError, ValueError):
    """The encoded session would be larger than `SessionConfig.max_size`."""


class ConfigError(UsageError, ValueError):
    """A configuration value is not allowed; the message names field, value and choices."""


class StoreError(MinisessionError):
    """The store failed. Nobody was logged out by it and nobody taken for anonymous."""


class StoreUnavailable(StoreError):
    """The store refused or could not be reached: nothing of the change was stored."""


class SaveTimeout(StoreUnavailable):
    """The store did not take the change within `save_timeout`; it was withdrawn, unstored."""


class SaveOutcomeUnknown(StoreError):
    """The store took the change but did not answer in time: stored or not, nobody knows.

    The session refuses writes until `await session.refresh()` has looked.
    """


class StoreCorrupt(StoreError):
    """Stored data cannot be read. It was left untouched, for somebody to look at."""


class SessionGone(MinisessionError):
    """The session has been destroyed, revoked or replaced, or has expired, since it was read."""


class Conflict(MinisessionError):
    """Others changed the key between every read and write of `update()`.

    As a store's outcome of a compare-and-set it says what is stored now.

    Attributes:
        current: the encoded value that the store holds, None if it holds none.
    """

    def __init__(self, message: str, current: bytes | None = None) -> None:
        super().__init__(message)
        self.current = current
