"""Kill -9 of the *server* that keeps the sessions, under load: what it has synced, it still has.

The applications go on. Visitors whose requests met the death get a 503, which promises nothing;
when the server is back with its files, it must hold what all other answers have said, or that and
the one request that was refused; nothing that had ended lives; and the same application goes on.
"""

from __future__ import annotations

import random
from pathlib import Path

import anyio.to_thread
import pytest

from tests import redis_servers
from tests.crash.nursery import Order
from tests.crash.persistent import kept_by
from tests.crash.rounds import Round
from tests.crash.servers import nursery
from tests.crash.visitor import Town, Visitor
from tests.crash.world import look
from tests.effort import Tally, effort
from tests.redis_servers import Server

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROUNDS = effort(5, soak=200)
VISITORS = 8
SYNCED = ("--appendonly", "yes", "--appendfsync", "always")
WRITTEN = ("--appendonly", "yes", "--appendfsync", "everysec")


@pytest.mark.parametrize(
    ("program", "settings", "options"),
    [
        pytest.param("redis-server", SYNCED, {}, id="redis", marks=redis_servers.NEEDS_REDIS),
        pytest.param(
            "valkey-server", WRITTEN, {"waitaof": 1}, id="waitaof", marks=redis_servers.NEEDS_VALKEY
        ),
    ],
)
async def test_a_server_that_is_killed_comes_back_with_everything_acknowledged_and_nothing_dead(
    program: str,
    settings: tuple[str, ...],
    options: dict[str, object],
    scratch: Path,
    anyio_backend: str,
    tally: Tally,
) -> None:
    rng = random.Random(f"kills of {program} on {anyio_backend}")
    town = Town([Visitor(f"visitor-{n}") for n in range(VISITORS)])
    server = await anyio.to_thread.run_sync(Server, program, *settings)
    kind = kept_by(lambda: server, **options)
    try:
        async with nursery(anyio_backend, kind.module) as servers:
            port = await servers.serve(Order(kind.url(scratch / "store")))
            for _ in range(ROUNDS):
                await Round(town, rng).run(port, lambda: anyio.to_thread.run_sync(server.kill))
                await anyio.to_thread.run_sync(server.start)
                town.require(await look(kind, scratch / "store"))
    finally:
        server.end()

    tally("kills", ROUNDS)
    assert all(visitor.n > ROUNDS for visitor in town.visitors)
