"""Real faults under the store in files: a clear error, nothing lost, working again without them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minisession.errors import StoreUnavailable
from minisession.stores.files import FilesStore
from tests.machine import lack
from tests.scratch import scratch_folder

from .kit import NOW, birth, born, commit, items, run_script

FAILING = Path(__file__).parents[1] / "faults" / "failing.c"

# What every script begins with.
BEGINNING = """
import os, resource, subprocess, sys, anyio, anyio.to_thread, anyio._backends._asyncio
from dataclasses import replace
from pathlib import Path
from minisession.abc import Committed, Destroy, Expect, Write
from minisession.errors import StoreError, StoreUnavailable
from minisession.stores.files import FilesStore
from tests.stores.kit import END, NOW, birth, born, commit, items, write

folder = Path(sys.argv[1])
path = folder / "sessions"

def names():
    return sorted(one.suffix for one in path.rglob("*") if one.is_file())

def show(outcomes):
    print(*(type(outcome).__name__ for outcome in outcomes))
"""


def run(script: str, *arguments: str | Path, before: list[str] | None = None) -> list[str]:
    """Run a script after the beginning; return its lines."""
    lines = script.split("\n")
    indent = next(len(line) - len(line.lstrip()) for line in lines if line.strip())
    body = "\n".join(line[indent:] for line in lines)
    return run_script(BEGINNING + body, *arguments, before=before or []).split("\n")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where somebody who is not root may look too."""
    with scratch_folder() as made:
        made.chmod(0o755)
        yield made


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library that lets calls fail."""
    library = tmp_path_factory.mktemp("library") / "failing.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, FAILING], check=True)
    return library


# The disk


@pytest.mark.needs("cc")
@pytest.mark.parametrize(
    ("fault", "says", "stored"),
    [
        ("sync", "StoreUnavailable", b"old"),
        ("write", "StoreUnavailable", b"old"),
        ("full", "StoreUnavailable", b"old"),
        ("rename", "SaveOutcomeUnknown", b"old"),
        ("folder", "SaveOutcomeUnknown", b"new"),
    ],
)
def test_a_write_that_fails_takes_with_it_what_rests_on_it_and_nothing_else(
    fault: str, says: str, stored: bytes, library: Path, tmp_path: Path
) -> None:
    script = """
        faults = folder / "faults"

        async def main():
            async with FilesStore(path) as store:
                await born(store, k=b"old")
                faults.write_text(sys.argv[2])
                show(await store.commit([
                    Write("h", 7, END, 100),
                    replace(write(), expect=Expect("k", b"other")),
                    write(items={"k": b"new"}),
                    replace(write(), expect=Expect("k", b"other")),
                    write(items={"k": b"new"}),
                ], NOW))
                faults.write_text("")
                print((await items(store))["k"], names())
                print(await commit(store, write(items={"k": b"newer"})))

        anyio.run(main)
    """
    before = ["env", f"LD_PRELOAD={library}", f"FAULTS={tmp_path}/faults"]

    lines = run(script, tmp_path, fault, before=before)

    assert lines == [
        f"Gone Conflict {says} StoreUnavailable {says}",
        f"{stored!r} ['.session']",
        "Committed(epoch=0)",
    ]


@pytest.mark.needs("cc")
def test_where_the_name_of_a_new_folder_cannot_be_synced_nothing_is_stored_in_it(
    library: Path, tmp_path: Path
) -> None:
    script = """
        faults = folder / "faults"

        async def main():
            async with FilesStore(path) as store:
                faults.write_text("folder")
                show(await store.commit([birth("a"), birth("z")], NOW))
                faults.write_text("")
                print(await items(store, "a"), await items(store, "z"), names())
                print(await commit(store, birth("a")))

        anyio.run(main)
    """
    before = ["env", f"LD_PRELOAD={library}", f"FAULTS={tmp_path}/faults"]

    lines = run(script, tmp_path, before=before)

    assert lines == [
        "StoreUnavailable StoreUnavailable",
        "None None []",
        "Committed(epoch=0)",
    ]


@pytest.mark.needs("cc")
@pytest.mark.parametrize(("fault", "stays"), [("unlink", "True"), ("folder", "False")])
def test_nobody_knows_whether_a_removal_that_fails_was_one(
    fault: str, stays: str, library: Path, tmp_path: Path
) -> None:
    script = """
        faults = folder / "faults"

        async def main():
            async with FilesStore(path) as store:
                await born(store)
                faults.write_text(sys.argv[2])
                show(await store.commit([Destroy("h", 0), write()], NOW))
                faults.write_text("")
                print(await items(store) is not None)
                print(isinstance(await commit(store, Destroy("h", 0)), Committed))

        anyio.run(main)
    """
    before = ["env", f"LD_PRELOAD={library}", f"FAULTS={tmp_path}/faults"]

    lines = run(script, tmp_path, fault, before=before)

    assert lines == ["SaveOutcomeUnknown StoreUnavailable", stays, stays]


def test_a_file_that_is_too_large_for_this_process_is_refused(tmp_path: Path) -> None:
    script = """
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

        async def main():
            async with FilesStore(path) as store:
                await store.commit([birth(k=b"old"), birth("z")], NOW)
                resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, unlimited[1]))
                large = write(items={"k": b"x" * 100_000})
                outcomes = await store.commit([large, write("z")], NOW)
                show(outcomes)
                print("ulimit -f" in str(outcomes[0]))
                print(await items(store) == {"k": b"old"}, names())
                resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
                show([await commit(store, large)])

        anyio.run(main)
    """

    assert run(script, tmp_path) == [
        "StoreUnavailable Committed",
        "True",
        "True ['.session', '.session']",
        "Committed",
    ]


MOUNTED = """
        def mount(*options):
            return subprocess.run(["mount", *options], capture_output=True).returncode == 0

        if not mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)):
            print("no mount")
            sys.exit()
"""
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


def run_mounted(script: str, folder: Path) -> list[str]:
    lines = run(MOUNTED + script, folder, before=UNSHARE)
    if lines == ["no mount"]:
        lack("this user may not mount anything")
    return lines


@pytest.mark.needs("unshare", "mount")
def test_a_disk_that_is_really_full_refuses_and_works_again_when_there_is_space(
    tmp_path: Path,
) -> None:
    script = """
        async def main():
            async with FilesStore(path) as store:
                await born(store, k=b"old")
                filler = folder / "filler"
                with open(filler, "wb", buffering=0) as file:
                    try:
                        while True:
                            file.write(bytes(4096))
                    except OSError:
                        pass
                outcomes = await store.commit([write(items={"k": b"x" * 100_000})], NOW)
                show(outcomes)
                print("is full" in str(outcomes[0]), await items(store) == {"k": b"old"}, names())
                print(await commit(store, Destroy("h", 0)))
                filler.unlink()
                await born(store, k=b"new")
                print(await items(store) == {"k": b"new"})

        anyio.run(main)
    """

    assert run_mounted(script, tmp_path) == [
        "StoreUnavailable",
        "True True ['.session']",
        "Committed(epoch=0)",
        "True",
    ]


@pytest.mark.needs("unshare", "mount")
def test_what_is_mounted_read_only_can_be_read_and_is_not_opened_for_more(tmp_path: Path) -> None:
    script = """
        async def main():
            store = FilesStore(path)
            await born(store, k=b"old")
            await born(store, "expired")
            assert mount("-o", "remount,ro", str(folder))
            outcome = await commit(store, write())
            print(type(outcome).__name__, "mounted read-only" in str(outcome))
            print(await items(store) == {"k": b"old"})
            try:
                async with store:
                    pass
            except StoreUnavailable as error:
                print("mounted read-only" in str(error))
            try:
                await store.purge(END, 10)
            except StoreUnavailable as error:
                print("mounted read-only" in str(error))
            assert mount("-o", "remount,rw", str(folder))
            print(await commit(store, write()))

        anyio.run(main)
    """

    assert run_mounted(script, tmp_path) == [
        "StoreUnavailable True",
        *["True"] * 3,
        "Committed(epoch=0)",
    ]


# Rights

AS_NOBODY = """
        def as_nobody():
            if os.geteuid() == 0:
                for one in (folder, *folder.rglob("*")):
                    os.chown(one, 65534, 65534)
                os.setegid(65534)
                os.seteuid(65534)
"""


def test_what_may_not_be_read_or_written_is_an_outage_and_no_empty_session(folder: Path) -> None:
    script = """
        async def refusals(store):
            outcomes = [await commit(store, change) for change in (write(), Destroy("h", None))]
            for ask in (lambda: store.load("h", NOW), lambda: store.alive(["h"], NOW)):
                try:
                    outcomes.append(await ask())
                except StoreUnavailable as error:
                    outcomes.append(error)
            print(*("this user may not do that" in str(outcome) for outcome in outcomes))

        async def main():
            store = FilesStore(path)
            await born(store, k=b"old")
            [file] = path.rglob("*.session")
            as_nobody()
            file.chmod(0)
            await refusals(store)
            print(await store.purge(END, 10))
            file.chmod(0o600)
            path.chmod(0)
            await refusals(store)
            path.chmod(0o500)
            try:
                await store.__aenter__()
            except StoreUnavailable as error:
                print("this user may not do that" in str(error))
            path.chmod(0o700)
            print(await commit(store, write()), await items(store))

        anyio.run(main)
    """

    assert run(AS_NOBODY + script, folder) == [
        "True True True True",
        "0",
        "True True True True",
        "True",
        "Committed(epoch=0) {'k': b'v'}",
    ]


def test_a_folder_above_ours_may_be_one_that_we_may_only_pass_through(folder: Path) -> None:
    script = """
        path = folder / "above" / "sessions"
        path.mkdir(parents=True)
        as_nobody()
        path.parent.chmod(0o100)

        async def main():
            async with FilesStore(path) as store:
                await born(store, k=b"v")
                print(await items(store))
            path.parent.chmod(0o700)

        anyio.run(main)
    """

    assert run(AS_NOBODY + script, folder) == ["{'k': b'v'}"]


# File descriptors


def test_with_few_file_descriptors_a_batch_is_done_in_parts_and_without_any_refused(
    tmp_path: Path,
) -> None:
    script = """
        handles = [first + second for first in "-0AZaz" for second in "0Pgz"]

        def leave(number):
            taken = []
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            for descriptor in taken[:number]:
                os.close(descriptor)
            return taken[number:]

        async def main():
            async with FilesStore(path) as store:
                await born(store, "first")
                resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
                taken = leave(6)
                outcomes = await store.commit([birth(handle) for handle in handles], NOW)
                print({type(outcome).__name__ for outcome in outcomes})
                more = leave(0)
                outcomes = await store.commit([write(handle) for handle in handles], NOW)
                print({type(outcome).__name__ for outcome in outcomes})
                print("too many open files" in str(outcomes[0]))
                for descriptor in taken + more:
                    os.close(descriptor)
                print(await store.commit([write(handle) for handle in handles], NOW)
                      == [Committed(0)] * len(handles))

        anyio.run(main)
    """

    assert run(script, tmp_path) == ["{'Committed'}", "{'StoreUnavailable'}", "True", "True"]


# Threads


def test_without_threads_nothing_is_listed_and_that_is_said_and_the_store_still_closes(
    tmp_path: Path,
) -> None:
    script = """
        import threading

        def none_left(thread):
            raise RuntimeError("can't start new thread")

        async def main():
            store = FilesStore(path)
            await born(store)
            threading.Thread.start = none_left
            calls = (store.scan(NOW), store.purge(END, 1), FilesStore(path).__aenter__())
            for call in calls:
                try:
                    await call
                except StoreUnavailable as error:
                    print("can't start new thread" in str(error))
            await store.__aexit__(None, None, None)
            print(store._place.writer._worker)

        anyio.run(main)
    """

    assert run(script, tmp_path) == [*["True"] * 3, "None"]


# The folders


async def refused(store: FilesStore) -> list[str]:
    """The messages with which the store refuses to load, commit and open."""
    with pytest.raises(StoreUnavailable) as loading:
        await store.load("h", NOW)
    with pytest.raises(StoreUnavailable) as opening:
        await store.__aenter__()
    outcome = await commit(store, birth())
    assert type(outcome) is StoreUnavailable
    return [str(loading.value), str(opening.value), str(outcome)]


@pytest.mark.anyio
async def test_a_missing_folder_above_is_named_and_once_made_all_works(tmp_path: Path) -> None:
    store = FilesStore(tmp_path / "missing" / "sessions")

    for message in await refused(store):
        assert f"{tmp_path}/missing/sessions" in message
        assert "a folder on the way there is missing. Make it, or mount what belongs" in message

    (tmp_path / "missing").mkdir()
    async with store:
        await born(store)
        assert await items(store) == {}


@pytest.mark.anyio
async def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    path.write_text("a file")

    for message in await refused(FilesStore(path)):
        assert "what should be a folder is something else" in message


@pytest.mark.anyio
async def test_a_folder_that_cannot_be_locked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What flock says on a file system without locks; there is none here."""

    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    store = FilesStore(tmp_path / "sessions")
    monkeypatch.setattr("fcntl.flock", no_locks)

    outcome = await commit(store, birth())

    assert type(outcome) is StoreUnavailable
    assert "this file system has no locks. Sessions need a local one" in str(outcome)
