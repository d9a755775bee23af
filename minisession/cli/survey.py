"""Looking at a store from outside: counting what is there, purging it, and reading all of it.

It works on any `Store` by what each of them can do, and on one that `Inspects` it knows more. What
is printed, and what a URL means, is decided in store.py.
"""

from __future__ import annotations

import string
from bisect import bisect_left
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import anyio

from minisession._codec import decode_many
from minisession._manager import SWEEP_BATCH, SWEEP_PAUSE
from minisession.abc import Inspection, Inspects, Store, Summary
from minisession.bench import Progress
from minisession.errors import StoreCorrupt, StoreError

SCAN_STEP: Final = 1000  # sessions in one list

# Of the first characters of handles, in the order in which a scan meets them.
_ALPHABET: Final = sorted(string.ascii_letters + string.digits + "-_")


@dataclass(frozen=True, slots=True)
class Stock:
    """What there is. `oldest` and `newest` are when a living session was created."""

    living: int
    principals: int
    oldest: float | None
    newest: float | None
    inspection: Inspection | None


@dataclass(frozen=True, slots=True)
class Damage:
    """One find. `session` is a handle, None where it concerns more than one session."""

    session: str | None
    what: str


@dataclass(slots=True)
class Findings:
    """What reading everything has shown. Damage is kept once, however often it is met."""

    read: int = 0
    _damage: dict[str, str | None] = field(default_factory=dict)
    """What was found, and of which session, as far as that is known."""

    @property
    def damage(self) -> list[Damage]:
        """What is damaged, in the order in which it was found."""
        return [Damage(session, what) for what, session in self._damage.items()]

    def add(self, session: str | None, what: str) -> None:
        """Note a find."""
        self._damage[what] = session or self._damage.get(what)


async def take_stock(store: Store, now: float, progress: Progress) -> Stock:
    """Count the living sessions, and ask the store what else it knows.

    Raises:
        StoreError: it cannot be read.
    """
    inspection = await store.inspect(now) if isinstance(store, Inspects) else None
    living, principals, created = 0, set[str](), list[float]()
    async for listed in _in_steps(store, now, progress, "counting sessions"):
        living += len(listed)
        principals.update(each.principal for each in listed if each.principal is not None)
        times = [*created, *(each.created for each in listed)]
        created = [min(times), max(times)]
    oldest, newest = created or (None, None)
    return Stock(living, len(principals), oldest, newest, inspection)


async def purge(store: Store, now: float, progress: Progress) -> int:
    """Remove what has expired, in batches like the sweeper's; return how many it was.

    Raises:
        StoreError: the store failed; what was removed before stays removed.
    """
    inspection = await store.inspect(now) if isinstance(store, Inspects) else None
    expected = inspection.expired if inspection else None
    progress.begin("purging expired sessions", expected or 1)
    removed = 0
    while batch := await store.purge(now, SWEEP_BATCH):
        removed += batch
        if expected:
            progress.update(min(removed, expected))  # others may purge, too, and more may expire
        await anyio.sleep(SWEEP_PAUSE)
    progress.clear()
    return removed


async def examine(store: Store, now: float, progress: Progress) -> Findings:
    """Have the store look at its place, and read every living session to its last value.

    Raises:
        StoreError: it cannot be read, and no damage was found that could be told.
    """
    findings = Findings()
    for look in (_look_at_the_place, _read_all):
        try:
            await look(store, now, progress, findings)
        except StoreError as error:
            progress.clear()
            if not isinstance(error, StoreCorrupt) and not findings.damage:
                raise
            findings.add(None, f"not everything could be read: {error}")
    return findings


async def _look_at_the_place(store: Store, _: float, __: Progress, findings: Findings) -> None:
    if isinstance(store, Inspects):
        for what in await store.verify():
            findings.add(None, what)


async def _read_all(store: Store, now: float, progress: Progress, findings: Findings) -> None:
    async for listed in _in_steps(store, now, progress, "reading sessions"):
        outages: list[StoreError] = []
        async with anyio.create_task_group() as tasks:
            for each in listed:
                tasks.start_soon(_read, store, each.handle, now, findings, outages)
        if outages:
            raise outages[0]


async def _read(
    store: Store, handle: str, now: float, findings: Findings, outages: list[StoreError]
) -> None:
    """Read one session; one that has ended since it was listed is as good as sound.

    An outage says nothing about the session. It goes to `outages`, as tasks fail in groups.
    """
    try:
        record = await store.load(handle, now)
        decode_many(record.items if record else {})
    except StoreCorrupt as error:
        what = str(error)
        findings.add(handle, what if handle in what else f"session {handle}: {what}")
    except StoreError as error:
        outages.append(error)
        return
    findings.read += 1


async def _in_steps(
    store: Store, now: float, progress: Progress, what: str
) -> AsyncIterator[list[Summary]]:
    """List the living sessions step by step.

    Handles are random, so where one stands in the alphabet is how much of the scan is done.
    """
    progress.begin(what, len(_ALPHABET))
    after = ""
    while listed := await store.scan(now, after=after, limit=SCAN_STEP):
        yield listed
        after = listed[-1].handle
        progress.update(bisect_left(_ALPHABET, after[:1]))
    progress.clear()
