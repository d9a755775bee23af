"""One history: a program, run in one schedule against one store, and judged.

The schedule is a list of choices, so that Hypothesis draws it beside the program, and shrinks both.
Two managers stand for two processes; what they share is the store. Time stands still.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from random import Random

from hypothesis import strategies as st

from minisession import SessionConfig, SessionManager
from minisession._ids import split_id
from minisession.abc import Store
from minisession.testing import Schedule, replay
from tests.remote_store import Fault, RemoteStore

from .checker import Verdict, judge
from .clients import BY, STEPS, Client, Place, label_of
from .log import Event, history
from .model import Stored

NOW = 1_800_000_000.0  # seconds since the epoch
BEGUN = {"a": "0"}
GRACE = 30.0  # seconds, which never pass here


@dataclass(frozen=True, slots=True)
class Program:
    """What is run.

    Attributes:
        clients: all at the same time.
        faults: of the network between each manager and the store, commit by commit.
        graceful: whether late writes may count after a regenerate.
    """

    clients: tuple[Client, ...]
    faults: tuple[tuple[Fault, ...], ...] = ()
    graceful: bool = True

    @property
    def size(self) -> int:
        """The number of steps."""
        return sum(len(client.steps) for client in self.clients)


_steps = st.lists(st.sampled_from(STEPS), max_size=6).map(tuple)
_clients = st.builds(Client, _steps, st.integers(0, 1), st.sampled_from(BY))
_faults = st.lists(st.sampled_from(Fault), max_size=4).map(tuple)


def programs(*, failing: bool = False) -> st.SearchStrategy[Program]:
    """Programs of up to four clients; with `failing`, on a network that fails."""
    return st.builds(
        Program,
        st.lists(_clients, min_size=1, max_size=4).map(tuple),
        st.tuples(_faults, _faults) if failing else st.just(()),
        st.booleans(),
    )


schedules = st.tuples(st.lists(st.integers(0, 5), max_size=40), st.integers(0, 1 << 16))
"""The first choices of a schedule, and the seed of the rest; 0 goes on first come, first served."""


def as_schedule(choices: Sequence[int], seed: int) -> Schedule:
    """Return the schedule of a drawn value."""
    first, rest = iter(choices), Random(seed)
    return Schedule(lambda n: next(first, rest.randrange(n) if seed else 0) % n)


def verdict_of(
    program: Program, connect: Callable[[], Store], *, backend: str, schedule: Schedule
) -> Verdict[Stored]:
    """Run a program against what `connect` returns to each manager, and judge what was seen."""
    events: list[Event] = []
    labels: list[str] = []

    async def scenario() -> None:
        labels.append(await _run(program, connect, events.append))

    replay(scenario, schedule, backend=backend)
    start = Stored.begun(labels[0], BEGUN, graceful=program.graceful)
    return judge(history(events, reliable=not any(program.faults)), start)


async def _run(
    program: Program, connect: Callable[[], Store], note: Callable[[Event], None]
) -> str:
    """Run a program on a new session; return the label of its first id."""
    config = SessionConfig(rotation_grace=GRACE if program.graceful else 0)
    stores = [connect(), connect()]
    managers = [SessionManager(store, config, clock=lambda: NOW) for store in stores]
    async with AsyncExitStack() as stack:
        for manager in managers:
            await stack.enter_async_context(manager)
        id = await begun(managers[0])
        parts = split_id(id)
        assert parts is not None
        place = Place(managers, parts[0], [id], count().__next__, note)
        _fail(stores, program.faults)
        await place.run(program.clients)
        _fail(stores, [()] * len(stores))
        await place.read(1)  # or a lost update would go unnoticed
    return label_of(id)


def _fail(stores: Sequence[Store], faults: Sequence[Sequence[Fault]]) -> None:
    for store, some in zip(stores, faults, strict=False):
        assert isinstance(store, RemoteStore) or not some
        if isinstance(store, RemoteStore):
            store.faults = list(some)


async def begun(sessions: SessionManager) -> str:
    """Start a session and return its id."""
    async with sessions.open() as session:
        session.update(BEGUN)
        await session.save()
        assert session.id is not None
        return session.id
