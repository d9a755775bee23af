"""`minisession store` as its users meet it: what it says, what it changes, how it exits."""

from __future__ import annotations

import json
import re
import secrets
import signal
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import anyio
import pytest

from minisession._manager import SWEEP_BATCH
from minisession.abc import Create, Inspection, Record, Store
from minisession.cli import main, store, survey
from minisession.errors import StoreUnavailable
from minisession.stores.redis import RedisStore
from minisession.stores.sqlite import SQLiteStore
from tests import redis_servers
from tests.command import ROOT, finished
from tests.remote_store import RemoteStore

HOUR = 3600.0


def birth(
    ends_in: float, *, age: float = 0.0, principal: str | None = None, value: bytes = b'"v"'
) -> Create:
    now = time.time()
    handle = secrets.token_urlsafe(16)
    born, end = now - age, now + ends_in
    return Create(handle, bytes(32), {"k": value}, born, end, end, 1 << 20, principal)


def fill(store: Store, changes: Sequence[Create]) -> None:
    async def commit() -> None:
        async with store:
            # As of the time when they were made: some have expired meanwhile.
            await store.commit(changes, min(change.created for change in changes) - HOUR)

    anyio.run(commit)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three sessions of two principals, and seven that have expired."""
    living = [
        birth(HOUR, age=120, principal="ada"),
        birth(HOUR, principal="ada"),
        birth(HOUR, principal="eve"),
    ]
    expired = [birth(-1, age=HOUR) for _ in range(7)]
    fill(SQLiteStore(tmp_path / "sessions.db"), [*living, *expired])
    return tmp_path


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
    """A store that cannot be inspected, under a URL."""
    remote = RemoteStore()
    monkeypatch.setattr(store, "open_store", lambda _: remote)
    return remote


def edit(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "sessions.db", isolation_level=None)) as connection:
        connection.execute(statement)


def asked(folder: Path, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run("store", command, f"sqlite:///{folder}/sessions.db", *options)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which is quicker to start."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as errors:
        try:
            code: object = main(arguments)
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), errors.getvalue())


def told(folder: Path, command: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(asked(folder, command, "--json").stdout)
    return values


# --- what it says of SQLite


def test_stats_count_what_lives_and_what_waits(folder: Path) -> None:
    done = asked(folder, "stats")

    lines = dict(re.split(r"  +", line, maxsplit=1) for line in done.stdout.splitlines())
    assert done.returncode == 0
    assert lines["store"] == f"<SQLiteStore {folder}/sessions.db>"
    assert lines["living sessions"] == "3, of 2 principals"
    assert lines["waiting for a purge"] == "7"
    assert re.fullmatch(r"[\d.]+ KiB, [\d.]+ (bytes|KiB) a session", lines["room"])
    assert lines["format"] == "SQLite, schema 1"
    oldest, newest = lines["oldest, newest"].split(", ")
    assert oldest < newest


def test_purge_removes_what_has_expired_and_nothing_else(folder: Path) -> None:
    done = asked(folder, "purge")

    assert (done.returncode, done.stdout) == (0, "7 expired sessions removed\n")
    assert "purging expired sessions: 100 %" in done.stderr
    assert told(folder, "purge") == {"removed": 0}
    assert told(folder, "stats")["living"] == 3


def test_a_sound_store_is_0(folder: Path) -> None:
    done = finished(folder, "store", "check", "sqlite:///sessions.db")

    assert (done.returncode, done.stdout) == (0, "3 sessions read, everything is sound\n")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE session SET secret = x'00' WHERE id = 2", "the stored row is damaged"),
        ("UPDATE item SET data = x'ff' WHERE session = 2", 'the value of ["k"] cannot be read'),
    ],
)
def test_a_damaged_session_is_1_and_told_by_its_handle(
    folder: Path, statement: str, said: str
) -> None:
    edit(folder, statement)

    done, values = asked(folder, "check"), told(folder, "check")

    assert done.returncode == 1
    assert done.stdout.startswith("3 sessions read, damage:\n  session ")
    assert said in done.stdout
    assert done.stderr.endswith("this store is damaged; what is damaged was left as it is\n")
    [damage] = values["damage"]
    assert damage["session"] in damage["what"]


def test_damage_that_no_load_meets_is_told_too(folder: Path) -> None:
    edit(folder, "DELETE FROM session WHERE id = 2")

    done = asked(folder, "check")

    assert done.returncode == 1
    assert "1 stored values belong to no session" in done.stdout


def test_a_list_that_cannot_be_read_is_damage(folder: Path) -> None:
    edit(folder, "UPDATE session SET principal = CAST(x'ff' AS TEXT) WHERE id = 2")

    done = asked(folder, "check")

    assert done.returncode == 1
    assert "the handle or principal in row 2" in done.stdout
    assert "cannot be used" in done.stdout


def test_an_empty_store_is_no_special_case(tmp_path: Path) -> None:
    fill(SQLiteStore(tmp_path / "sessions.db"), [birth(-1, age=HOUR)])
    asked(tmp_path, "purge")

    done = asked(tmp_path, "stats")

    assert "living sessions      0, of 0 principals\n" in done.stdout
    assert "oldest, newest       none, none\n" in done.stdout
    assert re.search(r"^room +[\d.]+ KiB(, [\d.]+ KiB of it empty)?$", done.stdout, re.MULTILINE)


# --- what it says of Redis


@redis_servers.NEEDS_REDIS
def test_each_damaged_session_on_a_server_is_told_once() -> None:
    server, prefix = redis_servers.redis(), redis_servers.fresh_prefix()
    url = server.url(prefix=prefix)
    births = [birth(HOUR) for _ in range(5)]
    fill(RedisStore(url), births)
    no_hash, headless, secretless, newer, sound = (each.handle for each in births)
    server.cli("DEL", f"{prefix}{{{no_hash}}}")
    server.cli("SET", f"{prefix}{{{no_hash}}}", "foo")
    server.cli("HSET", f"{prefix}{{{headless}}}", "x", "nonsense")
    server.cli("HDEL", f"{prefix}{{{secretless}}}", "s")
    server.cli("HSET", f"{prefix}{{{newer}}}", "v", "2")

    done = run("store", "check", url)

    head, *damage = done.stdout.splitlines()
    assert (done.returncode, head) == (1, "2 sessions read, damage:")
    assert sorted(line.partition(": ")[0] for line in damage) == sorted(
        f"  session {handle}" for handle in (no_hash, headless, secretless, newer)
    )
    assert sound not in done.stdout


@redis_servers.NEEDS_REDIS
def test_a_sound_server_is_0_and_has_nothing_to_purge() -> None:
    url = redis_servers.redis().url(prefix=redis_servers.fresh_prefix())
    fill(RedisStore(url), [birth(HOUR, principal="ada")])

    checked, stock = run("store", "check", url), run("store", "stats", url)

    assert (checked.returncode, checked.stdout) == (0, "1 sessions read, everything is sound\n")
    assert "living sessions      1, of 1 principals\n" in stock.stdout
    assert "waiting for a purge  0\n" in stock.stdout
    assert "format               Redis, format 1\n" in stock.stdout


# --- what it says of a store that cannot be inspected


def test_any_store_is_counted(remote: RemoteStore, capsys: pytest.CaptureFixture[str]) -> None:
    fill(remote, [birth(HOUR, principal="ada") for _ in range(1500)])

    assert main(["store", "stats", "any://"]) == 0

    out = capsys.readouterr().out
    assert "living sessions      1,500, of 1 principals\n" in out
    assert "room" not in out


def test_any_store_is_purged(remote: RemoteStore, capsys: pytest.CaptureFixture[str]) -> None:
    fill(remote, [birth(-1, age=HOUR) for _ in range(SWEEP_BATCH + 1)] + [birth(HOUR)])

    assert main(["store", "purge", "any://"]) == 0

    assert capsys.readouterr().out == f"{SWEEP_BATCH + 1} expired sessions removed\n"
    assert len(anyio.run(remote.inner.scan, time.time())) == 1


def test_any_store_is_checked(remote: RemoteStore, capsys: pytest.CaptureFixture[str]) -> None:
    fill(remote, [birth(HOUR), birth(HOUR, value=b"no JSON")])

    assert main(["store", "check", "any://"]) == 1

    out = capsys.readouterr().out
    assert out.startswith("2 sessions read, damage:\n")
    assert "not a value in UTF-8 encoded JSON" in out
    assert "no JSON" not in out


def test_an_outage_is_no_damage(remote: RemoteStore, capsys: pytest.CaptureFixture[str]) -> None:
    fill(remote, [birth(HOUR) for _ in range(5)])
    remote.load_error = StoreUnavailable("nobody answers")

    assert main(["store", "check", "any://"]) == 1

    told = capsys.readouterr()
    assert told.out == ""
    assert "nobody answers" in told.err
    assert "damage" not in told.err


def test_damage_that_was_found_before_an_outage_is_told(
    remote: RemoteStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, away = birth(HOUR, value=b"no JSON"), birth(HOUR)
    fill(remote, [damaged, away])

    async def load(handle: str, now: float) -> Record | None:
        if handle == away.handle:
            raise StoreUnavailable("nobody answers")
        return await remote.inner.load(handle, now)

    monkeypatch.setattr(remote, "load", load)

    assert main(["store", "check", "any://"]) == 1

    first, about_one, about_the_rest = capsys.readouterr().out.splitlines()
    assert first == "1 sessions read, damage:"
    assert damaged.handle in about_one
    assert about_the_rest == "  not everything could be read: nobody answers"


@pytest.mark.parametrize(
    ("inspection", "room"),
    [
        (Inspection("a box"), "not known"),
        (Inspection("a box", None, 4096), "4.0 KiB, 2.0 KiB a session"),
        (Inspection("a box", 6, 5 << 30, 1 << 30), "5.0 GiB, 512.0 MiB a session, 1.0 GiB"),
        (Inspection("a box", 0, 5 << 60), "5242880.0 TiB, "),
    ],
)
def test_what_a_store_cannot_say_is_not_known(
    inspection: Inspection, room: str, remote: RemoteStore
) -> None:
    stock = survey.Stock(2, 0, None, None, inspection)

    text = store._told(remote, stock)

    waiting = "not known" if inspection.expired is None else inspection.expired
    assert f"room                 {room}" in text
    assert f"waiting for a purge  {waiting}\n" in text


# --- what is wrong


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: COMMAND"),
        (["stats"], "required: URL"),
        (["look", "memory://"], "invalid choice: 'look'"),
        (["stats", "memory://"], "from outside there is nothing to look at"),
        (["check", "sqlight:///x"], "store=sqlight:...: no such store"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_what_is_allowed(
    arguments: list[str], said: str
) -> None:
    done = run("store", *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_store_that_is_not_there_exits_with_1_and_is_not_made(tmp_path: Path) -> None:
    done = asked(tmp_path, "check")

    assert (done.returncode, done.stdout) == (1, "")
    assert "there is nothing at that place" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("scheme", "advice"),
    [
        ("sqlite", "of sqlite:///, a path with three slashes is meant from this folder"),
        ("file", "of file:///, the path is always an absolute one, and that of a folder"),
    ],
)
def test_the_advice_on_a_missing_place_fits_the_store(
    scheme: str, advice: str, tmp_path: Path
) -> None:
    slashes = "///" if scheme == "sqlite" else "//"

    done = run("store", "stats", f"{scheme}:{slashes}{tmp_path}/none")

    assert (done.returncode, done.stdout) == (1, "")
    assert "there is nothing at that place" in done.stderr
    assert advice in done.stderr
    assert done.stderr.count(":///,") == 1


def test_a_file_where_a_folder_is_meant_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "sessions.db").write_text("no folder")

    done = run("store", "stats", f"file://{tmp_path}/sessions.db")

    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}/sessions.db: it is no folder" in done.stderr
    assert "sqlite:///sessions.db" in done.stderr


def test_a_file_that_is_no_store_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "sessions.db").write_text("no database" * 1000)

    done = asked(tmp_path, "stats")

    assert (done.returncode, done.stdout) == (1, "")
    assert "is not an SQLite database" in done.stderr


def test_ctrl_c_says_that_the_rest_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    monkeypatch.setattr(SQLiteStore, "purge", interrupt)

    code = main(["store", "purge", f"sqlite:///{folder}/sessions.db"])

    assert code == 1
    assert "stopped before the end" in capsys.readouterr().err


def test_the_manual_shows_every_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/reference/stores.md").read_text()

    for words in ([], ["stats"], ["purge"], ["check"]):
        with pytest.raises(SystemExit) as ended:
            main(["store", *words, "--help"])
        assert ended.value.code == 0

    shown = capsys.readouterr().out
    assert "--json" in shown
    assert all(f"minisession store {name} " in page for name in ("stats", "purge", "check"))
    assert "`--json`" in page
