"""Kill -9 at any moment, under load: nothing that was acknowledged is missing (P4).

Visitors log in and out, count, put and drop through the bundled server, until it is killed. Then
every record can be read, and the store holds for each visitor exactly what the answers said, or
that and the one request that got no answer: wholly. No id that was replaced or ended opens
anything, and no session lives that nobody began. The next server goes on with the same files.
"""

from __future__ import annotations

import random
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from minisession import SessionManager
from tests.crash.app import PAGES
from tests.crash.nursery import Order
from tests.crash.persistent import Persistent, every_persistent_store
from tests.crash.rounds import WEIGHTS, Round
from tests.crash.servers import nursery
from tests.crash.visitor import Town, Visitor
from tests.crash.world import look
from tests.effort import Tally, effort

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROUNDS = {
    "sqlite": effort(60, soak=600),
    "files": effort(8, soak=600),
    "redis": effort(12, soak=600),
}
VISITORS = 8


@every_persistent_store
async def test_kill_9_under_load_loses_nothing_acknowledged_and_revives_nothing(
    kind: Persistent, scratch: Path, anyio_backend: str, tally: Tally
) -> None:
    rng = random.Random(f"kills of {kind.name} on {anyio_backend}")
    rounds = ROUNDS[kind.name]
    folder, copy = scratch / "store", scratch / "copy"
    folder.mkdir()
    town = Town([Visitor(f"visitor-{n}") for n in range(VISITORS)])
    order = Order(kind.url(folder), busy=True)

    async with nursery(anyio_backend, kind.module) as servers:
        for _ in range(rounds):
            async with AsyncExitStack() as bystander:
                is_watched = rng.random() < 0.5
                if is_watched:  # another process has the store open, before and after the kill
                    await bystander.enter_async_context(SessionManager(kind.url(folder)))
                if rng.random() < 0.15:
                    await servers.serve_unseen(order, rng.uniform(0.0, 0.1))
                else:
                    await Round(town, rng).run(await servers.serve(order), servers.kill)
                if is_watched:
                    town.require(await look(kind, folder))
            if not is_watched:  # the next server must find its files as they were left
                shutil.copytree(folder, copy)
                town.require(await look(kind, copy))
                shutil.rmtree(copy)

    tally("kills", rounds)
    assert all(visitor.n > rounds for visitor in town.visitors)


def test_the_load_uses_every_page_but_the_login_that_is_saved_by_hand() -> None:
    assert WEIGHTS.keys() | {"saved_login"} == PAGES.keys()
