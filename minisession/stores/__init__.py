"""Where sessions are kept, and the URLs that name it.

    memory://                  MemoryStore   this process only: tests, the model of the contract
    sqlite:///sessions.db      SQLiteStore   a file on this machine, any number of processes
    sqlite:////var/lib/s.db                  (four slashes: an absolute path)
    file:///var/lib/sessions   FilesStore    a folder on this machine, any number of processes
    redis://host:6379/0       RedisStore     a Redis or Valkey server, any number of machines
    redis+sentinel://host/service/0          (rediss: TLS; valkey means the same as redis)
    redis+cluster://host

`open_store` turns a URL into a store without any I/O; the modules are imported when named.
"""

from __future__ import annotations

from minisession.abc import Store
from minisession.errors import ConfigError

from ._redis.url import is_redis

__all__ = ["open_store"]


def open_store(store: Store | str) -> Store:
    """Return the store that a URL names, or the store itself. Does no I/O.

    Raises:
        ConfigError: no store has such a URL, and the message lists those that there are; or this
            system lacks what such a store needs.
    """
    if not isinstance(store, str):
        return store
    scheme, separator, rest = store.partition("://")
    if separator and scheme in ("sqlite", "file") and "?" in rest:
        raise _options_of_a_path(scheme, rest)
    if separator and scheme == "memory" and not rest:
        from .memory import MemoryStore  # noqa: PLC0415  # a store that is not named costs nothing

        return MemoryStore()
    if separator and scheme == "sqlite" and rest.startswith("/") and rest != "/":
        from .sqlite import SQLiteStore  # noqa: PLC0415

        return SQLiteStore(rest[1:])
    if separator and scheme == "file" and rest.startswith("/") and rest.strip("/"):
        from .files import FilesStore  # noqa: PLC0415

        return FilesStore(rest)
    if separator and is_redis(scheme):
        from .redis import RedisStore  # noqa: PLC0415

        return RedisStore(store)
    before, colon, _ = store.partition(":")
    shown = f"{before}:..." if colon else repr(store)  # behind it may stand a password
    raise ConfigError(
        f"store={shown}: no such store; allowed are 'memory://', 'sqlite:///sessions.db'"
        " (a path from here), 'sqlite:////var/lib/app/sessions.db' (an absolute path),"
        " 'file:///var/lib/app/sessions' (always an absolute path; for another one pass"
        " FilesStore('sessions')), 'redis://host:6379/0', 'redis+sentinel://host/service/0',"
        " 'redis+cluster://host', or an object that implements minisession.abc.Store"
    )


def _options_of_a_path(scheme: str, rest: str) -> ConfigError:
    """Return the error for a `?` behind a path. What follows it is not shown; it may be secret."""
    path = rest.partition("?")[0]
    named = f'SQLiteStore("{path[1:]}?...")' if scheme == "sqlite" else f'FilesStore("{path}?...")'
    return ConfigError(
        f"store='{scheme}://{path}?...': {scheme}:// has no options; allowed is"
        f" '{scheme}://{path}'. Of a name that has a question mark, pass the store: {named}"
    )
