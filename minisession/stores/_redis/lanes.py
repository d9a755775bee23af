"""`Lanes`: what was handed over, on its way to the servers that hold the sessions.

It owns the queue and its order: on each road one batch at a time, of each session one change at a
time, in the order in which they came. So a change that is sent again, because its slot has moved,
overtakes nothing. A stay in the queue has one of two ends, as with `Writer`: a job is *taken*, and
then it is answered, or *withdrawn*, and then nobody ever sees it again.

Each road has a task of its own, and so have the indexes of each server that are to be written anew:
a server that hangs holds up whoever needs it, and nobody else. There are at most as many as pairs
of servers.

Mutable state: `_queued`; `_taken`, those on the way, by handle; `_lines`, by handle what is queued
or on its way, in order; `_waiting`, by road and handle the first of each line that is not on its
way; `_at_work`, the roads that somebody sends batches on; `_due`, by server the indexes to be
written anew, while somebody does so. All of it is changed by tasks of one loop, between
suspensions. Whatever waits on a road has somebody at work there, who leaves when nothing does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import anyio

from minisession._loop import CallSoon
from minisession.abc import Change, Create, Destroy, Outcome, Write
from minisession.errors import SaveOutcomeUnknown, StoreError, StoreUnavailable
from minisession.stores._writer import Answer, Job, Ticket

from . import scripts, wire
from .courier import Courier
from .errors import NotSent
from .home import Home
from .keys import Keys
from .link import Command, Reply
from .nodes import Node, Nodes
from .scripts import Script

RENEWAL_TIMEOUT = 1.0  # seconds that closing waits for what nobody else waits for

MAX_BATCH = 128
"""Changes in one pipeline: some 5 ms of the server's time, in which it does nothing else."""

logger = logging.getLogger("minisession.stores")


@dataclass(eq=False, slots=True, kw_only=True)
class Parcel(Job):
    """A change on its way, and where to."""

    change: Change
    key: bytes
    """Of its session."""
    index: bytes | None
    """Where its session is to be listed, None if it names no principal."""
    road: Road = (None, None)
    """Where it waits, if it is the first of its session."""
    number: int = 0
    """Under which it is queued."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """An index that would end before its session does, and what is to be written there."""

    handle: str
    key: bytes
    """Of its session."""
    index: bytes
    principal: bytes
    now: float
    until: float


Road = tuple[Node | None, Node | None]
"""Who must answer for a change: the server of its session, and where a principal's index is told
separately, that server. None where nobody is known, which a change finds out on its road."""

Applied = tuple[Outcome, bytes | None]
"""An outcome, and the principal whose index is to be written anew."""


class Lanes:
    """Commits changes."""

    def __init__(
        self, home: Home, nodes: Nodes, courier: Courier, keys: Keys, loop: CallSoon
    ) -> None:
        self._home = home
        self._nodes = nodes
        self._courier = courier
        self._keys = keys
        self._loop = loop
        self._queued: dict[int, Parcel] = {}
        self._taken: dict[str, Parcel] = {}
        self._lines: dict[str, list[Parcel]] = {}
        self._waiting: dict[Road, dict[str, Parcel]] = {}
        self._at_work: set[Road] = set()
        self._due: dict[Node | None, dict[str, Renewal]] = {}
        self._idle = anyio.Event()
        nodes.when_moved(self._sort_anew)

    async def do(self, changes: Sequence[Change], now: float) -> list[Outcome]:
        """Hand over the changes at once, then wait for their outcomes.

        Who is cancelled while waiting leaves them here, to be stored.
        """
        if not changes:
            return []
        ticket = Ticket(self._loop, [None] * len(changes), len(changes))
        for place, change in enumerate(changes):
            self._enqueue(self._packed(change, now, ticket, place))
        await ticket.answered.wait()
        return cast("list[Outcome]", ticket.answers)

    def _packed(self, change: Change, now: float, ticket: Ticket, place: int) -> Parcel:
        key, index = self._keys.session(change.handle), None
        if isinstance(change, Create | Write) and change.principal:
            index = self._keys.index(change.principal)
        return Parcel(change, now, ticket, place, change=change, key=key, index=index)

    def _enqueue(self, job: Parcel) -> None:
        job.number = id(job.request)
        first = self._queued.setdefault(job.number, job)
        if first is not job:
            first.twice = True
            job.number = id(job)
            self._queued[job.number] = job
        line = self._lines.setdefault(job.change.handle, [])
        line.append(job)
        if line[0] is job:
            self._send_out(job)

    def withdraw(self, change: Change) -> bool:
        """Take back a change that is not on its way yet; True if it certainly never will be."""
        job = self._queued.get(id(change))
        if job is None or job.twice:
            return False
        del self._queued[id(change)]
        if self._lines[change.handle][0] is job:
            self._waiting[job.road].pop(change.handle)
        self._leave(job)
        _answer(job, StoreUnavailable("the change was withdrawn before it was stored"))
        return True

    async def drained(self) -> None:
        """Wait until nothing is queued or on its way, and a little for indexes to be renewed.

        An index that is not renewed now still lists its session for as long again as it did.
        """
        await self._until_empty(self._lines)
        with anyio.move_on_after(RENEWAL_TIMEOUT):
            await self._until_empty(self._due)

    async def _until_empty(self, what: Mapping[Any, object]) -> None:
        while what:
            self._idle = anyio.Event()
            await self._idle.wait()

    def give_up(self) -> None:
        """Answer all who still wait, when nothing will be sent or answered any more."""
        for job in self._queued.values():
            _answer(job, StoreUnavailable("the store was closed before it could store the change"))
        for job in self._taken.values():
            _answer(job, SaveOutcomeUnknown("the store was closed while it stored the change"))
        self._queued.clear()
        self._taken.clear()
        self._lines.clear()
        self._waiting.clear()

    # --- the queue -----------------------------------------------------------------------------

    def _send_out(self, job: Parcel) -> None:
        """Have a job, the first of its session, wait on its road, and see to it that it leaves."""
        road = job.road = self._road_of(job)
        self._waiting.setdefault(road, {})[job.change.handle] = job
        if road not in self._at_work and not self._home.is_closing:
            self._at_work.add(road)
            self._home.start(self._work, road)

    def _sort_anew(self) -> None:
        """Send out by their new roads those who wait, when keys have moved to other servers."""
        waiting, self._waiting = self._waiting, {}
        for jobs in waiting.values():
            for job in jobs.values():
                self._send_out(job)

    def _road_of(self, job: Parcel) -> Road:
        if job.index is None or self._nodes.one_holds_all:
            return self._node_of(job.key), None
        return self._node_of(job.key), self._node_of(job.index)

    def _node_of(self, key: bytes) -> Node | None:
        try:
            return self._nodes.node_of(key)
        except NotSent:
            return None

    def _take(self, road: Road) -> list[Parcel]:
        """Take what waits on a road: of each session at most the first change."""
        waiting = self._waiting.get(road, {})
        found = [waiting.pop(handle) for handle in list(islice(waiting, MAX_BATCH))]
        if not waiting:
            self._waiting.pop(road, None)
        for job in found:
            self._taken[job.change.handle] = job
            del self._queued[job.number]
        return found

    def _leave(self, job: Parcel) -> None:
        """Take a job out of the line of its session, and send out who is the first now."""
        handle = job.change.handle
        line = self._lines[handle]
        was_first = line[0] is job
        line.remove(job)
        if not line:
            del self._lines[handle]
        elif was_first:
            self._send_out(line[0])

    # --- on the way ----------------------------------------------------------------------------

    async def _work(self, road: Road) -> None:
        """Send batches on one road, one after the other, as long as there is something to send.

        The task begins when those who are about to commit now have done so: at the next tick.
        """
        try:
            while jobs := self._take(road):
                for job, (outcome, due) in zip(jobs, await self._apply(jobs), strict=True):
                    del self._taken[job.change.handle]
                    self._leave(job)
                    _answer(job, outcome)
                    if due is not None:
                        self._note_due(job, due)
        finally:
            self._at_work.discard(road)
        self._idle.set()

    async def _apply(self, jobs: Sequence[Parcel]) -> list[Applied]:
        """Apply the jobs; a bug there must neither end the task nor leave anybody waiting."""
        try:
            built, refused = self._built(jobs)
            if not self._nodes.one_holds_all:
                refused |= await self._index([job for job in jobs if job.change.handle in built])
            sent = {handle: built[handle] for handle in built if handle not in refused}
            replies = await self._courier.write(list(sent.values()))
            came: Mapping[str, Reply] = dict(zip(sent, replies, strict=True)) | refused
            return [_applied(job.change, came[job.change.handle]) for job in jobs]
        except Exception as error:
            logger.exception("applying %d changes failed in a way nobody thought of", len(jobs))
            message = f"the store failed in an unforeseen way ({type(error).__name__}); see the log"
            return [(SaveOutcomeUnknown(message), None) for _ in jobs]

    def _built(self, jobs: Sequence[Parcel]) -> tuple[dict[str, Command], dict[str, StoreError]]:
        """Return by handle what is to be sent, and what cannot be, because it is no text."""
        built: dict[str, Command] = {}
        refused: dict[str, StoreError] = {}
        for job in jobs:
            try:
                built[job.change.handle] = self._command(job)
            except UnicodeEncodeError:
                refused[job.change.handle] = StoreUnavailable(
                    "a principal or a key with a lone surrogate cannot be stored, it is not"
                    " Unicode text; nothing was stored"
                )
        return built, refused

    def _command(self, job: Parcel) -> Command:
        script = scripts.END if isinstance(job.change, Destroy) else scripts.CHANGE
        keys = [job.key]
        if job.index is not None and self._nodes.one_holds_all:
            keys.append(job.index)
        return _call(script, keys, wire.arguments(job.change, job.now))

    async def _index(self, jobs: Sequence[Parcel]) -> dict[str, StoreError]:
        """List sessions with their principals, before the changes that say so are sent.

        So an index lists at least the sessions that it should. Returns what was refused by handle.
        """
        theirs = [(job, job.index) for job in jobs if job.index is not None]
        entries = [
            _entry(index, job.change.handle, _indexed_until(job), job.now) for job, index in theirs
        ]
        replies = await self._courier.write(entries)
        return {
            job.change.handle: wire.unlisted(job.change.handle, _reason(reply))
            for (job, _), reply in zip(theirs, replies, strict=True)
            if isinstance(reply, StoreError)
        }

    def _note_due(self, job: Parcel, principal: bytes) -> None:
        """Have an index written anew, soon, by a task that nobody waits for."""
        index = self._keys.index(principal)
        node = self._node_of(index)
        if node not in self._due:
            self._due[node] = {}
            self._home.start(self._renew, node)
        handle, until = job.change.handle, _indexed_until(job)
        self._due[node][handle] = Renewal(handle, job.key, index, principal, job.now, until)

    async def _renew(self, node: Node | None) -> None:
        """Write indexes anew that would end before their sessions, some time from now."""
        due = self._due[node]
        try:
            while due:
                await self._renew_some([due.pop(handle) for handle in list(islice(due, MAX_BATCH))])
        finally:
            del self._due[node]
            self._idle.set()

    async def _renew_some(self, due: Sequence[Renewal]) -> None:
        replies = await self._courier.write(
            [_entry(each.index, each.handle, each.until, each.now) for each in due]
        )
        marks = [
            _call(scripts.CHANGE, [each.key], wire.mark(each.principal, each.until, each.now))
            for each, reply in zip(due, replies, strict=True)
            if not isinstance(reply, StoreError)
        ]
        replies += await self._courier.write(marks)
        for problem in {str(reply) for reply in replies if isinstance(reply, StoreError)}:
            logger.warning("the list of a principal's sessions was not renewed: %s", problem)


def _indexed_until(job: Parcel) -> float:
    change = job.change
    assert not isinstance(change, Destroy), "it ends a session"  # noqa: S101
    return wire.index_until(change.expires, job.now)


def _entry(index: bytes, handle: str, until: float, now: float) -> Command:
    words = [handle.encode(errors="surrogatepass"), *map(wire.time_of, (until, now))]
    return _call(scripts.INDEX, [index], words)


def _call(script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Command:
    return Command(keys[0], (b"EVALSHA", script.name, b"%d" % len(keys), *keys, *arguments))


def _reason(error: StoreError) -> str:
    """Return what an index answered, without what is no doubt: its session was not sent."""
    text = str(error)
    for words in ("; it is not known what was stored", "; nothing was stored"):
        text = text.replace(words, "")
    return text


def _applied(change: Change, reply: Reply) -> Applied:
    return (reply, None) if isinstance(reply, StoreError) else wire.outcome_of(change, reply)


def _answer(job: Parcel, answer: Answer) -> None:
    if job.answer(answer):
        job.ticket.answered.set()
