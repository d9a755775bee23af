"""`RedisStore` on a real server: its life, its keys, its queue, and what is damaged."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import pytest

from minisession import SessionManager
from minisession.abc import (
    Change,
    Committed,
    Destroy,
    Gone,
    Inspection,
    Inspects,
    Outcome,
    Rotation,
    Touch,
    Write,
)
from minisession.errors import ConfigError, SessionTooLarge, StoreCorrupt, StoreUnavailable
from minisession.stores._redis import lanes, link, listing, wire
from minisession.stores._redis.keys import Keys, slot
from minisession.stores.redis import RedisStore
from tests import redis_servers
from tests.effort import Tally
from tests.tripwire import NATIVE, Blow, cancelled, sweep, timed_out

from .kit import END, LIMIT, NOW, birth, until, write

pytestmark = [pytest.mark.anyio, redis_servers.NEEDS_REDIS]

LATER = NOW + 1800


@pytest.fixture
def prefix() -> str:
    return redis_servers.fresh_prefix()


@pytest.fixture
def url(prefix: str) -> str:
    return redis_servers.redis().url(prefix=prefix)


@pytest.fixture
async def store(url: str) -> AsyncIterator[RedisStore]:
    async with RedisStore(url) as store:
        yield store


def key(prefix: str, handle: str = "h") -> str:
    return f"{prefix}{{{handle}}}"


def cli(*words: object) -> str:
    return redis_servers.redis().cli(*words)


async def commit(store: RedisStore, change: Change, now: float = NOW) -> Outcome:
    (outcome,) = await store.commit([change], now)
    return outcome


# --- its life ------------------------------------------------------------------------------------


async def test_constructing_does_no_io() -> None:
    assert (
        repr(RedisStore("redis://nowhere.invalid")) == "<RedisStore redis://nowhere.invalid:6379/0>"
    )


def test_without_the_client_library_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "coredis", None)

    with pytest.raises(ConfigError, match=r"pip install 'minisession\[redis\]'"):
        RedisStore("redis://host")


def test_the_client_library_is_imported_when_a_store_is_opened() -> None:
    script = "import sys; from minisession.stores import open_store; open_store('redis://h')"
    script += "; assert 'coredis' not in sys.modules"

    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


async def test_unopened_it_says_how_to_open_it(url: str) -> None:
    store = RedisStore(url)

    for call in (store.load("h", NOW), store.commit([birth()], NOW), store.scan(NOW)):
        with pytest.raises(StoreUnavailable, match=r"is not open.*lifespan.*async with store"):
            await call
    assert store.withdraw(birth()) is False
    assert await store.purge(NOW, 1) == 0


async def test_it_is_opened_once_at_a_time(store: RedisStore) -> None:
    with pytest.raises(StoreUnavailable, match="is open already"):
        await store.__aenter__()

    assert await commit(store, birth()) == Committed(0)


async def test_of_two_who_open_it_at_the_same_time_one_is_refused(url: str) -> None:
    store = RedisStore(url)
    came: list[object] = []

    async def open_it() -> None:
        try:
            async with store:
                came.append(await commit(store, birth()))
        except StoreUnavailable as error:
            came.append(type(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_it)
        tasks.start_soon(open_it)

    assert came == [StoreUnavailable, Committed(0)]


async def test_what_could_not_be_opened_can_be_opened_later() -> None:
    server = await anyio.to_thread.run_sync(redis_servers.Server)
    store = RedisStore(server.url())
    try:
        await anyio.to_thread.run_sync(server.kill)
        with pytest.raises(StoreUnavailable):
            await store.__aenter__()
        await anyio.to_thread.run_sync(server.start)
        async with store:
            assert await commit(store, birth()) == Committed(0)
    finally:
        server.end()


async def test_in_another_event_loop_it_says_so(store: RedisStore, anyio_backend_name: str) -> None:
    def elsewhere() -> None:
        anyio.run(store.load, "h", NOW, backend=anyio_backend_name)

    with pytest.raises(StoreUnavailable, match=r"another event loop.*one for each loop"):
        await anyio.to_thread.run_sync(elsewhere)


async def test_a_server_that_is_not_there_fails_the_opening() -> None:
    port = redis_servers.free_port()

    with pytest.raises(StoreUnavailable, match=f"Redis at 127.0.0.1:{port} cannot be reached"):
        async with RedisStore(f"redis://127.0.0.1:{port}"):
            pass


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("redis+sentinel://127.0.0.1:{}/shop", "no Sentinel names the primary of 'shop'"),
        ("redis+cluster://127.0.0.1:{}", "no server of the cluster tells its slots"),
    ],
)
async def test_so_does_one_of_another_kind(kind: str, words: str) -> None:
    with pytest.raises(StoreUnavailable, match=words):
        async with RedisStore(kind.format(redis_servers.free_port())):
            pass


async def test_what_the_block_raises_comes_out_as_it_is(url: str) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with RedisStore(url):
            raise LookupError("mine")


async def test_leaving_stores_what_was_handed_over_even_if_cancelled(url: str) -> None:
    async def leave() -> None:
        with anyio.CancelScope() as scope:
            async with RedisStore(url) as store, anyio.create_task_group() as tasks:
                scope.cancel()
                tasks.start_soon(store.commit, [birth(k=b"v")], NOW)

    await leave()

    async with RedisStore(url) as store:
        record = await store.load("h", NOW)
    assert record is not None
    assert record.items == {"k": b"v"}


async def test_a_cancellation_of_who_opened_it_does_not_reach_its_tasks(url: str) -> None:
    """As in a server whose lifespan is cancelled while requests, shielded, are saving."""
    outcomes: list[Outcome] = []

    async def request(store: RedisStore, started: anyio.Event) -> None:
        with anyio.CancelScope(shield=True):
            started.set()
            await anyio.sleep(0.02)
            outcomes.append(await commit(store, birth()))

    with anyio.CancelScope() as scope:
        async with RedisStore(url) as store, anyio.create_task_group() as tasks:
            started = anyio.Event()
            tasks.start_soon(request, store, started)
            await started.wait()
            scope.cancel()

    assert outcomes == [Committed(0)]


# --- keys ----------------------------------------------------------------------------------------


async def test_a_session_is_one_key_that_expires(store: RedisStore, prefix: str) -> None:
    await commit(store, birth(k=b"v"))

    assert cli("KEYS", f"{prefix}*") == key(prefix)
    assert 3_500_000 < int(cli("PTTL", key(prefix))) <= 3_600_000


async def test_the_expiry_moves_with_the_session(store: RedisStore, prefix: str) -> None:
    await commit(store, birth())

    await commit(store, Touch("h", 0, END + 3600))
    assert 7_100_000 < int(cli("PTTL", key(prefix))) <= 7_200_000
    await commit(store, replace(write(), expires=NOW + 100))
    assert 90_000 < int(cli("PTTL", key(prefix))) <= 100_000


@pytest.mark.parametrize(
    ("life", "lives"), [(-0.0005, False), (0.0, False), (1e17, True), (float("inf"), True)]
)
async def test_a_life_of_any_length_is_one_that_the_server_takes(
    store: RedisStore, prefix: str, life: float, lives: bool
) -> None:
    await commit(store, birth())

    change = replace(write(), expires=NOW + life, principal="ada")
    assert await store.commit([change], NOW) == [Committed(0)]

    assert cli("EXISTS", key(prefix)) == str(int(lives))
    assert len(await store.of_principal("ada", NOW)) == int(lives)


async def test_what_others_have_put_there_that_is_no_text_is_left_out(
    store: RedisStore, prefix: str
) -> None:
    await store.commit([replace(birth(), principal="ada")], NOW)
    marked = Keys(prefix)
    await _put(marked.session("").replace(b"{}", b"{\xff}"), b"hset", b"v", b"1")
    await _put(marked.index("ada"), b"zadd", b"5", b"\xfe")

    assert [summary.handle for summary in await store.scan(NOW)] == ["h"]
    assert [summary.handle for summary in await store.of_principal("ada", NOW)] == ["h"]


async def _put(key: bytes, command: bytes, *words: bytes) -> None:
    """Give the server a command as bytes, which no command line can."""
    parts = [command, key, *words]
    sent = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
    server = redis_servers.redis()
    async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        await stream.send(b"*%d\r\n%s" % (len(parts), sent))
        assert await stream.receive() == b":1\r\n"


@pytest.mark.parametrize("name", ["a*b:", "a?[x]:", "a\\b:"])
async def test_a_prefix_matches_only_itself(name: str) -> None:
    server = redis_servers.redis()
    marked = f"{redis_servers.fresh_prefix()}{name}"
    async with RedisStore(server.url(prefix=marked.replace("?", "%3F"))) as store:
        await store.commit([birth("one"), birth("two")], NOW)
        server.cli("HSET", marked.replace("*", "xx").replace("?[x]", "yx") + "{other}", "a", "b")

        listed = await store.scan(NOW)

    assert [summary.handle for summary in listed] == ["one", "two"]


async def test_items_come_in_the_order_in_which_they_came_however_many(store: RedisStore) -> None:
    names = [f"{number}" for number in range(500, 0, -1)]
    await commit(store, replace(birth(), items=dict.fromkeys(names, b"v")))
    await commit(store, write(items={"500": b"again", "499": None}))
    await commit(store, write(items={"499": b"at the end"}))

    record = await store.load("h", NOW)

    assert record is not None
    assert list(record.items) == ["500", *names[2:], "499"]


async def test_thousands_of_items_go_in_one_change(store: RedisStore) -> None:
    names = [f"{number}" for number in range(5000)]

    assert await commit(store, replace(birth(), items=dict.fromkeys(names, b"v"))) == Committed(0)
    dropped = dict.fromkeys(names, None)
    rotation = Rotation(bytes(32), NOW + 30)
    assert await commit(store, replace(write(), rotation=rotation)) == Committed(1)
    assert await commit(store, Write("h", 1, END, LIMIT, dropped)) == Committed(1)
    assert await commit(store, Write("h", 1, END, LIMIT, {}, clear=True)) == Committed(1)

    record = await store.load("h", NOW)
    assert record is not None
    assert record.items == {}


async def test_a_batch_larger_than_a_pipeline_is_stored_whole(store: RedisStore) -> None:
    births = [birth(f"{number}") for number in range(3 * lanes.MAX_BATCH + 1)]

    assert await store.commit(births, NOW) == [Committed(0)] * len(births)


async def test_a_scan_goes_on_where_much_has_expired(store: RedisStore) -> None:
    births = [
        replace(birth(f"{number:03}"), expires=END if number % 9 == 8 else NOW + 1000)
        for number in range(90)
    ]
    await store.commit(births, NOW)

    listed = await store.scan(NOW + 2000, limit=3)

    assert [summary.handle for summary in listed] == ["008", "017", "026"]


async def test_a_scan_of_much_more_than_it_returns_is_right(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "AT_ONCE", 100)
    await store.commit([birth(f"{number:03}") for number in range(700)], NOW)

    listed = await store.scan(NOW, after="004", limit=2)

    assert [summary.handle for summary in listed] == ["005", "006"]


def test_the_slot_of_a_key_is_that_of_the_part_in_braces() -> None:
    # Of the specification, and of `CLUSTER KEYSLOT`.
    assert slot(b"123456789") == 0x31C3
    assert slot(Keys("a:").session("user1000")) == slot(b"user1000")
    server = redis_servers.cluster().primaries[0]
    for name in ("foo{}bar", "foo{", "}foo{bar}", "{{a}}"):
        assert slot(name.encode()) == int(server.cli("CLUSTER", "KEYSLOT", name))


# --- principals ----------------------------------------------------------------------------------


async def principals(store: RedisStore, name: str, now: float = NOW) -> list[str]:
    return [summary.handle for summary in await store.of_principal(name, now)]


async def test_a_principal_does_not_show_in_a_key(store: RedisStore, prefix: str) -> None:
    await commit(store, replace(birth(), principal="ada@example.org"))

    assert "ada" not in cli("KEYS", f"{prefix}*")
    assert await principals(store, "ada@example.org") == ["h"]


async def test_the_index_outlives_its_sessions_and_then_goes(
    store: RedisStore, prefix: str
) -> None:
    await commit(store, replace(birth(), principal="ada"))
    index = Keys(prefix).index(b"ada").decode()

    assert 3 * 3_590_000 < int(cli("PTTL", index)) <= 3 * 3_600_000


async def test_a_session_that_is_used_on_and_on_stays_in_the_index(
    store: RedisStore, prefix: str
) -> None:
    await commit(store, replace(birth(), principal="ada"))
    index = Keys(prefix).index(b"ada").decode()
    for hours in range(1, 20):
        now = NOW + hours * 3000
        change: Change = Touch("h", 0, now + 3600)
        if hours % 2:
            change = Write("h", 0, now + 3600, LIMIT, {"n": b"%d" % hours})
        assert await commit(store, change, now) == Committed(0)
        # Whoever is told to renew the index may die at once, so it must last without that.
        assert float(cli("ZSCORE", index, "h")) > now + 3600
        await store._open.lanes.drained()  # almost an hour goes by

    assert await principals(store, "ada", now) == ["h"]


async def test_an_index_forgets_those_that_have_expired(store: RedisStore, prefix: str) -> None:
    await commit(store, replace(birth("old"), principal="ada", expires=NOW + 10))
    await commit(store, replace(birth("new"), principal="ada"), NOW + 100)

    assert cli("ZRANGE", Keys(prefix).index(b"ada").decode(), 0, -1) == "new"


async def test_what_cannot_be_indexed_is_not_stored(store: RedisStore, prefix: str) -> None:
    cli("SET", Keys(prefix).index(b"ada").decode(), "no index")

    outcomes = await store.commit([replace(birth(), principal="ada"), birth("other")], NOW)

    assert isinstance(outcomes[0], StoreUnavailable)
    assert "not known" not in str(outcomes[0])
    assert outcomes[1] == Committed(0)
    assert await store.load("h", NOW) is None


async def test_a_login_is_one_round_trip_beside_the_load(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    exchange = link.Link._exchange

    async def counted(self: link.Link, connection: Any, commands: Any) -> Any:
        sent.append(len(commands))
        return await exchange(self, connection, commands)

    monkeypatch.setattr(link.Link, "_exchange", counted)
    await commit(store, birth())
    sent.clear()

    assert await commit(store, replace(write(), principal="ada")) == Committed(0)

    assert sent == [1]
    assert await principals(store, "ada") == ["h"]


async def test_what_is_refused_is_not_listed(store: RedisStore, prefix: str) -> None:
    late = replace(birth("late"), principal="ada", expires=NOW)
    large = replace(birth("large", a=b"1" * LIMIT), principal="ada")
    void = replace(write("void"), principal="ada")

    outcomes = await store.commit([late, large, void], NOW)

    assert [type(outcome) for outcome in outcomes] == [Gone, SessionTooLarge, Gone]
    assert cli("EXISTS", Keys(prefix).index(b"ada").decode()) == "0"


async def test_an_index_that_cannot_be_renewed_is_reported_and_nothing_fails(
    store: RedisStore, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    await commit(store, replace(birth(), principal="ada"))
    cli("SET", Keys(prefix).index(b"ada").decode(), "no index")

    assert await commit(store, Touch("h", 0, END + 99_999), NOW) == Committed(0)
    assert await commit(store, write()) == Committed(0)

    await until(lambda: "not renewed" in caplog.text)
    assert [r.levelname for r in caplog.records if "not renewed" in r.message] == ["WARNING"]


# --- damage --------------------------------------------------------------------------------------

DAMAGE: list[tuple[str, ...]] = [
    ("HDEL", "v"),
    ("HSET", "v", "0"),
    ("HSET", "v", "two"),
    ("HSET", "v", "123456"),
    ("HDEL", "x"),
    ("HSET", "x", "soon"),
    ("HSET", "x", "nan"),
    ("HSET", "e", "-1"),
    ("HSET", "s", "short"),
    ("HSET", "p", "short"),
    ("HSET", "b", ""),
    ("HSET", "k", "x"),
    ("HSET", "g", "x"),
    ("HSET", "n", "x"),
    ("HDEL", "q"),
    ("HSET", "t", "-1"),
    ("HSET", "c", "x"),
    ("HSET", "i", "x"),
]


@pytest.mark.parametrize("damage", DAMAGE, ids=" ".join)
async def test_a_damaged_session_is_reported_left_alone_and_revoked(
    store: RedisStore, prefix: str, damage: tuple[str, ...]
) -> None:
    await commit(store, birth(k=b"v"))
    command, *rest = damage
    cli(command, key(prefix), *rest)
    before = cli("HGETALL", key(prefix))

    with pytest.raises(StoreCorrupt, match=r"session h: .*await manager\.revoke\(handle\)"):
        await store.load("h", NOW)
    for change in (birth(), write(), Touch("h", 0, END), Destroy("h", 0)):
        assert isinstance(await commit(store, change), StoreCorrupt)
    (told,) = await store.verify()
    assert re.match(r"session h: .*await manager\.revoke\(handle\)", told)
    assert await store.alive(["h"], NOW) == {"h"}
    assert cli("HGETALL", key(prefix)) == before

    assert await commit(store, Destroy("h", None)) == Committed(0)
    assert await store.load("h", NOW) is None


@pytest.mark.parametrize(
    "damage",
    [
        *[("HDEL", "v"), ("HDEL", "x"), ("HSET", "x", "soon"), ("HDEL", "b")],
        *[("HSET", "b", "nan"), ("HDEL", "v", "x", "b"), ("HSET", "v", "2")],
    ],
    ids=" ".join,
)
async def test_a_session_whose_head_is_damaged_is_left_out_of_lists_which_is_logged(
    store: RedisStore, prefix: str, damage: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    await store.commit([replace(birth(name), principal="ada") for name in ("h", "well")], NOW)
    command, *rest = damage
    cli(command, key(prefix), *rest)

    scanned = await store.scan(NOW)
    theirs = await store.of_principal("ada", NOW)

    assert [each.handle for each in scanned] == [each.handle for each in theirs] == ["well"]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert caplog.text.count("left out of a list: session h: ") == 2
    assert await store.alive(["h", "well", "nobody"], NOW) == {"h", "well"}


async def test_a_session_of_a_newer_release_is_left_to_it(store: RedisStore, prefix: str) -> None:
    await commit(store, birth(k=b"v"))
    cli("HSET", key(prefix), "v", "2")
    before = cli("HGETALL", key(prefix))
    words = r"session h: it is of format 2, and this release reads 1; .*\. Upgrade minisession here"

    with pytest.raises(StoreCorrupt, match=words) as caught:
        await store.load("h", NOW)
    for change in (birth(), write(), Touch("h", 0, END), Destroy("h", 0)):
        outcome = await commit(store, change)
        assert isinstance(outcome, StoreCorrupt)
        assert str(outcome) == str(caught.value)

    assert "revoke" not in str(caught.value)
    assert await store.verify() == [str(caught.value)]
    assert cli("HGETALL", key(prefix)) == before


async def test_a_sound_server_is_verified_in_steps_without_a_find(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setattr(listing, "AT_ONCE", 10)
    births = [replace(birth(f"{number}"), principal="ada") for number in range(50)]
    await store.commit(births, NOW)
    await commit(store, replace(write("7"), rotation=Rotation(bytes(32), NOW + 30)))
    cli("SET", f"{prefix}of:nobody", "a key of somebody else")

    assert await store.verify() == []


async def test_each_damaged_key_of_the_prefix_is_told(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    births = [replace(birth(f"{number}"), principal=f"{number}") for number in range(4)]
    await store.commit(births, NOW)
    cli("SET", key(prefix, "0"), "something")
    cli("DEL", key(prefix, "1"))
    cli("HSET", key(prefix, "1"), "foreign", "field")
    cli("HSET", key(prefix, "2"), "x", "soon")
    index = Keys(prefix).index("3").decode()
    cli("SET", index, "no index")

    finds = await store.verify()

    assert len(finds) == 4
    *sessions, about_the_index = finds
    assert sorted(find.partition(": ")[0] for find in sessions) == [
        f"session {number}" for number in range(3)
    ]
    assert f"under the key {index} is no sorted set" in about_the_index
    with pytest.raises(StoreCorrupt, match="is no sorted set"):
        await store.of_principal("3", NOW)


async def test_in_a_cluster_every_server_is_verified() -> None:
    place = redis_servers.cluster()
    prefix = redis_servers.fresh_prefix()
    async with RedisStore(place.url(prefix=prefix)) as store:
        await store.commit([birth(f"{number}") for number in range(30)], NOW)
        for server in place.primaries:
            for name in server.cli("KEYS", f"{prefix}*").split():
                server.cli("HSET", name, "x", "soon")

        finds = await store.verify()

    assert len(finds) == len(set(finds)) == 30


async def test_nothing_waits_on_a_server_that_removes_by_itself(store: RedisStore) -> None:
    await commit(store, birth())

    assert isinstance(store, Inspects)
    assert store.is_there()
    assert await store.inspect(NOW) == Inspection("Redis, format 1", expired=0)


async def test_what_is_no_hash_is_damage_too(
    store: RedisStore, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    cli("SET", key(prefix), "something")
    cli("SET", key(prefix, "other"), "something")

    with pytest.raises(StoreCorrupt, match=r"session h: what is stored is no hash"):
        await store.load("h", NOW)
    assert isinstance(await commit(store, write()), StoreCorrupt)
    assert await store.alive(["h"], NOW) == {"h"}
    assert await store.scan(NOW) == []
    assert caplog.text.count("left out of a list: ") == 2
    assert await commit(store, Destroy("h", None)) == Committed(0)


@pytest.mark.parametrize("value", ["", "0.0", "x.0:data", "0.x:data", "0:data"])
async def test_a_damaged_item_is_reported(store: RedisStore, prefix: str, value: str) -> None:
    await commit(store, birth(k=b"v", other=b"w"))
    cli("HSET", key(prefix), "=k", f"{value}x" if value == "0.0" else value)

    with pytest.raises(StoreCorrupt, match="session h: "):
        await store.load("h", NOW)
    assert isinstance(await commit(store, write(items={"k": b"new"})), StoreCorrupt)


def test_an_answer_that_nobody_understands_leaves_the_outcome_unknown() -> None:
    outcome, due = wire.outcome_of(write(), [7])

    assert "nobody understands" in str(outcome)
    assert due is None


# --- the queue -----------------------------------------------------------------------------------


async def test_changes_of_one_session_are_applied_in_the_order_they_were_handed_over(
    store: RedisStore,
) -> None:
    await commit(store, birth())
    seen: list[Outcome] = []
    order: list[int] = []

    async def put(number: int) -> None:
        order.append(number)
        seen.append(await commit(store, write(items={"n": b"%d" % number})))

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(put, number)
            await anyio.lowlevel.checkpoint()

    record = await store.load("h", NOW)
    assert seen == [Committed(0)] * 50
    assert record is not None
    assert record.items == {"n": b"%d" % order[-1]}


async def test_what_waits_behind_a_change_of_its_session_can_be_withdrawn(
    store: RedisStore,
) -> None:
    await commit(store, birth())
    first, second, twice = write(items={"a": b"1"}), write(items={"b": b"1"}), write(items={})
    outcomes: list[list[Outcome]] = []

    async def hand_over() -> None:
        outcomes.append(await store.commit([first, second, twice, twice], NOW))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hand_over)
        while not store._open.lanes._taken:
            await anyio.lowlevel.checkpoint()
        assert store.withdraw(first) is False
        assert store.withdraw(twice) is False
        assert store.withdraw(second) is True
        assert store.withdraw(second) is False

    (came,) = outcomes
    assert [type(outcome) for outcome in came] == [
        Committed,
        StoreUnavailable,
        Committed,
        Committed,
    ]
    record = await store.load("h", NOW)
    assert record is not None
    assert record.items == {"a": b"1"}


BLOWS = [cancelled, timed_out]


@pytest.mark.parametrize("blow", BLOWS)
async def test_a_wait_that_is_cancelled_anywhere_loses_nothing(
    store: RedisStore, blow: Blow, tally: Tally
) -> None:
    await _strike_commits_and_loads(store, blow, tally)


@pytest.mark.parametrize("blow", NATIVE)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncios_own_cancellation_loses_nothing_either(
    store: RedisStore, blow: Blow, tally: Tally
) -> None:
    await _strike_commits_and_loads(store, blow, tally)


async def _strike_commits_and_loads(store: RedisStore, blow: Blow, tally: Tally) -> None:
    await store.commit([birth("struck", n=b"0"), birth("other", n=b"x")], NOW)
    count = 0

    async def prepare_commit() -> Awaitable[object]:
        nonlocal count
        count += 1
        return store.commit([write("struck", {"n": b"%d" % count})], NOW)

    async def look() -> None:
        # After everything that was handed over for it: the store keeps the order of a session.
        await commit(store, Touch("struck", 0, 0.0))
        record = await store.load("struck", NOW)
        assert record is not None
        assert record.items == {"n": b"%d" % count}

    async def prepare_load() -> Awaitable[object]:
        return store.load("struck", NOW)

    async def look_at_other() -> None:
        record = await store.load("other", NOW)
        assert record is not None
        assert record.items == {"n": b"x"}, "nobody gets the answer of somebody else"

    points = await sweep(blow, prepare_commit, look)
    points += await sweep(blow, prepare_load, look_at_other)
    tally("cancellation points", points)


async def test_a_bug_in_the_store_leaves_nobody_waiting(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> list[bytes]:
        raise ZeroDivisionError

    monkeypatch.setattr(wire, "arguments", broken)

    outcome = await commit(store, birth())

    assert "unforeseen way (ZeroDivisionError)" in str(outcome)
    assert "nobody thought of" in caplog.text


async def test_a_connection_that_a_request_made_keeps_nothing_of_it(store: RedisStore) -> None:
    class Request:
        pass

    current: ContextVar[Request] = ContextVar("current")
    seen: list[weakref.ref[Request]] = []

    async def handle() -> None:
        request = Request()
        current.set(request)
        seen.append(weakref.ref(request))
        for node in store._open.courier._nodes.all():
            node.drop()
        await commit(store, birth())
        assert await store.load("h", NOW)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(handle)
    await anyio.lowlevel.checkpoint()
    gc.collect()

    assert seen[0]() is None


# --- with sessions -------------------------------------------------------------------------------


async def test_two_managers_on_one_server_lose_no_increment(url: str) -> None:
    async with SessionManager(url) as one, SessionManager(url) as two:
        async with one.open() as session:
            session["n"] = 0
            await session.save()
            handle = session.handle
        assert handle is not None

        async def increment(manager: SessionManager) -> None:
            async with manager.open_handle(handle) as session:
                for _ in range(10):
                    await session.update("n", lambda n: n + 1)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(increment, one)
                tasks.start_soon(increment, two)

        async with two.open_handle(handle) as session:
            assert session["n"] == 100


async def test_a_logout_in_one_process_is_seen_in_the_other(url: str) -> None:
    async with SessionManager(url) as one, SessionManager(url) as two:
        async with one.open() as session:
            session["user"] = "ada"
            await session.save()
            id = session.id
        async with two.open(id) as session:
            session.destroy()

        async with one.open(id) as session:
            assert dict(session) == {}
