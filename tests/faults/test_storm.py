"""A bad network, many visitors: documented errors, nothing acknowledged lost, nothing revived."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from minisession import SessionMiddleware
from minisession.abc import Store
from minisession.stores.files import FilesStore
from minisession.stores.memory import MemoryStore
from minisession.stores.redis import RedisStore
from minisession.stores.sqlite import SQLiteStore
from tests import redis_servers
from tests.asgi_client import running
from tests.effort import Tally, effort

from .storm import Storm, Visitor, application

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

VISITORS = 24
STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SQLiteStore(folder / "sessions.db"),
    "files": lambda folder: FilesStore(folder / "sessions"),
    "redis": lambda folder: RedisStore(
        redis_servers.redis().url(prefix=redis_servers.fresh_prefix())
    ),
}


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Thousands of failures are no news here."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ("kind", "operations"),
    [
        ("memory", 4_000),
        ("sqlite", 2_000),
        ("files", 800),
        pytest.param("redis", 800, marks=redis_servers.NEEDS_REDIS),
    ],
)
async def test_whatever_fails_what_was_acknowledged_stays_and_what_was_ended_stays_ended(
    kind: str, operations: int, tmp_path: Path, tally: Tally
) -> None:
    store = Storm(STORES[kind](tmp_path), seed=effort(1, soak=2))
    app = SessionMiddleware(application, store)
    visitors = [Visitor(app, seed) for seed in range(VISITORS)]
    until = effort(operations, soak=50_000)

    async def come_again(visitor: Visitor) -> None:
        while store.operations < until:
            await visitor.visit()
            await visitor.look_at_the_dead(lambda dead: dead[-1:])

    async with running(app):
        async with anyio.create_task_group() as tasks:
            for visitor in visitors:
                tasks.start_soon(partial(come_again, visitor))
        store.is_over = True
        dead = 0
        for visitor in visitors:
            await visitor.visit()
            dead += await visitor.look_at_the_dead(list)

    refusals = sum(visitor.refusals for visitor in visitors)
    assert dead > operations / 40
    assert 0.02 < refusals / sum(visitor.requests for visitor in visitors) < 0.5
    tally("faulted operations", store.faulted)
    tally("requests", sum(visitor.requests for visitor in visitors))
