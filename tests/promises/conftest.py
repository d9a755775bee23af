"""The stores on which every promise is tried: the model, those on disk, and one on a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minisession.abc import Store
from minisession.stores.files import FilesStore
from minisession.stores.memory import MemoryStore
from minisession.stores.redis import RedisStore
from minisession.stores.sqlite import SQLiteStore
from tests import redis_servers
from tests.scratch import scratch_folder

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SQLiteStore(folder / "sessions.db"),
    "files": lambda folder: FilesStore(folder / "sessions"),
    "redis": lambda folder: RedisStore(
        redis_servers.redis().url(prefix=redis_servers.fresh_prefix())
    ),
}
NEEDS = {"redis": redis_servers.NEEDS_REDIS}


@pytest.fixture(params=[pytest.param(name, marks=NEEDS.get(name, ())) for name in STORES])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store, not opened yet."""
    with scratch_folder() as folder:
        yield STORES[request.param](folder)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a database may be made that several processes share."""
    return tmp_path / "shared.db"
