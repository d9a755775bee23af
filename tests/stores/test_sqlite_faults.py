"""Real faults of the SQLite store: a clear error, nothing lost, working again without the cause."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from minisession.abc import Change, Committed, Destroy, Gone, Outcome, Touch
from minisession.errors import StoreCorrupt, StoreUnavailable
from minisession.stores._sqlite import batches, connect
from minisession.stores.sqlite import SQLiteStore

from .kit import END, NOW, birth, born, commit, items, run_script, write

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def edit(path: Path, *statements: str) -> None:
    """Change the file behind the store's back, as a person with a shell does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def content(path: Path) -> bytes:
    return path.read_bytes()


def replace_content(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def rows(path: Path, query: str = "SELECT * FROM session") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


async def refusals(store: SQLiteStore) -> list[str]:
    """The messages with which the store refuses to load, commit, purge and list."""
    messages: list[str] = []
    for refused in (
        lambda: store.load("h", NOW),
        lambda: store.purge(NOW, 1),
        lambda: store.scan(NOW),
        lambda: store.of_principal("p", NOW),
        lambda: store.alive(["h"], NOW),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await refused()
        messages.append(str(caught.value))
    outcome = await commit(store, birth())
    assert type(outcome) is StoreUnavailable
    return [*messages, str(outcome)]


# The file


async def test_a_missing_directory_is_named_and_once_made_all_works(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    store = SQLiteStore(folder / "sessions.db")

    for message in await refusals(store):
        assert f"session database {folder}/sessions.db cannot be created" in message
        assert f"the directory {folder} exists" in message
    with pytest.raises(StoreUnavailable):
        await store.__aenter__()
    await anyio.Path(folder).mkdir()

    async with store:
        await born(store)


async def test_a_directory_is_no_database(tmp_path: Path) -> None:
    for message in await refusals(SQLiteStore(tmp_path)):
        assert f"session database {tmp_path} cannot be opened" in message


@pytest.mark.parametrize("garbage", [b"no database at all\n" * 500, b"SQLite format 3\0" * 500])
async def test_what_is_no_database_is_left_alone(path: Path, garbage: bytes) -> None:
    replace_content(path, garbage)
    store = SQLiteStore(path)

    for message in await refusals(store):
        assert f"session database {path} is not an SQLite database" in message
    await store.__aexit__(None, None, None)

    assert content(path) == garbage


async def test_a_damaged_header_is_an_outage_and_not_an_empty_store(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store, k=b"v")
    sound = content(path)
    replace_content(path, b"\xff" * 100 + sound[100:])
    store = SQLiteStore(path)
    assert len(await refusals(store)) == 6

    replace_content(path, sound)

    assert await items(store) == {"k": b"v"}
    assert await commit(store, write()) == Committed(0)
    await store.__aexit__(None, None, None)


async def test_damaged_pages_are_an_outage_for_those_whom_they_concern(path: Path) -> None:
    async with SQLiteStore(path) as store:
        for number in range(100):
            await born(store, f"h{number:03}", k=b"x" * 100)
    sound = content(path)
    half = len(sound) // 2
    replace_content(path, sound[:half] + b"\xa5" * (len(sound) - half))
    handles = [f"h{number:03}" for number in range(100)]
    store = SQLiteStore(path)

    loaded: list[object] = []
    for handle in handles:
        try:
            loaded.append(await items(store, handle))
        except StoreUnavailable as error:
            loaded.append("outage" if "is damaged" in str(error) else error)
    outcomes = await store.commit([write(handle) for handle in handles], NOW)
    with pytest.raises(StoreUnavailable, match="is damaged"):
        await store.scan(NOW)
    await store.__aexit__(None, None, None)

    assert all(answer in ({"k": b"x" * 100}, "outage") for answer in loaded)
    assert "outage" in loaded
    assert {type(outcome) for outcome in outcomes} <= {Committed, StoreUnavailable}
    assert StoreUnavailable in {type(outcome) for outcome in outcomes}


async def test_the_database_of_another_program_is_left_as_it_is(path: Path) -> None:
    edit(path, "CREATE TABLE users (name)", "PRAGMA user_version = 1")
    before = content(path)

    for message in await refusals(SQLiteStore(path)):
        assert message.startswith(f"{path} is a database of another program")

    assert content(path) == before


async def test_an_old_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))

    for message in await refusals(SQLiteStore(path)):
        assert "need 3.37.0 or newer" in message


async def test_a_file_that_was_deleted_is_noticed_before_anything_is_written_to_it(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with SQLiteStore(path) as store:
        await born(store)
        for file in list(path.parent.iterdir()):
            file.unlink()

        assert await commit(store, write()) == Gone()
        await born(store, "new")
        assert await items(store) is None
        assert await items(store, "new") == {}

    assert "deleted or replaced" in caplog.text
    assert len(rows(path)) == 1


async def test_no_write_ahead_log_no_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What SQLite answers where it has no shared memory, as on some network file systems.
    monkeypatch.setattr(connect, "WAL", "PRAGMA journal_mode = TRUNCATE")

    for message in await refusals(SQLiteStore(path)):
        assert "cannot use a write-ahead log (journal mode 'truncate')" in message


# Locks


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_lock_that_stays_refuses_all_and_loses_nothing(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store, k=b"old")
        changes = [write(items={f"k{number}": b"v"}) for number in range(50)]
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")

            with anyio.fail_after(3 * connect.BUSY_TIMEOUT):  # one wait for all, not one for each
                outcomes = await store.commit(changes, NOW)
            assert await items(store) == {"k": b"old"}

        assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
        assert f"session database {path} is locked by another program" in str(outcomes[0])
        assert await store.commit(changes, NOW) == [Committed(0)] * 50


# Space


def with_pragma(pragma: str) -> Callable[[str], sqlite3.Connection]:
    """Connect as the writer does, to a database that has a limit of its own."""

    def limited(path: str) -> sqlite3.Connection:
        connection = connect.connect(path)
        connection.execute(pragma)
        return connection

    return limited


async def test_a_full_disk_refuses_what_does_not_fit_and_stores_what_does(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = {"large": b"x" * 500_000}
    async with SQLiteStore(path) as store:
        await born(store, k=b"old")
    monkeypatch.setattr(batches, "connect", with_pragma("PRAGMA max_page_count = 40"))

    async with SQLiteStore(path) as store:
        outcomes = await store.commit(
            [write(items={"a": b"1"}), write(items=large), write(items={"b": b"2"})], NOW
        )
        assert list(map(type, outcomes)) == [Committed, StoreUnavailable, Committed]
        assert "the disk or the quota is full" in str(outcomes[1])
        assert await items(store) == {"k": b"old", "a": b"1", "b": b"2"}
        assert await commit(store, Destroy("h", 0)) == Committed(0)
    monkeypatch.undo()

    async with SQLiteStore(path) as store:
        await born(store, large=large["large"])


async def test_what_may_not_be_written_can_still_be_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLiteStore(path) as store:
        await born(store, k=b"old")
    monkeypatch.setattr(batches, "connect", with_pragma("PRAGMA query_only = ON"))

    async with SQLiteStore(path) as store:
        outcome = await commit(store, write())

        assert type(outcome) is StoreUnavailable
        assert "cannot be written. Give this user write access" in str(outcome)
        assert await items(store) == {"k": b"old"}
        monkeypatch.undo()
        assert await commit(store, write()) == Committed(0)


def test_when_the_system_refuses_to_write_nothing_that_was_stored_is_lost(path: Path) -> None:
    script = """
        import resource, sys, anyio
        from pathlib import Path
        from minisession.abc import Committed
        from minisession.stores.sqlite import SQLiteStore
        from tests.stores.kit import NOW, born, commit, items, write

        path = Path(sys.argv[1])
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

        async def main():
            async with SQLiteStore(path) as store:
                await born(store, k=b"old")
                size = path.with_name(path.name + "-wal").stat().st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10_000, unlimited[1]))
                outcome = await commit(store, write(items={"k": b"x" * 100_000}))
                print(type(outcome).__name__, "not known what was stored" in str(outcome))
                print(await items(store) == {"k": b"old"})
                resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
                print(await commit(store, write(items={"k": b"new"})) == Committed(0))
            print(await items(SQLiteStore(path)) == {"k": b"new"})

        anyio.run(main)
    """

    assert run_script(script, path).split("\n") == ["SaveOutcomeUnknown True", *["True"] * 3]


@pytest.mark.needs("unshare", "mount")
@pytest.mark.slow
def test_a_disk_that_is_really_full_refuses_and_works_again_when_there_is_space(
    tmp_path: Path,
) -> None:
    script = """
        import subprocess, sys, anyio
        from pathlib import Path
        from minisession.abc import Committed
        from minisession.stores.sqlite import SQLiteStore
        from tests.stores.kit import NOW, born, commit, items, write

        folder = Path(sys.argv[1])
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder])
        if mounted.returncode:
            print("no mount")
            sys.exit()

        async def main():
            async with SQLiteStore(folder / "sessions.db") as store:
                await born(store, k=b"old")
                filler = folder / "filler"
                with open(filler, "wb", buffering=0) as file:
                    try:
                        while True:
                            file.write(bytes(4096))
                    except OSError:
                        pass
                outcome = await commit(store, write(items={"k": b"x" * 100_000}))
                print(type(outcome).__name__, "is full" in str(outcome))
                print(await items(store) == {"k": b"old"})
                filler.unlink()
                print(await commit(store, write(items={"k": b"new"})) == Committed(0))
                print(await items(store) == {"k": b"new"})

        anyio.run(main)
    """
    printed = run_script(
        script, tmp_path, before=["unshare", "--user", "--map-root-user", "--mount"]
    )
    if printed == "no mount":
        pytest.skip("this system lets no user mount a small file system")

    assert printed.split("\n") == ["StoreUnavailable True", *["True"] * 3]


# Rows

LOOSE = (  # what somebody does who wants to get around STRICT
    "PRAGMA writable_schema = ON",
    "UPDATE sqlite_master SET sql = replace(sql, ') STRICT', ')')",
)
DAMAGE = {
    "a short secret": ("UPDATE session SET secret = x'00' WHERE handle = 'h'",),
    "a long previous secret": ("UPDATE session SET previous = zeroblob(33) WHERE handle = 'h'",),
    "a negative epoch": ("UPDATE session SET epoch = -1 WHERE handle = 'h'",),
}
LOOSE_DAMAGE = {
    "a text for a secret": f"UPDATE session SET secret = '{'x' * 32}' WHERE handle = 'h'",
    "a text for an end": "UPDATE session SET expires = 'never' WHERE handle = 'h'",
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_row_is_reported_with_its_handle_and_left_as_it_is(
    path: Path, damage: str
) -> None:
    async with SQLiteStore(path) as store:
        await born(store, k=b"v")
        await born(store, "neighbour", k=b"v")
    edit(path, *DAMAGE[damage])
    before = rows(path)[0]
    changes: list[Change] = [
        write(),
        birth(),
        Touch("h", 0, END + 9),
        Destroy("h", 0),
        write("neighbour"),
    ]

    async with SQLiteStore(path) as store:
        with pytest.raises(StoreCorrupt, match="session h: "):
            await store.load("h", NOW)
        outcomes: list[Outcome] = await store.commit(changes, NOW)
        assert await items(store, "neighbour") == {"k": b"v"}

    assert [type(outcome) for outcome in outcomes] == [StoreCorrupt] * 4 + [Committed]
    assert rows(path)[0] == before


@pytest.mark.parametrize("damage", LOOSE_DAMAGE)
async def test_values_of_the_wrong_type_are_damage_too(path: Path, damage: str) -> None:
    async with SQLiteStore(path) as store:
        await born(store, k=b"v")
    edit(path, *LOOSE)
    edit(path, LOOSE_DAMAGE[damage])

    async with SQLiteStore(path) as store:
        with pytest.raises(StoreCorrupt, match="session h: "):
            await store.load("h", NOW)
        assert isinstance(await commit(store, write()), StoreCorrupt)


async def test_a_text_that_is_no_text_is_damage_too(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store, k=b"v")
    edit(path, "UPDATE session SET principal = CAST(x'ff' AS TEXT)")

    async with SQLiteStore(path) as store:
        with pytest.raises(StoreCorrupt, match="session h: a stored text"):
            await store.load("h", NOW)
        assert isinstance(await commit(store, birth()), StoreCorrupt)
        assert isinstance(await commit(store, Destroy("h", 0)), StoreCorrupt)
        assert await commit(store, Destroy("h", None)) == Committed(0)


async def test_a_damaged_item_is_reported_with_the_handle_of_its_session(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store, k=b"v")
        await born(store, "other", k=b"v")
    edit(path, *LOOSE)
    edit(
        path,
        "UPDATE item SET data = 'text' WHERE session = 1",
        "UPDATE item SET key = CAST(x'ff' AS TEXT) WHERE session = 2",
    )

    async with SQLiteStore(path) as store:
        for handle in ("h", "other"):
            with pytest.raises(StoreCorrupt, match=f"session {handle}: "):
                await store.load(handle, NOW)


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_session_can_be_revoked(path: Path, damage: str) -> None:
    async with SQLiteStore(path) as store:
        await born(store, k=b"v")
    edit(path, *DAMAGE[damage])

    async with SQLiteStore(path) as store:
        assert await commit(store, Destroy("h", None)) == Committed(0)
        assert await items(store) is None

    assert rows(path, "SELECT * FROM item") == []


async def test_a_damaged_session_is_purged_when_it_has_expired(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await born(store, k=b"v")
    edit(path, *DAMAGE["a short secret"])

    async with SQLiteStore(path) as store:
        assert await store.purge(END - 1, 10) == 0
        assert await store.purge(END, 10) == 1
