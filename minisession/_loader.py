"""`Loader`: finds the stored session that belongs to what a client presents.

Which secret is good for which record is decided in `_core.rules`; here are the store's answers,
its failures, and the log lines for what should not have been presented.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeGuard

import anyio

from minisession._core.books import State
from minisession._core.journal import Kind
from minisession._core.ledger import Ledger
from minisession._core.rules import Standing, standing
from minisession._ids import hash_secret
from minisession.abc import LoadsNowait, Record, Store
from minisession.config import SessionConfig
from minisession.errors import SessionGone, StoreCorrupt, StoreError, StoreUnavailable

log = logging.getLogger("minisession")

Answer = Record | StoreError | None

_LOADS = (Standing.CURRENT, Standing.BORROWED)


class Loader:
    """Loads sessions from one store into ledgers."""

    def __init__(self, store: Store, config: SessionConfig, clock: Callable[[], float]) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        # Asked once: to look at a protocol's methods takes longer than a load from memory.
        self._load_nowait = store.load_nowait if isinstance(store, LoadsNowait) else None

    @property
    def loads_nowait(self) -> bool:
        """Whether sessions load at their first touch, without waiting."""
        return self._load_nowait is not None

    def read_nowait(self, ledger: Ledger) -> None:
        """Load a session at its first touch, from a store that can do so without waiting."""
        now, candidates = self._clock(), ledger.candidates()
        answers = [self._try_nowait(handle, now) for handle, _ in candidates]
        self._choose(ledger, candidates, answers)
        answers.clear()  # what failed leads here by its traceback, and from here to the session

    async def read(self, ledger: Ledger) -> None:
        """Load a session before it is touched, if the request names one."""
        if ledger.state is State.UNREAD:
            now, candidates = self._clock(), ledger.candidates()
            answers: list[Answer] = []
            for handle, _ in candidates:
                answers.append(await self._try(handle, now))
                if _is_failure(answers[-1]):
                    break  # of a store that hangs, one deadline is enough
            self._choose(ledger, candidates, answers)
            answers.clear()  # as above

    def _try_nowait(self, handle: str, now: float) -> Answer:
        assert self._load_nowait is not None, "others are read before the app runs"  # noqa: S101
        try:
            return self._load_nowait(handle, now)
        except StoreError as error:
            return error

    async def _try(self, handle: str, now: float) -> Answer:
        try:
            return await self.load(handle, now)
        except StoreError as error:
            return error

    async def load(self, handle: str, now: float) -> Record | None:
        """Load one session, with a deadline.

        Raises:
            StoreCorrupt: it is there and cannot be read.
            StoreUnavailable: the store failed, or did not answer in time.
        """
        if self._load_nowait is not None:
            return self._load_nowait(handle, now)
        deadline = anyio.current_time() + self._config.save_timeout
        try:
            with anyio.CancelScope(deadline=deadline):
                return await self._store.load(handle, now)
        except TimeoutError as error:
            raise StoreUnavailable("the store gave up loading a session in time") from error
        raise StoreUnavailable(
            f"the store did not load a session within {self._config.save_timeout:g} s"
            " (SessionConfig.save_timeout)"
        )

    def _choose(
        self, ledger: Ledger, candidates: Sequence[tuple[str, str]], answers: Sequence[Answer]
    ) -> None:
        """Give the ledger the first candidate that lives; what else was presented is reported.

        A damaged record counts as an unknown id: it stays as it is, for somebody to look at.
        """
        stale, claim = None, None
        for (handle, secret), answer in zip(candidates, answers, strict=False):
            if _is_failure(answer):
                ledger.fail(answer)
                return
            if answer is None and not self._config.use_strict_mode:
                claim = claim or (handle, secret)
            try:
                verdict = _adopt(ledger, answer, secret)
            except StoreCorrupt:
                log.exception("session %s is damaged, counts as unknown and stays as it is", handle)
                continue
            if verdict in _LOADS:
                return
            if verdict is Standing.STALE:
                stale = stale or handle
            elif verdict is not None:
                log.warning("session %s: a %s secret was presented", handle, verdict.value)
        if stale is None:
            ledger.adopt_nothing(claim)
        else:
            ledger.adopt_stale(stale)

    def readopt(self, ledger: Ledger, record: Record | None) -> None:
        """Become what the store has now, with what is unsaved on top; void if it has ended."""
        assert ledger.life is not None, "only a session that was stored is read again"  # noqa: S101
        for secret in ledger.stored_secrets:
            if _adopt(ledger, record, secret) in _LOADS:
                return
        if record is None and ledger.doubt is not None and ledger.doubt.kind is Kind.CREATE:
            ledger.was_not_created()
        else:
            ledger.void(ledger.life, superseded=record is not None)


def _is_failure(answer: Answer) -> TypeGuard[StoreError]:
    """Tell whether the store failed; one damaged record is no failure of the store."""
    return isinstance(answer, StoreError) and not isinstance(answer, StoreCorrupt)


def gone(ledger: Ledger) -> SessionGone:
    """Return the error for whoever waits for a session that has ended."""
    return SessionGone(f"{ledger}: it was destroyed, revoked or replaced, or has expired")


def _adopt(ledger: Ledger, answer: Answer, secret: str | None) -> Standing | None:
    """Adopt a record if the secret is good for it; tell what the secret is worth.

    None is no secret: the session was opened by its handle, and belongs to who did so.
    """
    if isinstance(answer, StoreError):
        raise answer
    if answer is None:
        return None
    verdict = Standing.CURRENT
    if secret is not None:
        verdict = standing(answer, hash_secret(secret), ledger.arrived)
    if verdict in _LOADS:
        ledger.adopt(answer, secret, borrowed=verdict is Standing.BORROWED)
    return verdict
