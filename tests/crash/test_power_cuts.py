"""The power fails at any moment: the default mode loses nothing that was acknowledged (P4).

A server is recorded while visitors browse: every write, sync and change of a name on its disk, and
every byte of its answers. Then the power is cut between any two of these, again and again, each
time with another selection of what had not been synced (disk.py); the store is opened on what is
left, and must hold what the answers sent until then have promised. The same search in modes that
promise less must find what they lose, or it would prove nothing.
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from minisession.errors import StoreError
from tests.crash.app import NOTHING, PAGES, State
from tests.crash.disk import NEEDS, Disk, Note, Recorder
from tests.crash.nursery import Order
from tests.crash.persistent import FILES, SQLITE, Persistent, every_store_on_disk
from tests.crash.servers import nursery
from tests.crash.visitor import Lost, Visitor, handle_of
from tests.crash.world import World, look
from tests.effort import Tally, effort

pytestmark = [pytest.mark.anyio, pytest.mark.slow, NEEDS]

CUTS = {  # on each of the two backends
    "sqlite": effort(500, soak=5_000),
    "files": effort(80, soak=5_000),  # each takes longer: the cut of a folder is many files
}
CONTROL_CUTS = 60
VISITORS = 8
PAGES_EACH = 20  # before and after a restart

LINE = rb"[^\r\n]*\r\n"
ANSWER = re.compile(
    rb"HTTP/1\.1 200 (?:%b)+?x-path: /([^/]+)/%b(?:[^\r\n]+\r\n)*\r\n" % (LINE, LINE)
)

Opened = dict[str, Mapping[str, Any]]
"""Which ids open a session, and what they show."""


@dataclass(frozen=True)
class Promise:
    """What one answer says is stored: the visitor's session, and under which id."""

    page: str
    state: State = NOTHING
    id: str | None = None

    @property
    def opened(self) -> Opened:
        """What the ids of the visitor must open, all others being dead."""
        return {} if self.id is None else {self.id: self.state.data}


@dataclass(frozen=True)
class Recording:
    """What a server did, and what each visitor's answers promised, one after the other."""

    folder: Path
    notes: Sequence[Note]
    promised: dict[str, list[Promise]]

    def files(self) -> dict[str, bytes]:
        """Return the files as the notes tell, in the end."""
        disk = Disk(self.folder)
        for note in self.notes:
            disk.play(note)
        return disk.files()


async def record(
    kind: Persistent, scratch: Path, backend: str, rng: random.Random, synchronous: str = ""
) -> Recording:
    """Record visitors browsing, a kill -9 while nobody asks for anything, and the same again."""
    folder = scratch / "store"
    folder.mkdir()
    recorder = Recorder(folder, scratch)
    order = Order(
        kind.url(folder), busy=synchronous != "NORMAL", synchronous=synchronous, die="call"
    )
    visitors = [Visitor(f"visitor-{n}") for n in range(VISITORS)]
    promised = {visitor.name: [Promise("")] for visitor in visitors}

    async def browse(visitor: Visitor, port: int) -> None:
        def note(page: str) -> None:
            promised[visitor.name].append(Promise(page, visitor.state, visitor.id))

        visitor.answered = note
        await visitor.browse(port, iter(rng.choices(list(PAGES), k=PAGES_EACH)))

    async with nursery(backend, kind.module, **recorder.environment) as servers:
        for is_last in (False, True):
            port = await servers.serve(order)
            async with anyio.create_task_group() as tasks:
                for visitor in visitors:
                    tasks.start_soon(browse, visitor, port)
            if is_last:
                await servers.stop()
            else:
                await _make_die(port)
                await servers.kill()
    return Recording(folder, recorder.notes(), promised)


async def _make_die(port: int) -> None:
    """Have a server kill itself. A kill from here could come between a call and its note."""
    with pytest.raises(Lost):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await Visitor("nobody").ask(stream, "look", "?1")


def what_became_of(recording: Recording, acknowledged: Counter[str], world: World) -> str:
    """Compare what a visitor must find after a cut with what there is, in one word."""
    if world.damage:
        return "corrupt"
    known: set[str] = set()
    for name, promises in recording.promised.items():
        ids = {promise.id for promise in promises if promise.id is not None}
        opened = {id: data for id in ids if (data := world.opened(id)) is not None}
        if opened not in [promise.opened for promise in promises]:
            return "mixed"
        if opened not in _possible(promises, acknowledged[name]):
            return "lost"
        known.update(map(handle_of, opened))
    return "kept" if known == world.data.keys() else "revived"


def _possible(promises: list[Promise], acknowledged: int) -> list[Opened]:
    """Return what may be stored while the next request has not been answered."""
    last, *coming = promises[acknowledged : acknowledged + 2]
    possible = [last.opened, *(promise.opened for promise in coming)]
    if any(promise.page == "goodbye" for promise in coming):
        possible.append({})  # the old session has ended, the new one has not begun
    return possible


async def after_cuts(
    kind: Persistent, recording: Recording, cuts: int, rng: random.Random, folder: Path
) -> Counter[str]:
    """Cut the power again and again; count what became of the promises."""
    found: Counter[str] = Counter()
    disk, acknowledged, played = Disk(recording.folder), Counter[str](), 0
    for at in sorted(rng.choices(range(len(recording.notes) + 1), k=cuts)):
        for note in recording.notes[played:at]:
            disk.play(note)
        played = at
        acknowledged = Counter(
            name.decode() for sent in disk.sent.values() for name in ANSWER.findall(sent)
        )
        disk.cut(rng, folder)
        try:
            world = await look(kind, folder)
        except (StoreError, sqlite3.DatabaseError):
            found["corrupt"] += 1
        else:
            found[what_became_of(recording, acknowledged, world)] += 1
    return found


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the files that are really there."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@every_store_on_disk
async def test_a_power_cut_loses_nothing_acknowledged_and_revives_nothing(
    kind: Persistent, scratch: Path, anyio_backend: str, tally: Tally
) -> None:
    rng = random.Random(f"power cuts of {kind.name} on {anyio_backend}")
    cuts = CUTS[kind.name]

    recording = await record(kind, scratch, anyio_backend, rng)
    found = await after_cuts(kind, recording, cuts, rng, scratch / "left")

    tally("power cuts", cuts)
    assert found == {"kept": cuts}
    assert recording.files() == files_in(recording.folder)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("kind", "synchronous", "must_show", "may_show"),
    [
        (SQLITE, "NORMAL", {"lost"}, {"kept", "lost"}),
        (SQLITE, "OFF", {"lost", "corrupt"}, {"kept", "lost", "corrupt", "mixed", "revived"}),
        (FILES, "only files", {"lost"}, {"kept", "lost", "mixed", "revived"}),
        (FILES, "only folders", {"corrupt"}, {"kept", "corrupt"}),
    ],
    ids=["NORMAL", "OFF", "only files", "only folders"],
)
async def test_modes_that_promise_less_are_seen_to_lose(
    kind: Persistent,
    synchronous: str,
    must_show: set[str],
    may_show: set[str],
    scratch: Path,
    anyio_backend: str,
) -> None:
    rng = random.Random(f"power cuts with {synchronous}")

    recording = await record(kind, scratch, anyio_backend, rng, synchronous)
    found = await after_cuts(kind, recording, CONTROL_CUTS, rng, scratch / "left")

    assert must_show <= found.keys() <= may_show
