"""What goes wrong with a server, tried with real ones: it hangs, restarts, forgets, refuses."""

from __future__ import annotations

import math
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute, SocketStream
from coredis.connection import BaseConnection

from minisession.abc import Committed, Create, Destroy, Gone, Outcome, Touch, Write
from minisession.errors import (
    ConfigError,
    SaveOutcomeUnknown,
    StoreError,
    StoreUnavailable,
)
from minisession.stores._redis import courier, lanes, link, opened, wire
from minisession.stores._redis.cluster import Cluster
from minisession.stores._redis.errors import EXPLANATIONS
from minisession.stores._redis.keys import Keys, slot
from minisession.stores.redis import RedisStore
from tests import redis_servers
from tests.certificates import Certificate
from tests.effort import Tally, effort
from tests.redis_servers import Sentinels, Server

from .kit import END, NOW, birth, until, write

pytestmark = [pytest.mark.anyio, redis_servers.NEEDS_REDIS]


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of this test alone, which it may mistreat."""
    server = Server()
    try:
        yield server
    finally:
        server.end()


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "ANSWER_TIMEOUT", 0.3)
    monkeypatch.setattr(link, "CONNECT_TIMEOUT", 0.3)
    monkeypatch.setattr(opened, "CLOSE_TIMEOUT", 0.5)


@contextmanager
def serving(*options: str, program: str = "redis-server", tls: bool = False) -> Iterator[Server]:
    server = Server(program, *options, tls=tls)
    try:
        yield server
    finally:
        server.end()


async def commit(store: RedisStore, *changes: Create | Write | Touch | Destroy) -> Outcome:
    return (await store.commit(changes, NOW))[-1]


async def items(store: RedisStore, handle: str = "h") -> object:
    record = await store.load(handle, NOW)
    return None if record is None else record.items


# --- a server that hangs -------------------------------------------------------------------------


@pytest.mark.usefixtures("short_timeouts")
async def test_a_frozen_server_leaves_outcomes_unknown_and_is_found_again(server: Server) -> None:
    async with RedisStore(server.url()) as store:
        await commit(store, birth())
        server.freeze()

        with anyio.fail_after(5):
            assert isinstance(await commit(store, write()), SaveOutcomeUnknown)
            with pytest.raises(StoreUnavailable, match=r"did not answer|could not be reached"):
                await store.load("h", NOW)
            assert isinstance(await commit(store, write()), StoreUnavailable), "nothing to ask"
        server.thaw()

        assert await commit(store, write(items={"k": b"after"})) == Committed(0)
        assert await items(store) == {"k": b"after"}


@pytest.mark.usefixtures("short_timeouts")
async def test_one_that_hangs_does_not_hold_up_the_closing(server: Server) -> None:
    outcomes: list[Outcome] = []

    async def save(store: RedisStore, number: int) -> None:
        with anyio.CancelScope(shield=True):
            outcomes.append(await commit(store, write(items={"n": b"%d" % number})))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks, RedisStore(server.url()) as store:
            await commit(store, birth())
            server.freeze()
            for number in range(9):
                tasks.start_soon(save, store, number)
            await anyio.sleep(0.05)

    # The first was on its way. The others may have been refused: nobody connects any more.
    assert len(outcomes) == 9
    assert {type(outcome) for outcome in outcomes} <= {SaveOutcomeUnknown, StoreUnavailable}
    assert SaveOutcomeUnknown in map(type, outcomes)


@pytest.mark.usefixtures("short_timeouts")
async def test_what_is_on_its_way_when_the_store_closes_is_in_doubt(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "CLOSE_TIMEOUT", 0.05)
    outcomes: list[Outcome] = []

    async def save(store: RedisStore) -> None:
        outcomes.extend(await store.commit([write(), write()], NOW))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks, RedisStore(server.url()) as store:
            await commit(store, birth())
            server.freeze()
            tasks.start_soon(save, store)
            await anyio.sleep(0.05)

    assert [type(outcome) for outcome in outcomes] == [SaveOutcomeUnknown, StoreUnavailable]
    assert "closed" in str(outcomes[1])


async def test_who_still_reads_when_the_store_closes_is_told_so(server: Server) -> None:
    told: list[str] = []

    async def load(store: RedisStore) -> None:
        with pytest.raises(StoreUnavailable) as caught:
            await store.load("h", NOW)
        told.append(str(caught.value))

    with anyio.fail_after(2):
        async with anyio.create_task_group() as tasks, RedisStore(server.url()) as store:
            server.freeze()
            tasks.start_soon(load, store)
            await anyio.sleep(0.05)
            tasks.start_soon(load, store)
            await anyio.lowlevel.checkpoint()

    assert len(told) == 2
    # The second may also come when the store has just closed: tasks begin in no order on trio.
    assert all(re.search("closed|lost|is not open", message) for message in told), told


async def test_what_is_asked_of_a_store_that_has_closed_is_not_sent(server: Server) -> None:
    async with RedisStore(server.url()) as store:
        reader = store._open.reader

    with pytest.raises(StoreUnavailable, match="the store was closed"):
        await reader.load("h", NOW)


@asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """A port where somebody accepts connections and never answers."""

    async def ignore(stream: SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, ignore)
        yield listener.listeners[0].extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


async def test_a_sentinel_that_never_answers_leaves_time_for_the_next() -> None:
    sentinel = redis_servers.sentinels().sentinel
    async with silent() as port:
        url = f"redis+sentinel://127.0.0.1:{port},127.0.0.1:{sentinel.port}/shop"
        async with RedisStore(f"{url}?prefix={redis_servers.fresh_prefix()}") as store:
            assert await commit(store, birth(k=b"v")) == Committed(0)
            assert await items(store) == {"k": b"v"}


@pytest.mark.usefixtures("short_timeouts")
@pytest.mark.parametrize("kind", ["redis://{}", "redis+sentinel://{}/shop", "redis+cluster://{}"])
async def test_who_accepts_and_never_answers_fails_the_opening(kind: str) -> None:
    async with silent() as port:
        with (
            anyio.fail_after(5),
            pytest.raises(StoreUnavailable, match=f":{port}|shop"),
        ):
            async with RedisStore(kind.format(f"127.0.0.1:{port}")):
                pass


@dataclass
class Delay:
    """A network between a store and a server, that can hold up a change on its way."""

    port: int = 0
    is_armed: bool = False
    held_up: anyio.Event = field(default_factory=anyio.Event)
    let_through: anyio.Event = field(default_factory=anyio.Event)
    is_over: anyio.Event = field(default_factory=anyio.Event)

    @asynccontextmanager
    async def before(self, server: Server) -> AsyncIterator[None]:
        async def connect(client: SocketStream) -> None:
            async with (
                client,
                await anyio.connect_tcp("127.0.0.1", server.port) as there,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(pump, there, client)
                await self._send_on(client, there)
                tasks.cancel_scope.cancel()

        async def pump(there: SocketStream, client: SocketStream) -> None:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                async for data in there:
                    await client.send(data)

        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as tasks,
        ):
            self.port = listener.listeners[0].extra(SocketAttribute.local_port)
            tasks.start_soon(listener.serve, connect)
            yield
            tasks.cancel_scope.cancel()

    async def _send_on(self, client: SocketStream, there: SocketStream) -> None:
        with suppress(anyio.BrokenResourceError):
            async for data in client:
                if self.is_armed and b"EVALSHA" in data:
                    self.is_armed = False
                    await self._hold_up(data, there)
                else:
                    await there.send(data)

    async def _hold_up(self, data: bytes, there: SocketStream) -> None:
        self.held_up.set()
        await self.let_through.wait()
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
            await there.send(data)
            with anyio.move_on_after(1):
                await there.receive()  # it is done, or the connection is closed
        self.is_over.set()


@pytest.mark.usefixtures("short_timeouts")
async def test_what_was_held_up_on_an_old_connection_is_not_done_after_what_came_later(
    server: Server,
) -> None:
    server.cli("ACL", "SETUSER", "app", "on", ">hush", *RIGHTS)
    delay = Delay()
    async with (
        delay.before(server),
        RedisStore(f"redis://app:hush@127.0.0.1:{delay.port}") as store,
    ):
        await commit(store, birth())
        delay.is_armed = True

        assert isinstance(await commit(store, write(items={"k": b"1"})), SaveOutcomeUnknown)
        assert await commit(store, write(items={"k": b"2"})) == Committed(0)
        delay.let_through.set()
        await delay.is_over.wait()

        assert await items(store) == {"k": b"2"}


async def test_who_may_end_no_connections_goes_on_after_a_doubt(server: Server) -> None:
    server.cli("ACL", "SETUSER", "app", "on", ">hush", *RIGHTS, "-client|kill")
    async with RedisStore(f"redis://app:hush@127.0.0.1:{server.port}") as store:
        await commit(store, birth())
        commits = store._open.courier._nodes.all()[0].commits
        old = await commits._connected()
        commits._doubted[old.location] = old.filters
        commits.drop()

        assert await commit(store, write()) == Committed(0)
        assert commits._doubted == {}


async def test_who_may_not_ask_about_connections_ends_none_after_a_doubt(server: Server) -> None:
    server.cli("ACL", "SETUSER", "app", "on", ">hush", *RIGHTS, "-client|info")
    async with RedisStore(f"redis://app:hush@127.0.0.1:{server.port}") as store:
        commits = store._open.courier._nodes.all()[0].commits

        assert (await commits._connected()).filters == ()
        assert await commit(store, birth()) == Committed(0)


async def test_a_doubt_from_before_a_restart_ends_no_connection_of_others(server: Server) -> None:
    """The new server counts its connections from 1 again."""
    for _ in range(5):
        server.cli("PING")  # each of these takes a number
    async with RedisStore(server.url()) as store, anyio.create_task_group() as tasks:
        await commit(store, birth())
        doubted = (await store._open.courier._nodes.all()[0].commits._connected()).filters[1]
        outcomes: list[Outcome] = []

        async def save() -> None:
            outcomes.append(await commit(store, write()))

        server.freeze()
        tasks.start_soon(save)
        await anyio.sleep(0.05)
        server.kill()
        await until(lambda: bool(outcomes))
        assert isinstance(outcomes[0], SaveOutcomeUnknown)
        server.start()
        with ExitStack() as stack:
            others = [stack.enter_context(Stranger(server.port)) for _ in range(20)]
            assert doubted in {other.ask(b"CLIENT ID")[1:] for other in others}

            assert await commit(store, write()) == Gone()

            assert [other.ask(b"PING") for other in others] == [b"+PONG"] * 20


class Stranger:
    """A connection of somebody else."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, words: bytes) -> bytes:
        """Return the answer to a command, without the end of its line."""
        self._socket.sendall(words + b"\r\n")
        return self._socket.recv(100).rstrip()


# --- a server that goes away ---------------------------------------------------------------------


async def test_a_killed_server_leaves_in_doubt_only_what_was_on_its_way(server: Server) -> None:
    async with RedisStore(server.url()) as store, anyio.create_task_group() as tasks:
        await commit(store, birth(), birth("other"))
        outcomes: dict[str, list[Outcome]] = {}

        async def save(name: str) -> None:
            outcomes[name] = await store.commit([write(), write()], NOW)

        server.freeze()
        tasks.start_soon(save, "on its way")
        await anyio.sleep(0.05)
        server.kill()
        await until(lambda: "on its way" in outcomes)
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await store.load("h", NOW)

        first, second = outcomes["on its way"]
        assert isinstance(first, SaveOutcomeUnknown)
        assert isinstance(second, StoreUnavailable), "it waited for the first, and was never sent"

        server.start()
        assert await items(store) is None, "it had no persistence"
        assert await commit(store, write()) == Gone()
        assert await commit(store, birth(k=b"new")) == Committed(0)


async def test_a_load_whose_connection_is_lost_is_asked_again(server: Server) -> None:
    async with RedisStore(server.url()) as store:
        await commit(store, birth(k=b"v"))
        loaded: list[object] = []

        async def load() -> None:
            loaded.append(await items(store))

        async with anyio.create_task_group() as tasks:
            server.cli("CLIENT", "PAUSE", "200", "ALL")
            tasks.start_soon(load)
            await anyio.sleep(0.05)
            store._open.courier._nodes.all()[0].reads.drop()

    assert loaded == [{"k": b"v"}]


async def test_a_lost_connection_of_reads_puts_no_change_in_doubt(server: Server) -> None:
    async with RedisStore(server.url()) as store:
        await commit(store, birth(k=b"v"))
        outcomes: list[Outcome] = []

        async def save() -> None:
            outcomes.append(await commit(store, write(items={"k": b"w"})))

        async def load() -> None:
            await items(store)

        async with anyio.create_task_group() as tasks:
            server.freeze()
            tasks.start_soon(save)
            tasks.start_soon(load)
            await anyio.sleep(0.05)
            store._open.courier._nodes.all()[0].reads.drop()
            await anyio.sleep(0.05)
            server.thaw()

    assert outcomes == [Committed(0)]


@pytest.mark.parametrize("options", [["--appendonly", "yes", "--appendfsync", "always"]])
async def test_a_restart_under_load_loses_nothing_acknowledged(
    options: list[str], tally: Tally
) -> None:
    kills = effort(1, soak=40)
    with serving(*options) as server:
        for _ in range(kills):
            await _restart_under_load(server)
    tally("kills", kills)


async def _restart_under_load(server: Server) -> None:
    """Write until the server is killed; everything acknowledged must be there afterwards."""
    prefix = redis_servers.fresh_prefix()
    acknowledged: dict[str, int] = {}
    ended: set[str] = set()

    async with RedisStore(server.url(prefix=prefix)) as store:

        async def visitor(name: str) -> None:
            assert await commit(store, birth(name, n=b"0")) == Committed(0)
            number = 0
            while True:
                number += 1
                outcome = await commit(store, write(name, {"n": b"%d" % number}))
                if isinstance(outcome, StoreError):
                    return
                acknowledged[name] = number
                if number == 20 and name.startswith("leaving"):
                    if await commit(store, Destroy(name, None)) == Committed(0):
                        ended.add(name)
                    return

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(visitor, f"{'leaving' if number % 2 else 'staying'}{number}")
            await until(lambda: len(ended) == 10 and min(acknowledged.values()) >= 20)
            server.kill()
        server.start()

        for name, number in acknowledged.items():
            record = await store.load(name, NOW)
            if name in ended:
                assert record is None, "a logout was undone"
            else:
                assert record is not None
                assert int(record.items["n"]) in (number, number + 1)


# --- a server that forgets -----------------------------------------------------------------------


async def test_what_was_flushed_is_gone_and_nothing_comes_back(server: Server) -> None:
    async with RedisStore(server.url()) as store:
        await commit(store, birth(k=b"v"))

        server.cli("FLUSHALL")

        assert await items(store) is None
        assert await commit(store, write()) == Gone()
        assert await commit(store, Touch("h", 0, END + 1)) == Gone()
        assert await commit(store, Destroy("h", None)) == Gone()
        assert server.cli("DBSIZE") == "0"


async def test_forgotten_scripts_are_loaded_again_and_nobody_notices(server: Server) -> None:
    async with RedisStore(server.url()) as store:
        await commit(store, birth())

        async def forget() -> None:
            for _ in range(20):
                await anyio.to_thread.run_sync(server.cli, "SCRIPT", "FLUSH")

        async def use(number: int) -> None:
            name = f"{number}"
            assert await commit(store, birth(name, n=b"0")) == Committed(0)
            for n in range(1, 30):
                assert await commit(store, write(name, {"n": b"%d" % n})) == Committed(0)
            assert await items(store, name) == {"n": b"29"}
            assert await commit(store, Destroy(name, 0)) == Committed(0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forget)
            for number in range(8):
                tasks.start_soon(use, number)


# --- a server that refuses -----------------------------------------------------------------------


async def test_without_memory_it_refuses_writes_loudly_and_logouts_work(server: Server) -> None:
    async with RedisStore(server.url()) as store:
        await commit(store, birth(k=b"v"), birth("leaving"))
        server.cli("CONFIG", "SET", "maxmemory", "1")

        for change in (birth("new"), write()):
            outcome = await commit(store, change)
            assert isinstance(outcome, StoreUnavailable)
            assert "no memory left" in str(outcome)
        assert await items(store) == {"k": b"v"}
        assert await commit(store, Destroy("leaving", 0)) == Committed(0)
        assert await items(store, "leaving") is None

        server.cli("CONFIG", "SET", "maxmemory", "0")
        assert await commit(store, write(items={"k": b"w"})) == Committed(0)


async def test_a_replica_refuses_and_tells_nothing_old(server: Server) -> None:
    async with RedisStore(server.url()) as store:
        await commit(store, birth())
        server.cli("REPLICAOF", "127.0.0.1", "1")

        outcome = await commit(store, write("nobody"))

        assert isinstance(outcome, StoreUnavailable)
        assert "is a replica" in str(outcome), "not Gone: the primary may know of the session"
        server.cli("REPLICAOF", "NO", "ONE")
        assert await commit(store, write()) == Committed(0)


async def test_too_few_replicas_refuse(server: Server) -> None:
    async with RedisStore(server.url()) as store:
        server.cli("CONFIG", "SET", "min-replicas-to-write", "1")

        outcome = await commit(store, birth())

    assert isinstance(outcome, StoreUnavailable)
    assert "min-replicas-to-write" in str(outcome)


async def test_an_error_that_nobody_foresaw_is_a_doubt_and_costs_nobody_else(
    server: Server,
) -> None:
    server.cli("ACL", "SETUSER", "odd", "on", ">hush", "~*", "+@all", "-hset")
    url = f"redis://odd:hush@127.0.0.1:{server.port}"
    async with RedisStore(url) as store:
        outcomes = await store.commit([birth(), write("nobody")], NOW)
        server.cli("ACL", "SETUSER", "odd", "-hgetall")
        with pytest.raises(StoreUnavailable, match="does not allow its user"):
            await store.load("h", NOW)

    assert isinstance(outcomes[0], SaveOutcomeUnknown)
    assert "can't run this command" in str(outcomes[0])
    assert outcomes[1] == Gone()


async def test_what_is_no_text_is_refused_alone_and_costs_nobody_else(server: Server) -> None:
    async with RedisStore(server.url()) as store:
        outcomes = await store.commit(
            [
                birth("before", k=b"v"),
                replace(birth("a"), principal="\ud800"),
                replace(birth("b"), items={"\udfff": b"v"}),
                replace(birth("after"), principal="ada"),
                Destroy("\ud800", None),
            ],
            NOW,
        )

    assert [outcomes[0], *outcomes[3:]] == [Committed(0), Committed(0), Gone()]
    for outcome in outcomes[1:3]:
        assert isinstance(outcome, StoreUnavailable)
        assert "not Unicode text; nothing was stored" in str(outcome)
    assert server.cli("KEYS", "minisession:{?}") == ""


RIGHTS = EXPLANATIONS["NOPERM"].partition("SETUSER app ")[2].split()


async def test_the_rights_that_the_error_names_are_enough(server: Server) -> None:
    server.cli("ACL", "SETUSER", "app", "on", ">p@ss", *RIGHTS)

    async with RedisStore(f"redis://app:p%40ss@127.0.0.1:{server.port}/0") as store:
        assert await commit(store, replace(birth(k=b"v"), principal="ada")) == Committed(0)
        assert await commit(store, replace(write(), clear=True, expires=END + 9e4)) == Committed(0)
        assert await items(store) == {"k": b"v"}
        assert len(await store.of_principal("ada", NOW)) == len(await store.scan(NOW)) == 1
        assert await commit(store, Destroy("h", 0)) == Committed(0)


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        ("app:hush@", "does not allow its user"),
        ("app:wrong@", "does not accept this user and password"),
        ("", "wants a password"),
    ],
)
async def test_who_may_not_is_told_so_at_the_opening(
    server: Server, credentials: str, words: str
) -> None:
    server.cli("ACL", "SETUSER", "app", "on", ">hush", "~*", "+@read", "+@connection")
    server.cli("ACL", "SETUSER", "default", "off", "resetpass")

    with pytest.raises(StoreUnavailable, match=words) as caught:
        async with RedisStore(f"redis://{credentials}127.0.0.1:{server.port}"):
            pass

    assert "hush" not in str(caught.value)
    assert "wrong@" not in str(caught.value)


async def test_a_database_that_does_not_exist_fails_the_opening(server: Server) -> None:
    with pytest.raises(StoreUnavailable, match="out of range"):
        async with RedisStore(f"redis://127.0.0.1:{server.port}/99"):
            pass


async def test_a_service_that_sentinel_does_not_know_fails_the_opening() -> None:
    url = f"redis+sentinel://127.0.0.1:{redis_servers.sentinels().sentinel.port}/nobody"

    with pytest.raises(StoreUnavailable, match=r"'nobody': Sentinel at .* knows no such service"):
        async with RedisStore(url):
            pass


async def test_a_primary_that_is_a_replica_by_now_is_not_used() -> None:
    place = await anyio.to_thread.run_sync(Sentinels)
    try:
        place.primary.cli("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="is a replica still"):
            async with RedisStore(place.url()):
                pass
    finally:
        place.end()


async def test_a_slot_that_nobody_holds_refuses_and_is_asked_for_again() -> None:
    url = redis_servers.cluster().url(prefix=redis_servers.fresh_prefix())
    async with RedisStore(url) as store:
        nodes = store._open._nodes
        assert isinstance(nodes, Cluster)
        nodes._owners.clear()

        outcome = await commit(store, birth())

        assert isinstance(outcome, StoreUnavailable)
        assert "no server of the cluster holds slot" in str(outcome)
        with pytest.raises(StoreUnavailable, match="no server of the cluster holds slot"):
            await store.load("h", NOW)
        await until(lambda: bool(nodes._owners))
        assert await commit(store, birth()) == Committed(0)


async def test_a_connection_lost_before_anything_was_sent_stored_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RedisStore(server.url()) as store:
        commits = store._open.courier._nodes.all()[0].commits
        connection = await commits._connected()
        connection.invalidate()
        assert "127.0.0.1" in repr(connection)

        async def still() -> BaseConnection:
            return connection

        monkeypatch.setattr(commits, "_connected", still)
        outcome = await commit(store, birth())

    assert isinstance(outcome, StoreUnavailable)
    assert "nothing was stored" in str(outcome)


async def test_a_connection_that_is_just_being_closed_refuses_and_the_store_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RedisStore(server.url()) as store:
        commits = store._open.courier._nodes.all()[0].commits
        connection = await commits._connected()

        async def closing() -> BaseConnection:
            connection._write_buffer_in.close()  # what coredis closes before it is unusable
            return connection

        with monkeypatch.context() as patched:
            patched.setattr(commits, "_connected", closing)
            outcome = await commit(store, birth())

        assert isinstance(outcome, StoreUnavailable)
        assert "ClosedResourceError; nothing was stored" in str(outcome)
        await until(lambda: not connection.usable)
        assert await commit(store, birth()) == Committed(0)


async def test_a_task_that_fails_is_in_the_log_and_ends_nothing_else(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    async with RedisStore(server.url()) as store:
        store._open.lanes._home.start(broken)
        await until(lambda: "ZeroDivisionError" in caplog.text)

        assert await commit(store, birth()) == Committed(0)


async def test_a_stream_that_ends_in_the_handshake_is_a_refusal(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def ended(*_: object) -> None:
        raise anyio.EndOfStream

    monkeypatch.setattr(link, "_connect_tcp", ended)

    with pytest.raises(StoreUnavailable, match="cannot be reached: EndOfStream"):
        async with RedisStore(server.url()):
            pass
    assert caplog.text == ""


async def test_a_bug_in_connecting_is_a_refusal_and_in_the_log(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(link, "_connect_tcp", broken)

    with pytest.raises(StoreUnavailable, match=r"cannot be reached \(ZeroDivisionError\)"):
        async with RedisStore(server.url()):
            pass
    assert "nobody thought of" in caplog.text


def held_by(server: Server, store: RedisStore) -> Callable[[bytes], bool]:
    """Tell of a key whether the store takes this server of a cluster for its owner."""
    nodes = store._open.lanes._nodes
    return lambda key: nodes.node_of(key).name.endswith(f":{server.port}")


async def test_a_frozen_server_of_a_cluster_holds_up_only_who_needs_it() -> None:
    place = redis_servers.cluster()
    frozen = place.primaries[0]
    keys = Keys(redis_servers.fresh_prefix())
    async with RedisStore(place.url(prefix=keys.prefix)) as store:
        nodes = store._open.lanes._nodes
        is_frozens = held_by(frozen, store)
        names = [f"{number}" for number in range(200)]
        other = nodes.node_of(keys.session(names[0]))
        if is_frozens(keys.session(names[0])):
            other = next(node for node in nodes.all() if node is not other)
        elsewhere = [n for n in names[:100] if nodes.node_of(keys.session(n)) is other]
        held_up = next(name for name in names if is_frozens(keys.index(name)))
        free = next(name for name in names if not is_frozens(keys.index(name)))
        login, behind, *strangers, other_login = elsewhere[:12]
        await store.commit([birth(name) for name in names[100:]], NOW)  # so all are connected
        outcomes: dict[str, Outcome] = {}

        async def come(name: str, principal: str | None) -> None:
            outcomes[name] = await commit(store, replace(birth(name), principal=principal))

        async def go_on(name: str) -> None:
            outcomes["later"] = await commit(store, write(name))

        frozen.freeze()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(come, login, held_up)
                for name in strangers:
                    tasks.start_soon(come, name, None)
                tasks.start_soon(come, other_login, free)
                await until(lambda: len(outcomes) == len(strangers) + 1)
                tasks.start_soon(come, behind, held_up)
                await until(lambda: bool(store._open.lanes._queued))
                with anyio.move_on_after(0.1):  # a round trip takes a hundredth of that
                    await go_on(behind)  # which must not overtake its login
                assert outcomes.keys().isdisjoint({login, behind, "later"})
                frozen.thaw()
        finally:
            frozen.thaw()

        assert outcomes == dict.fromkeys(elsewhere[:12], Committed(0))
        assert {each.handle for each in await store.of_principal(held_up, NOW)} == {login, behind}
        assert await commit(store, Touch(behind, 0, END)) == Committed(0)  # after what was left
        record = await store.load(behind, NOW)
        assert record is not None
        assert record.items == write(behind).items


async def test_what_waited_behind_a_change_that_is_withdrawn_goes_on(server: Server) -> None:
    first, second = write(items={"a": b"1"}), write(items={"b": b"1"})
    outcomes: list[Outcome] = []
    async with RedisStore(server.url()) as store:
        await commit(store, birth())

        async def hand_over() -> None:
            outcomes.extend(await store.commit([first, second], NOW))

        server.freeze()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(commit, store, birth("other"))
                await until(lambda: bool(store._open.lanes._taken))
                tasks.start_soon(hand_over)
                await until(lambda: len(store._open.lanes._queued) == 2)
                assert store.withdraw(first)
                server.thaw()
        finally:
            server.thaw()

    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable, Committed]


async def test_an_index_on_a_frozen_server_is_renewed_when_it_thaws() -> None:
    place = redis_servers.cluster()
    frozen = place.primaries[0]
    keys = Keys(redis_servers.fresh_prefix())
    async with RedisStore(place.url(prefix=keys.prefix)) as store:
        is_frozens = held_by(frozen, store)
        names = [f"{number}" for number in range(200)]
        name = next(name for name in names if not is_frozens(keys.session(name)))
        principal = next(name for name in names if is_frozens(keys.index(name)))
        index = keys.index(principal).decode()
        await commit(store, replace(birth(name), principal=principal))

        frozen.freeze()
        try:
            for n in range(3):
                touch = Touch(name, 0, END + 99_999 + n)
                assert await commit(store, touch) == Committed(0)
        finally:
            frozen.thaw()

        await until(lambda: float(frozen.cli("ZSCORE", index, name)) > END + 99_999)


async def test_a_cluster_that_is_named_as_one_server_says_how_to_name_it() -> None:
    url = f"redis://127.0.0.1:{redis_servers.cluster().primaries[0].port}"
    async with RedisStore(url) as store:
        outcomes = [await commit(store, birth(f"{number}")) for number in range(9)]
        logins = [
            await commit(store, replace(birth(f"{number}"), principal="ada"))
            for number in range(9, 18)
        ]

    for tried in (outcomes, logins):
        refused = [outcome for outcome in tried if isinstance(outcome, StoreUnavailable)]
        assert refused
        assert all("redis+cluster://" in str(outcome) for outcome in refused)


async def test_a_cluster_of_one_server_may_be_named_as_one_server() -> None:
    server = redis_servers.ClusterServer("redis-server", ())
    try:
        server.cli("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        redis_servers.until(
            lambda: server.says("cluster_state:ok", "CLUSTER", "INFO"), "all slots are there"
        )
        async with RedisStore(server.url()) as store:
            login = await commit(store, replace(birth(), principal="ada"))
            listed = await store.of_principal("ada", NOW)
    finally:
        server.end()

    assert login == Committed(0)
    assert [each.handle for each in listed] == [birth().handle]


async def test_a_change_that_waits_while_its_slot_moves_is_sent_to_the_new_server() -> None:
    place = redis_servers.Cluster()
    try:
        keys = Keys(redis_servers.fresh_prefix())
        async with RedisStore(place.url(prefix=keys.prefix)) as store:
            nodes = store._open.lanes._nodes
            names = [f"{number}" for number in range(100)]
            first = nodes.node_of(keys.session(names[0]))
            moves = next(name for name in names[1:] if nodes.node_of(keys.session(name)) is first)
            at = int(first.name.rpartition(":")[2])
            old, new, third = sorted(place.primaries, key=lambda server: server.port != at)
            old_name, new_name = (server.cli("CLUSTER", "MYID") for server in (old, new))
            outcomes: dict[str, Outcome] = {}

            async def come(name: str) -> None:
                outcomes[name] = await commit(store, birth(name))

            old.freeze()
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(come, names[0])
                    await until(lambda: bool(store._open.lanes._taken))
                    tasks.start_soon(come, moves)
                    await until(lambda: bool(store._open.lanes._queued))
                    moved = slot(keys.session(moves))
                    new.cli("CLUSTER", "SETSLOT", moved, "IMPORTING", old_name)
                    for server in (new, third):
                        server.cli("CLUSTER", "SETSLOT", moved, "NODE", new_name)
                    nodes.suspect(first, said=False)
                    await until(lambda: moves in outcomes)
                    assert names[0] not in outcomes
                    old.thaw()
            finally:
                old.thaw()
    finally:
        place.end()

    assert outcomes == {moves: Committed(0), names[0]: Committed(0)}


async def test_closing_waits_only_a_little_for_indexes_to_be_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "RENEWAL_TIMEOUT", 0.01)
    monkeypatch.setattr(opened, "CLOSE_TIMEOUT", math.inf)
    place = redis_servers.cluster()
    frozen = place.primaries[0]
    keys = Keys(redis_servers.fresh_prefix())
    names = [f"{number}" for number in range(200)]
    try:
        with anyio.fail_after(3):  # before the answer of a frozen server is given up
            async with RedisStore(place.url(prefix=keys.prefix)) as store:
                is_frozens = held_by(frozen, store)
                name = next(name for name in names if not is_frozens(keys.session(name)))
                principal = next(name for name in names if is_frozens(keys.index(name)))
                await commit(store, replace(birth(name), principal=principal))
                frozen.freeze()
                touched = await commit(store, Touch(name, 0, END + 99_999))
                assert store._open.lanes._due
    finally:
        frozen.thaw()

    assert touched == Committed(0)


async def test_an_answer_that_nobody_understands_is_told_to_all_of_its_batch(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def misunderstand(*_: object) -> NoReturn:
        raise ZeroDivisionError

    async with RedisStore(server.url()) as store:
        with monkeypatch.context() as broken:
            broken.setattr(wire, "outcome_of", misunderstand)
            outcomes = await store.commit([birth("a"), birth("b")], NOW)
        after = await commit(store, write("a"))

    assert [type(outcome) for outcome in outcomes] == [SaveOutcomeUnknown, SaveOutcomeUnknown]
    assert after == Committed(0)
    assert "nobody thought of" in caplog.text


async def test_a_single_server_that_is_named_as_a_cluster_says_so(server: Server) -> None:
    with pytest.raises(StoreUnavailable, match="cluster support disabled"):
        async with RedisStore(f"redis+cluster://127.0.0.1:{server.port}"):
            pass


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture
def authority(certificate: Certificate, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    certificate.authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
async def secured(certificate: Certificate) -> AsyncIterator[Server]:
    options = ("--tls-cert-file", certificate.certfile, "--tls-key-file", certificate.keyfile)
    with serving(*options, "--tls-auth-clients", "no", tls=True) as server:
        yield server


async def test_it_speaks_tls(secured: Server, authority: Path) -> None:
    async with RedisStore(f"rediss://127.0.0.1:{secured.port}?cafile={authority}") as store:
        assert await commit(store, birth(k=b"v")) == Committed(0)
        assert await items(store) == {"k": b"v"}


@pytest.mark.parametrize("scheme", ["rediss", "redis"])
async def test_who_is_not_trusted_and_who_speaks_no_tls_fail_the_opening(
    secured: Server, scheme: str
) -> None:
    with pytest.raises(StoreUnavailable, match=f"Redis at 127.0.0.1:{secured.port}"):
        async with RedisStore(f"{scheme}://127.0.0.1:{secured.port}"):
            pass


async def test_an_authority_that_cannot_be_read_is_an_error_of_the_url(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cafile=.*in PEM"):
        async with RedisStore(f"rediss://127.0.0.1:1?cafile={tmp_path}/none.pem"):
            pass


# --- confirmations -------------------------------------------------------------------------------


async def test_what_too_few_replicas_confirm_is_in_doubt(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "CONFIRM_TIMEOUT", 50)
    async with RedisStore(server.url(wait=1)) as store:
        outcomes = await store.commit([birth(), write("nobody")], NOW)

    assert [type(outcome) for outcome in outcomes] == [SaveOutcomeUnknown] * 2
    assert "WAIT asks for [1] and got 0 within 0.05 s" in str(outcomes[0])


async def test_what_a_replica_confirms_is_committed(server: Server) -> None:
    with serving("--replicaof", f"127.0.0.1 {server.port}") as replica:
        replica.wait_for_sync(server)
        async with RedisStore(server.url(wait=1)) as store:
            assert await commit(store, birth(k=b"v")) == Committed(0)
            assert replica.cli("EXISTS", "minisession:{h}") == "1"


@redis_servers.NEEDS_VALKEY
async def test_a_disk_confirms_where_there_is_an_append_only_file() -> None:
    with serving("--appendonly", "yes", program="valkey-server") as server:
        async with RedisStore(server.url(waitaof=1)) as store:
            assert await commit(store, birth(k=b"v")) == Committed(0)


@redis_servers.NEEDS_VALKEY
async def test_a_confirmation_that_a_server_cannot_give_fails_the_opening() -> None:
    refused = pytest.raises(StoreUnavailable, match=r"WAITAOF is refused: Redis at .*appendonly")
    with serving(program="valkey-server") as server, refused:
        async with RedisStore(server.url(waitaof=1)):
            pass


async def test_a_server_that_does_not_know_a_confirmation_is_said_to_be_too_old() -> None:
    words = r"Redis at .* is too old\. WAITAOF needs Redis 7\.2 or newer, or Valkey"
    is_known = redis_servers.redis().cli("COMMAND", "INFO", "WAITAOF")
    as_before = ("--rename-command", "WAITAOF", "") if is_known else ()
    with serving(*as_before) as server, pytest.raises(StoreUnavailable, match=words):
        async with RedisStore(server.url(waitaof=1)):
            pass
