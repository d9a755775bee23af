"""One HTTP request and its response, as far as sessions are concerned: id in, headers out.

It knows header fields, not ASGI. What a response must store and which cookie it may carry is
decided by the ledger; the waiting is the manager's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

from minisession._caching import add_vary_cookie, apply_cache_limiter
from minisession._cookies import delete_cookie, read_cookie, set_cookie
from minisession._core.books import CookieOrder
from minisession._core.session import Session
from minisession._ids import split_id
from minisession._manager import SessionManager
from minisession.errors import UsageError

Headers = list[tuple[bytes, bytes]]

log = logging.getLogger("minisession")

MAX_CANDIDATES = 4
"""How many distinct well-formed ids of one request are looked up. A browser sends two when an
older cookie of the same name has another Path or Domain; more is an attempt to cost us loads."""


class Exchange:
    """The session of one request, from its Cookie header to its end.

    Call `begin`, run the application with `session` bound, pass the response's headers through
    `start`, call `hand_over` before the last part of the body, and at the end `end`, or `fail`
    after an exception.
    """

    __slots__ = (
        "_config",
        "_cookie",
        "_fields",
        "_https",
        "_manager",
        "_path",
        "_untouched_headers",
        "ledger",
        "session",
    )

    def __init__(
        self,
        manager: SessionManager,
        headers: Iterable[tuple[bytes, bytes]],
        path: str,
        *,
        https: bool,
    ) -> None:
        config = manager.config
        self._manager = manager
        self._config = config
        self._https = https
        self._cookie = config.cookie_for(https)
        self._fields = [value for name, value in headers if name == b"cookie"]
        self._path = path
        self._untouched_headers: Headers | None = None
        # Not a method: the ledger would hold the exchange, and neither be freed at the end of the
        # request, but whenever the cycle collector comes by.
        candidates = partial(_candidates, self._fields, self._cookie.name)
        self.ledger = manager.ledger(candidates, excluded=config.excludes(path))
        self.session = Session(self.ledger)

    async def begin(self) -> None:
        """Load the session, if its store cannot do so at the first touch."""
        await self._manager.load(self.ledger)

    async def start(self, headers: Iterable[tuple[bytes, bytes]], status: int) -> Headers:
        """Store everything written so far; return the response's headers with ours.

        From here on no id can be issued. Without a touch of the session nothing is done.

        Raises:
            StoreError: the session could not be loaded, or the writes are not stored; this
                response must not be sent.
            UnstorableValue: a nested value cannot be stored.
        """
        ledger, headers = self.ledger, list(headers)
        if ledger.load_failure is not None:
            raise ledger.load_failure
        if status >= 500 and self._config.on_error == "rollback":
            ledger.abandon(everything=True)
        ledger.seal(self._manager.clock())
        if not ledger.touched:
            self._untouched_headers = headers
            return headers
        if ledger.unsaved:
            await self._settle_up_for_the_start()
        return add_vary_cookie(self._with_cookie(headers))

    async def _settle_up_for_the_start(self) -> None:
        try:
            await self._manager.settle_up(self.ledger, issuing=True)
        except UsageError:
            self.ledger.sealed = False  # another response will start, and can carry an id
            raise

    def _with_cookie(self, headers: Headers) -> Headers:
        cookie = self._set_cookie()
        if cookie is None:
            return headers
        config = self._config
        headers = apply_cache_limiter(headers, config.cache_limiter, config.cache_max_age)
        return [*headers, (b"set-cookie", cookie)]

    def _set_cookie(self) -> bytes | None:
        """Return the Set-Cookie that this response carries, if it may and must carry one."""
        ledger = self.ledger
        order = ledger.cookie_order
        if order is CookieOrder.LEAVE or not self._config.emits_over(self._https):
            return None
        if order is CookieOrder.DELETE:
            has_cookie = read_cookie(self._fields, self._cookie.name)
            return delete_cookie(self._cookie) if has_cookie else None
        now = self._manager.clock()
        life, id = ledger.life, ledger.id
        assert life is not None and id is not None, "a confirmed id is known"  # noqa: S101, PT018
        created = now if life.created is None else life.created
        return set_cookie(self._cookie, id, self._config.cookie_max_age(now, created), now)

    @property
    def unsaved(self) -> bool:
        """Whether `hand_over` might find something to do."""
        return self.ledger.unsaved

    async def hand_over(self) -> None:
        """Store what was written since the response started.

        Raises:
            StoreError: it is not stored; the response must not end as if it were.
        """
        await self._manager.settle_up(self.ledger, issuing=False)

    async def keep_alive(self) -> None:
        """Between the parts of a long response: count its use of the session as activity."""
        if self.ledger.active:
            await self._manager.keep_alive(self.ledger)

    async def rescue(self) -> None:
        """After an exception: store or drop what was written before it, as configured."""
        await self._manager.rescue(self.ledger)

    async def end(self) -> None:
        """Store what is left, renew the idle timeout, and close the session object."""
        if not self.ledger.touched:
            self.ledger.close()
            return
        if self._untouched_headers is not None:
            _report_late_touch(self._path, self._untouched_headers)
        await self._manager.leave(self.ledger, issuing=False)

    async def fail(self) -> None:
        """After an exception: store or drop what was written, and close the session object."""
        if not self.ledger.touched:
            self.ledger.close()
            return
        await self._manager.fail(self.ledger)


def _candidates(fields: list[bytes], name: str) -> list[tuple[str, str]]:
    """Find the ids that a request presents, well-formed and distinct, in its order."""
    values = read_cookie(fields, name)
    ids = [pair for value in values if (pair := split_id(value)) is not None]
    return ids[:MAX_CANDIDATES]


def _is_private(headers: Headers) -> bool:
    """Tell whether shared caches keep away from a response anyway."""
    return any(
        name.lower() == b"cache-control" and (b"no-store" in value or b"private" in value)
        for name, value in headers
    )


_reported_paths: set[str] = set()
_MAX_REPORTED_PATHS = 100  # paths can come from clients: what they can make us keep is bounded


def _report_late_touch(path: str, headers: Headers) -> None:
    """Warn, once per path, of a response that a cache may give to other users."""
    known = path in _reported_paths or len(_reported_paths) >= _MAX_REPORTED_PATHS
    if known or _is_private(headers):
        return
    _reported_paths.add(path)
    log.warning(
        "%s: the session was first used after the response had started, so it went without"
        " `Vary: Cookie`; use the session earlier, or send `Cache-Control: private`",
        path,
    )
