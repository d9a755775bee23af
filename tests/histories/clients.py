"""Clients of one session, and how they note what they see.

A program is a list of steps, which Hypothesis or a seed may draw. A client runs it in one visit,
as a request or a job would, and notes every step before and after it. Every value that is written
is written once, so that whoever reads it tells who wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import anyio

from minisession import (
    Conflict,
    SaveOutcomeUnknown,
    Session,
    SessionGone,
    SessionManager,
    StoreUnavailable,
)
from minisession._ids import hash_secret, split_id

from .log import Event

Step = tuple[Any, ...]

STEPS: list[Step] = [
    ("pause",),
    ("put", "a"),
    ("put", "b"),
    ("save",),
    ("update", "a"),
    ("update", "b"),
    ("drop", "a"),
    ("look",),
    ("refresh",),
    ("regenerate", False),
    ("clear",),
    ("regenerate", True),
    ("cancel", 0),
    ("cancel", 1),
    ("destroy",),
    ("revoke",),
]
"""All steps, the simple ones first: Hypothesis shrinks towards them."""

WEIGHTS = [8, 6, 6, 5, 5, 4, 3, 3, 3, 3, 2, 2, 1, 1, 1, 1]
"""How often each is drawn by chance: what ends a session comes seldom, so that much comes first."""

BY = ["id", "handle", "older id"]


@dataclass(frozen=True, slots=True)
class Client:
    """What one client does: through which manager, opening the session by what."""

    steps: tuple[Step, ...]
    manager: int = 0
    by: str = "id"


def any_client(random: Random, managers: int) -> Client:
    """Return a client by chance, where there is no Hypothesis."""
    steps = random.choices(STEPS, WEIGHTS, k=random.randint(1, 7))
    return Client(tuple(steps), random.randrange(managers), random.choice(BY))


def label_of(id: str) -> str:
    """Return a name for an id that may be shown, the same in every process."""
    parts = split_id(id)
    assert parts is not None
    return hash_secret(parts[1]).hex()[:6]


@dataclass
class Place:
    """One session, its clients, and what they have noted.

    Attributes:
        managers: all of one store; each stands for a process.
        ids: of the session, as they became known.
        now: tells the order of events.
        note: takes each event at once.
    """

    managers: list[SessionManager]
    handle: str
    ids: list[str]
    now: Callable[[], float]
    note: Callable[[Event], None]
    numbers: Callable[[], int] = field(default_factory=lambda: count(1).__next__)
    scopes: dict[int, anyio.CancelScope] = field(default_factory=dict)

    async def run(self, clients: Sequence[Client]) -> None:
        """Run all clients at the same time, beside a reader."""
        self.scopes = {number: anyio.CancelScope() for number in range(len(clients))}
        async with anyio.create_task_group() as tasks:
            for number, client in enumerate(clients):
                tasks.start_soon(self._run_one, number, client)
            tasks.start_soon(self.read, 2)

    async def _run_one(self, number: int, client: Client) -> None:
        with self.scopes[number]:
            await Visit(self, client).run()

    async def read(self, times: int) -> None:
        """Load the session so many times, and nothing else."""
        for turn in range(times):
            await Visit(self, Client((), turn % len(self.managers), "handle")).run()

    def id(self, by: str) -> str | None:
        """Return an id to open the session by, None for its handle."""
        if by == "handle":
            return None
        return self.ids[-1] if by == "id" else self.ids[max(0, len(self.ids) - 2)]


_ANSWERS: dict[type[Exception], str] = {
    SessionGone: "gone",
    StoreUnavailable: "refused",
    SaveOutcomeUnknown: "unknown",
}


class Visit:
    """One client at work on one session object."""

    def __init__(self, place: Place, client: Client) -> None:
        self.place = place
        self.client = client
        self.manager = place.managers[client.manager % len(place.managers)]
        self.number = place.numbers()
        self.tokens = count(1)
        self.view: dict[str, str] = {}  # what the session must show
        self.pending_id: str | None = None

    def note(self, name: str, *arguments: Any) -> None:
        self.place.note((self.place.now(), self.number, name, arguments))

    async def run(self) -> None:
        """Open the session, take every step, and leave."""
        id = self.place.id(self.client.by)
        self.note("open", None if id is None else label_of(id))
        try:
            async with self._opened(id) as session:
                if self._found(session):
                    await self._use(session)
                last_id = session.id
                self.note("leave")
        except tuple(_ANSWERS) as error:
            self.note("answer", _answer(error))
        except BaseException:  # cancelled or failed: what was begun has perhaps happened
            self.note("left")
            raise
        else:
            self._done(last_id)

    def _opened(self, id: str | None) -> AbstractAsyncContextManager[Session]:
        if id is None:
            return self.manager.open_handle(self.place.handle)
        return self.manager.open(id)

    def _found(self, session: Session) -> bool:
        """Note what was found; tell whether it is this session, alive or not."""
        self.view = session.all()
        if session.is_started:
            self.note("answer", "found", dict(self.view))
        else:
            self.note("answer", "nothing" if session.handle is None else "stale")
        return session.handle is not None

    def _done(self, id: str | None, *rest: Any) -> None:
        label = None if id is None else label_of(id)
        self.note("answer", "done", label, *rest)
        if id is not None and id not in self.place.ids:
            self.place.ids.append(id)

    async def _use(self, session: Session) -> None:
        for name, *arguments in self.client.steps:
            try:
                waiting = getattr(self, f"_{name}")(session, *arguments)
            except SaveOutcomeUnknown:  # no write is possible
                continue
            if waiting is not None:
                await waiting
            if session.handle is None:  # destroyed: what follows would be another session
                break

    # --- steps that write

    def _token(self) -> str:
        return f"{self.number}-{next(self.tokens)}"

    def _put(self, session: Session, key: str) -> None:
        value = self._token()
        session[key] = self.view[key] = value
        self.note("put", key, value)

    def _drop(self, session: Session, key: str) -> None:
        if key in session:
            del session[key]
            del self.view[key]
            self.note("drop", key)

    def _clear(self, session: Session) -> None:
        session.clear()
        self.view.clear()
        self.note("clear")

    def _regenerate(self, session: Session, loads: bool) -> None:
        if session.id is None:
            return
        session.regenerate(delete_old_session=not loads)
        self.note("regenerate", label_of(session.id), loads)

    def _destroy(self, session: Session) -> None:
        ends = session.is_started
        session.destroy()
        self.note("destroy", ends)

    def _look(self, session: Session) -> None:
        assert session.all() == self.view

    # --- steps that wait

    async def _pause(self, session: Session) -> None:
        self.note("pause")
        await anyio.lowlevel.checkpoint()

    async def _save(self, session: Session) -> None:
        self.note("save")
        try:
            await session.save()
        except tuple(_ANSWERS) as error:
            self.note("answer", _answer(error))
        else:
            self._done(session.id)

    async def _update(self, session: Session, key: str) -> None:
        token, before = self._token(), ""

        def append(value: str) -> str:
            nonlocal before
            before = value
            return f"{value}.{token}"

        self.note("update", key, token)
        try:
            value = await session.update(key, append, default="")
        except tuple(_ANSWERS) as error:
            self.note("answer", _answer(error))
        else:
            assert value == f"{before}.{token}"
            self.view[key] = value
            self._done(session.id, before)

    async def _refresh(self, session: Session) -> None:
        self.note("refresh")
        try:
            await session.refresh()
        except tuple(_ANSWERS) as error:
            self.note("answer", _answer(error))
        else:
            self.view = session.all()
            self.note("answer", "found", dict(self.view))

    async def _revoke(self, session: Session) -> None:
        self.note("pause")
        number = self.place.numbers()
        self.place.note((self.place.now(), number, "revoke", ()))
        try:
            lived = await self.manager.revoke(self.place.handle)
            answer: tuple[Any, ...] = ("done", lived)
        except (StoreUnavailable, SaveOutcomeUnknown) as error:
            answer = (_answer(error),)
        self.place.note((self.place.now(), number, "answer", answer))

    def _cancel(self, session: Session, number: int) -> None:
        if number in self.place.scopes:
            self.place.scopes[number].cancel()


def _answer(error: Exception) -> str:
    assert not isinstance(error, Conflict)
    return next(answer for kind, answer in _ANSWERS.items() if isinstance(error, kind))
