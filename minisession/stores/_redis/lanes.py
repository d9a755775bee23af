"""`Lanes`: what was handed over, on its way to the servers that hold the sessions.

It owns the queue and its order: to each server one batch at a time, of each session one change at a
time, in the order in which they came. So a change that is sent again, because its slot has moved,
overtakes nothing. A stay in the queue has one of two ends, as with `Writer`: a job is *taken*, and
then it is answered, or *withdrawn*, and then nobody ever sees it again.

Mutable state: `_queued`; `_taken`, those on the way, by handle; `_blocked`, the handles of which
more is queued; `_at_work`, the servers that somebody sends batches to. All of it is changed by
tasks of one loop, between suspensions.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

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
        self._blocked: set[str] = set()
        self._at_work: set[Node | None] = set()
        self._idle = anyio.Event()

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
        first = self._queued.setdefault(id(job.request), job)
        if first is not job:
            first.twice = True
            self._queued[id(job)] = job
        self._send_out(job)

    def withdraw(self, change: Change) -> bool:
        """Take back a change that is not on its way yet; True if it certainly never will be."""
        job = self._queued.get(id(change))
        if job is None or job.twice:
            return False
        del self._queued[id(change)]
        _answer(job, StoreUnavailable("the change was withdrawn before it was stored"))
        return True

    async def drained(self) -> None:
        """Wait until nothing is queued or on its way."""
        while self._queued or self._taken:
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

    # --- the queue -----------------------------------------------------------------------------

    def _send_out(self, job: Parcel) -> None:
        """See to it that somebody takes a job."""
        if job.change.handle in self._taken:
            self._blocked.add(job.change.handle)
            return
        node = self._node_of(job)
        if node not in self._at_work and not self._home.is_closing:
            self._at_work.add(node)
            self._home.start(self._work, node)

    def _node_of(self, job: Parcel) -> Node | None:
        try:
            return self._nodes.node_of(job.key)
        except NotSent:
            return None  # what nobody serves has a lane as well, in which it is refused

    def _take(self, node: Node | None) -> list[Parcel]:
        """Take what is queued for a server: of each session one change, the first."""
        found: dict[int, Parcel] = {}
        for key, job in self._queued.items():
            if len(found) == MAX_BATCH:
                break
            if job.change.handle in self._taken:
                self._blocked.add(job.change.handle)
            elif self._node_of(job) is node:
                self._taken[job.change.handle] = job
                found[key] = job
        for key in found:
            del self._queued[key]
        return list(found.values())

    def _let_through(self, handles: Collection[str]) -> None:
        """Send out what waited for an earlier change of its session."""
        freed = self._blocked.intersection(handles)
        if freed:
            self._blocked -= freed
            self._send_out_all({handle for handle in freed if handle not in self._taken})

    def _send_out_all(self, handles: Collection[str] | None = None) -> None:
        for job in list(self._queued.values()):
            if handles is None or job.change.handle in handles:
                self._send_out(job)

    # --- on the way ----------------------------------------------------------------------------

    async def _work(self, node: Node | None) -> None:
        """Send batches to one server, one after the other, as long as there is something to send.

        The task begins when those who are about to commit now have done so: at the next tick.
        """
        try:
            while jobs := self._take(node):
                applied = await self._apply(jobs)
                for job, (outcome, _) in zip(jobs, applied, strict=True):
                    del self._taken[job.change.handle]
                    _answer(job, outcome)
                self._let_through({job.change.handle for job in jobs})
                await self._renew(jobs, applied)
        finally:
            self._at_work.discard(node)
        self._send_out_all()  # what is queued may belong to another server by now
        if not self._queued and not self._taken:
            self._idle.set()

    async def _apply(self, jobs: Sequence[Parcel]) -> list[Applied]:
        """Apply the jobs; a bug there must neither end the task nor leave anybody waiting."""
        try:
            built, refused = self._built(jobs)
            if not self._nodes.one_holds_all:
                refused |= await self._index([job for job in jobs if job.change.handle in built])
            sent = {handle: built[handle] for handle in built if handle not in refused}
            replies = await self._courier.write(list(sent.values()))
        except Exception as error:
            logger.exception("applying %d changes failed in a way nobody thought of", len(jobs))
            message = f"the store failed in an unforeseen way ({type(error).__name__}); see the log"
            return [(SaveOutcomeUnknown(message), None) for _ in jobs]
        came: Mapping[str, Reply] = dict(zip(sent, replies, strict=True)) | refused
        return [_applied(job.change, came[job.change.handle]) for job in jobs]

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
        replies = await self._courier.write([self._entry(job, index) for job, index in theirs])
        return {
            job.change.handle: wire.unlisted(job.change.handle, _reason(reply))
            for (job, _), reply in zip(theirs, replies, strict=True)
            if isinstance(reply, StoreError)
        }

    async def _renew(self, jobs: Sequence[Parcel], applied: Sequence[Applied]) -> None:
        """Write indexes anew that would end before their sessions, some time from now."""
        due = [(job, name) for job, (_, name) in zip(jobs, applied, strict=True) if name]
        if not due:
            return
        replies = await self._courier.write(
            [self._entry(job, self._keys.index(name)) for job, name in due]
        )
        marks = [
            self._mark(job, name)
            for (job, name), reply in zip(due, replies, strict=True)
            if not isinstance(reply, StoreError)
        ]
        replies += await self._courier.write(marks)
        for problem in {str(reply) for reply in replies if isinstance(reply, StoreError)}:
            logger.warning("the list of a principal's sessions was not renewed: %s", problem)

    def _entry(self, job: Parcel, index: bytes) -> Command:
        until = repr(self._indexed_until(job)).encode()
        words = [
            job.change.handle.encode(errors="surrogatepass"),
            until,
            repr(float(job.now)).encode(),
        ]
        return _call(scripts.INDEX, [index], words)

    def _mark(self, job: Parcel, principal: bytes) -> Command:
        words = wire.mark(principal, self._indexed_until(job), job.now)
        return _call(scripts.CHANGE, [job.key], words)

    def _indexed_until(self, job: Parcel) -> float:
        change = job.change
        assert not isinstance(change, Destroy), "it ends a session"  # noqa: S101
        return wire.index_until(change.expires, job.now)


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
