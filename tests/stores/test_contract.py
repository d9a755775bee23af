"""Every shipped store keeps every clause of the contract, on both backends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from minisession.abc import LoadsNowait, Store, Withdraws
from minisession.stores.files import FilesStore
from minisession.stores.memory import MemoryStore
from minisession.stores.redis import RedisStore
from minisession.stores.sqlite import SQLiteStore
from minisession.testing import Clause, check_clause, check_store, clauses
from tests import clause_table, redis_servers

from .kit import NOW, birth

Maker = Callable[[Path], Callable[[], Store]]


def memory(_: Path) -> Callable[[], Store]:
    return MemoryStore


def sqlite(folder: Path) -> Callable[[], Store]:
    return partial(SQLiteStore, folder / "sessions.db")


def files(folder: Path) -> Callable[[], Store]:
    return partial(FilesStore, folder / "sessions")


def redis(_: Path) -> Callable[[], Store]:
    return partial(RedisStore, redis_servers.redis().url(prefix=redis_servers.fresh_prefix()))


def valkey(_: Path) -> Callable[[], Store]:
    return partial(RedisStore, redis_servers.valkey().url(prefix=redis_servers.fresh_prefix()))


def sentinel(_: Path) -> Callable[[], Store]:
    return partial(RedisStore, redis_servers.sentinels().url(prefix=redis_servers.fresh_prefix()))


def cluster(_: Path) -> Callable[[], Store]:
    return partial(RedisStore, redis_servers.cluster().url(prefix=redis_servers.fresh_prefix()))


IN_REDIS = clauses(persistent=True, purges=False)
STORES: dict[Maker, list[Clause]] = {
    memory: clauses(),
    sqlite: clauses(persistent=True),
    files: clauses(persistent=True),
    redis: IN_REDIS,
    sentinel: IN_REDIS,
    cluster: IN_REDIS,
}
NEEDS: dict[Maker, list[pytest.MarkDecorator]] = {
    redis: [redis_servers.NEEDS_REDIS],
    valkey: [redis_servers.NEEDS_VALKEY],
    sentinel: [redis_servers.NEEDS_REDIS, pytest.mark.slow],
    cluster: [redis_servers.NEEDS_REDIS, pytest.mark.slow],
}
MAKERS = [pytest.param(maker, id=maker.__name__, marks=NEEDS.get(maker, [])) for maker in STORES]
CASES = [
    pytest.param(clause, maker, id=f"{clause.__name__}-{maker.__name__}", marks=marks)
    for maker, kept in STORES.items()
    for marks in [NEEDS.get(maker, [])]
    for clause in kept
]


@pytest.mark.anyio
@pytest.mark.parametrize(("clause", "maker"), CASES)
async def test_the_store_keeps(
    clause: Clause,
    maker: Maker,
    tmp_path: Path,
    anyio_backend: str,
    request: pytest.FixtureRequest,
) -> None:
    part = clause.__module__.rpartition(".")[2]
    properties = request.node.user_properties
    clause_table.note(properties, part, clause.__name__, maker.__name__, anyio_backend)

    await check_clause(clause, maker(tmp_path))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("maker", "persistent", "purges"),
    [
        pytest.param(memory, False, True, id="memory"),
        pytest.param(sqlite, True, True, id="sqlite"),
        pytest.param(valkey, True, False, id="valkey", marks=NEEDS[valkey]),
    ],
)
async def test_all_clauses_can_be_kept_in_one_place(
    maker: Maker, persistent: bool, purges: bool, tmp_path: Path
) -> None:
    await check_store(maker(tmp_path), persistent=persistent, purges=purges)


@pytest.mark.parametrize("maker", [memory, sqlite])
def test_stores_in_this_process_load_at_once(maker: Maker, tmp_path: Path) -> None:
    assert isinstance(maker(tmp_path)(), LoadsNowait)


@pytest.mark.anyio
@pytest.mark.parametrize("maker", MAKERS)
async def test_a_scan_gives_a_thousand_from_the_first_unless_told_otherwise(
    maker: Maker, tmp_path: Path
) -> None:
    handles = [f"{number:04}" for number in range(1001)]
    async with maker(tmp_path)() as store:
        await store.commit([birth(handle) for handle in handles], NOW)

        found = await store.scan(NOW)

    assert [summary.handle for summary in found] == handles[:1000]


@pytest.mark.parametrize("maker", [sqlite, files, pytest.param(redis, marks=NEEDS[redis])])
def test_a_store_with_a_queue_takes_changes_back(maker: Maker, tmp_path: Path) -> None:
    assert isinstance(maker(tmp_path)(), Withdraws)
