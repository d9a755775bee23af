"""A crash between any two steps of a login, a change of id, a logout, and of their responses (P7).

A server dies at the first step of a request, another one at the second, and so on until one gets
through: steps of Python, and calls of the system that change a file or send something, before they
begin and halfway. What the client has got decides: with a whole head the new state must be there,
under the cookie that came; without, the old one or the new one. Never both, and never neither.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import anyio
import pytest

from tests.crash.disk import NEEDS, Recorder
from tests.crash.nursery import Die, Order
from tests.crash.persistent import Persistent, every_store_on_disk
from tests.crash.servers import Nursery, nursery
from tests.crash.visitor import Lost, Town, Visitor
from tests.crash.world import look
from tests.effort import Tally, effort

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STRIDES: dict[Die, int] = {  # from one death to the next
    "fine step": effort(400, soak=1),
    "step": effort(8, soak=1),
    "call": effort(2, soak=1),  # odd ones on one backend, even ones on the other
    "torn call": effort(4, soak=1),
}
RARER = {"sqlite": 1, "files": effort(4, soak=1)}  # times: each change of a file is more calls
REQUESTS = {
    "a first login": ([], "login"),
    "a login": (["put"], "login"),
    "another login": (["put", "login"], "saved_login"),
    "a logout": (["put", "login"], "logout"),
    "a logout with a notice": (["put", "login"], "goodbye"),
    "a counter": (["login"], "count"),
}


@dataclass(frozen=True)
class Scene:
    """Where a request is sent to, again and again: a store and the visitor who knows it."""

    kind: Persistent
    folder: Path
    visitor: Visitor


async def set_up(kind: Persistent, scratch: Path, servers: Nursery, pages: list[str]) -> Scene:
    """Make a store, and visit some pages."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    visitor = Visitor("visitor")
    port = await servers.serve(Order(kind.url(folder)))
    await visitor.browse(port, iter(pages))
    await servers.stop()
    return Scene(kind, folder, visitor)


async def survives(scene: Scene, servers: Nursery, page: str, die: Die, n: int) -> bool:
    """Ask for a page of a server that dies at its n-th step; look at what is left.

    Returns whether it did not come to that: another request was answered as well.
    """
    folder = scene.folder.with_name("left")
    shutil.copytree(scene.folder, folder)
    town = Town([deepcopy(scene.visitor)])
    port = await servers.serve(Order(scene.kind.url(folder), die=die))
    try:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await town.visitors[0].ask(stream, page, f"?{n}")
            await town.visitors[0].ask(stream, "look")
        has_survived = True
    except Lost:
        has_survived = False
    await servers.kill()

    world = await look(scene.kind, folder)
    assert world.damage == []
    town.require(world)
    assert len(world.data) <= 1, "both the old session and the new one live"
    shutil.rmtree(folder)
    return has_survived


@pytest.mark.parametrize(
    "die",
    [
        "fine step",
        "step",
        pytest.param("call", marks=NEEDS),
        pytest.param("torn call", marks=NEEDS),
    ],
)
@every_store_on_disk
async def test_a_crash_leaves_the_old_state_or_the_new_one(
    kind: Persistent, die: Die, scratch: Path, anyio_backend: str, tally: Tally
) -> None:
    rng = random.Random(f"{die} of {kind.name} on {anyio_backend}")
    stride = STRIDES[die] * (RARER[kind.name] if die in ("step", "call") else 1)
    deaths = 0

    async with nursery(anyio_backend, kind.module, **_environment(die, scratch)) as servers:
        for before, page in REQUESTS.values():
            scene = await set_up(kind, scratch, servers, before)
            for n in count(_first(rng, stride, anyio_backend), stride):
                if await survives(scene, servers, page, die, n):
                    break
                deaths += 1

    tally("kills", deaths)
    assert deaths > len(REQUESTS)


def _first(rng: random.Random, stride: int, backend: str) -> int:
    """Draw where to begin, so that the two backends never begin at the same step."""
    half = stride // 2
    if half == 0:
        return 1
    return rng.randint(1, half) if backend == "asyncio" else rng.randint(half + 1, stride)


def _environment(die: Die, scratch: Path) -> dict[str, str]:
    return {} if die.endswith("step") else Recorder(scratch, scratch).environment
