"""A machine that fails: its disk, its rights, its files, its threads; SQLite's store on it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.command import ROOT, environment
from tests.machine import lack

pytestmark = pytest.mark.slow

# What every script begins with: a session that is stored, seen through the whole middleware.
BEGINNING = '''
import os, sys, threading, logging, sqlite3, subprocess
from contextlib import closing
from pathlib import Path
import anyio
from minisession import SessionConfig, SessionMiddleware, session
from minisession.errors import StoreUnavailable
from minisession.stores.sqlite import SQLiteStore
from tests.asgi_client import Browser, respond, routed, running

logging.disable()
folder, backend = Path(sys.argv[1]), sys.argv[2]
path = folder / "sessions.db"

async def put(scope, receive, send):
    session["n"] = session.get("n", 0) + 1
    await respond(send, b"%d" % session["n"])

async def read(scope, receive, send):
    await respond(send, b"%d" % session.get("n", 0))

app = SessionMiddleware(routed(put=put, read=read), SQLiteStore(path))
browser = Browser(app)

async def see(page):
    """Print the status, the body if it is no error, and whether the cookie was touched."""
    answer = await browser.get("/" + page)
    shown = answer.body.decode() if answer.status == 200 else "-"
    print(page, answer.status, shown, "cookie" if answer.cookies else "", flush=True)

'''


def printed(
    script: str, folder: Path, backend: str, before: Sequence[str] = (), **changes: str
) -> list[str]:
    """Run a script after the beginning; return its lines."""
    command = [*before, sys.executable, "-c", BEGINNING + textwrap.dedent(script), str(folder)]
    run = subprocess.run(
        [*command, backend],
        cwd=ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [line.rstrip() for line in run.stdout.splitlines()]


# --- the disk ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library that lets calls fail."""
    library = tmp_path_factory.mktemp("library") / "failing.so"
    source = Path(__file__).with_name("failing.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.mark.needs("cc")
@pytest.mark.parametrize("fault", ["sync", "write", "full"])
def test_a_disk_that_fails_gives_503_and_loses_nothing_that_was_acknowledged(
    fault: str, library: Path, tmp_path: Path, anyio_backend: str
) -> None:
    script = """
        faults = Path(os.environ["FAULTS"])

        async def main():
            async with running(app):
                await see("put")
                faults.write_text(os.environ["FAULT"])
                await see("put")
                await see("read")
                faults.write_text("")
                await see("read")
                await see("put")
            with closing(sqlite3.connect(path)) as connection:
                print(connection.execute("PRAGMA integrity_check").fetchone()[0])

        anyio.run(main, backend=backend)
    """
    faults = str(tmp_path / "faults")

    lines = printed(
        script, tmp_path, anyio_backend, LD_PRELOAD=str(library), FAULTS=faults, FAULT=fault
    )

    assert lines[:2] == ["put 200 1 cookie", "put 503 -"]
    stored = lines[2]  # after a sync that failed nobody knows; the others stored nothing
    assert stored in (["read 200 1", "read 200 2"] if fault == "sync" else ["read 200 1"])
    assert lines[3] == stored
    assert lines[4] == f"put 200 {int(stored[-1]) + 1}"
    assert lines[5] == "ok"


# --- rights --------------------------------------------------------------------------------------

NOBODY = 65534  # what root may not, nobody may; other users need no such change

FORBIDDEN = """
    async def close():
        await app.manager.store.__aexit__(None, None, None)

    async def before():
        await see("put")
        await close()

    async def while_forbidden():
        await see("put")
        await see("read")
        await close()

    async def after():
        await see("read")
        await see("put")
        await close()
"""


def check_forbidden(lines: list[str]) -> None:
    assert lines[:2] == ["put 200 1 cookie", "put 503 -"]
    # A log that cannot be made may be needed for reading, too: an outage, and no empty session.
    assert lines[2] in ("read 200 1", "read 503 -")
    assert lines[3:] == ["read 200 1", "put 200 2"]


def test_what_may_not_be_written_is_a_503_until_it_may(anyio_backend: str) -> None:
    script = f"""
        {textwrap.dedent(FORBIDDEN).replace(chr(10), chr(10) + " " * 8)}
        anyio.run(before, backend=backend)
        if os.geteuid() == 0:
            for file in (folder, *folder.iterdir()):
                os.chown(file, {NOBODY}, {NOBODY})
            os.setegid({NOBODY})
            os.seteuid({NOBODY})
        path.chmod(0o444)
        folder.chmod(0o555)
        anyio.run(while_forbidden, backend=backend)
        path.chmod(0o644)
        folder.chmod(0o755)
        anyio.run(after, backend=backend)
    """

    with TemporaryDirectory() as folder:  # beside pytest's own, into which nobody else may look
        lines = printed(script, Path(folder), anyio_backend)

    check_forbidden(lines)


@pytest.mark.needs("unshare", "mount")
def test_a_file_system_that_is_mounted_read_only_is_a_503_until_it_is_not(
    tmp_path: Path, anyio_backend: str
) -> None:
    script = f"""
        {textwrap.dedent(FORBIDDEN).replace(chr(10), chr(10) + " " * 8)}
        def mount(*options):
            return subprocess.run(["mount", *options], capture_output=True).returncode == 0

        if not mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)):
            print("no mount")
            sys.exit()
        anyio.run(before, backend=backend)
        assert mount("-o", "remount,ro", str(folder))
        anyio.run(while_forbidden, backend=backend)
        assert mount("-o", "remount,rw", str(folder))
        anyio.run(after, backend=backend)
    """

    lines = printed(
        script, tmp_path, anyio_backend, ("unshare", "--user", "--map-root-user", "--mount")
    )

    if lines == ["no mount"]:
        lack("needs a system that lets users mount a file system")
    check_forbidden(lines)


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("is_open", [True, False], ids=["opened before", "opened then"])
def test_without_file_descriptors_there_are_503s_and_then_all_is_well(
    is_open: bool, tmp_path: Path, anyio_backend: str
) -> None:
    script = f"""
        import resource

        async def main():
            async with running(app):
                await see("put")
                if not {is_open}:
                    await app.manager.store.__aexit__(None, None, None)
                resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
                taken = []
                try:
                    while True:
                        taken.append(os.dup(0))
                except OSError:
                    pass
                await see("put")
                await see("read")
                while taken:
                    os.close(taken.pop())
                await see("put")

        anyio.run(main, backend=backend)
    """

    lines = printed(script, tmp_path, anyio_backend)

    assert lines[0] == "put 200 1 cookie"
    if is_open:
        assert lines[1:] == ["put 200 2", "read 200 2", "put 200 3"]
    else:
        assert lines[1:] == ["put 503 -", "read 503 -", "put 200 2"]


# From now on the system has no thread left, but for the first few that are spared.
THREADS_END = """
        start = threading.Thread.start
        left = {spared}

        def start_few(thread):
            global left
            if left == 0:
                threading.stack_size(1 << 46)  # more than there is: the system refuses
            left = max(left - 1, 0)
            try:
                start(thread)
            finally:
                threading.stack_size(0)
"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("spared", [0, 1, 2], ids=["no thread", "one thread", "two threads"])
def test_without_threads_nothing_is_stored_twice_and_nothing_denied_that_was_stored(
    spared: int, tmp_path: Path, anyio_backend: str
) -> None:
    script = (
        THREADS_END.format(spared=spared)
        + """
        async def main():
            await see("put")
            await app.manager.store.__aexit__(None, None, None)
            threading.Thread.start = start_few
            await see("put")
            await see("read")
            threading.Thread.start = start
            await see("read")
            await see("put")
            await see("put")
            await app.manager.store.__aexit__(None, None, None)

        anyio.run(main, backend=backend)
    """
    )

    lines = printed(script, tmp_path, anyio_backend)

    assert lines[0] == "put 200 1 cookie"
    if spared == 0:
        assert lines[1:] == ["put 503 -", "read 200 1", "read 200 1", "put 200 2", "put 200 3"]
    else:
        assert lines[1:] == ["put 200 2", "read 200 2", "read 200 2", "put 200 3", "put 200 4"]


def test_without_threads_a_store_opens_and_lists_nothing_and_says_so_and_still_closes(
    tmp_path: Path, anyio_backend: str
) -> None:
    script = (
        THREADS_END.format(spared=0)
        + """
        async def receive():
            return {"type": "lifespan.startup"}

        async def send(message):
            print(message["type"], "thread" in message["message"])

        async def lists():
            store = SQLiteStore(path)
            calls = (store.scan(0.0), store.of_principal("user:1", 0.0), store.alive(["h"], 0.0))
            for call in calls:
                try:
                    await call
                except StoreUnavailable as error:
                    print("unavailable", "thread" in str(error))

        async def main():
            threading.Thread.start = start_few
            await app({"type": "lifespan"}, receive, send)
            await lists()
            threading.Thread.start = start
            await see("put")
            threading.Thread.start = start_few
            await app.manager.store.__aexit__(None, None, None)
            print(sorted(one.name for one in folder.iterdir()))

        anyio.run(main, backend=backend)
    """
    )

    lines = printed(script, tmp_path, anyio_backend)

    assert lines == [
        "lifespan.startup.failed True",
        *["unavailable True"] * 3,
        "put 200 1 cookie",
        "['sessions.db']",
    ]
