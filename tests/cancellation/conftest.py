"""In which settings the sweeps run: a backend, a way to be disturbed, a store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from minisession.abc import Store
from minisession.stores.files import FilesStore
from minisession.stores.memory import MemoryStore
from minisession.stores.redis import RedisStore
from minisession.stores.sqlite import SQLiteStore
from tests import redis_servers
from tests.effort import SOAK, Tally
from tests.remote_store import RemoteStore
from tests.tripwire import (
    EVERYWHERE,
    NATIVE,
    Blow,
    Check,
    Prepare,
    cancelled,
    failed,
    natively_cancelled,
    natively_cancelled_late,
    sweep,
    timed_out,
)

Sweep = Callable[[Prepare, Check], Awaitable[int]]

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SQLiteStore(folder / "sessions.db"),
    "files": lambda folder: FilesStore(folder / "sessions"),
    "redis": lambda folder: RedisStore(
        redis_servers.redis().url(prefix=redis_servers.fresh_prefix())
    ),
    "remote": lambda folder: RemoteStore(),
}
NEEDS = {"redis": redis_servers.NEEDS_REDIS}


@dataclass(frozen=True)
class Setting:
    """One way to run a sweep."""

    backend: str
    blow: Blow
    store: str

    def __str__(self) -> str:
        return f"{self.backend}-{self.blow.__name__}-{self.store}"

    @property
    def is_usual(self) -> bool:
        """Whether it belongs to every run. A store on a network has the most suspensions."""
        if self.store == "remote":
            return self.blow not in (timed_out, natively_cancelled)
        if self.store == "redis":
            return self.blow is (natively_cancelled if self.backend == "asyncio" else cancelled)
        return self.store == "sqlite" and self.blow is natively_cancelled_late


SETTINGS = [
    setting
    for store in STORES
    for setting in [
        *[Setting(backend, blow, store) for backend in ("asyncio", "trio") for blow in EVERYWHERE],
        *[Setting("asyncio", blow, store) for blow in NATIVE],
    ]
    if SOAK or setting.is_usual
]


def cases(
    things: Iterable[Any], allowed: Callable[[Setting, Any], bool] = lambda setting, thing: True
) -> list[Any]:
    """Return each thing in each setting that it allows, as parameters."""
    return [
        pytest.param(setting, thing, id=f"{setting}-{thing}", marks=NEEDS.get(setting.store, ()))
        for setting in SETTINGS
        for thing in things
        if allowed(setting, thing)
    ]


@pytest.fixture(
    params=[pytest.param(each, id=str(each), marks=NEEDS.get(each.store, ())) for each in SETTINGS]
)
def setting(request: pytest.FixtureRequest) -> Setting:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def anyio_backend(setting: Setting) -> str:
    return setting.backend


@pytest.fixture
def any_store(setting: Setting, tmp_path: Path) -> Store:
    return STORES[setting.store](tmp_path)


@pytest.fixture
def swept(setting: Setting, tally: Tally) -> Sweep:
    """Strike at every suspension point, and count the points."""
    return partial(counted, setting.blow, tally)


async def counted(blow: Blow, tally: Tally, prepare: Prepare, check: Check) -> int:
    points = await sweep(blow, prepare, check)
    if points:  # a store in memory never waits
        tally("cancellation points", points)
    return points


def is_worth_it(setting: Setting, thing: Any) -> bool:
    """Whether a request is tried in this setting: in all, in the long run."""
    return raises_nothing_into_siblings(setting, thing) and (SOAK or setting.blow is not failed)


def raises_nothing_into_siblings(setting: Setting, thing: Any) -> bool:
    """Nothing can be raised out of a task group's wait for its tasks."""
    return not (thing.has_siblings and setting.blow is failed)
