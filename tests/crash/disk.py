"""A disk that can lose its power: the notes of `disk.c`, and what a cut leaves of the files.

What has been synced is on the disk. Of everything else, any part may be: whole writes or sectors of
them in any selection, a size without its data and data without its size, a name that was made, and
one that was removed. Where nothing arrived although the file is that long, there are zeros or
rubbish. A sector itself is old or new, and a name leads to a whole file or to none: that much disks
and file systems promise. A folder whose own name did not arrive is not there, nor what is in it.
This module knows no store.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

NEEDS = pytest.mark.needs("cc", "Linux")
"""What a test that records must be marked with: it preloads a library, as Linux does."""

SOURCE = Path(__file__).with_name("disk.c")
HEAD = struct.Struct("<c3xiqq")  # struct note in disk.c
SECTOR = 512  # bytes; what every disk writes as one


@dataclass(frozen=True, slots=True)
class Note:
    """One call: its kind (a letter, see disk.c), its file, and what it said."""

    kind: str
    fd: int
    offset: int
    data: bytes


class Recorder:
    """Records what processes do in one folder, which must be empty when the first of them starts.

    Args:
        folder: where they will keep their files.
        scratch: where the compiled library and the notes go.
    """

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder = folder
        self._log = scratch / "notes"
        self._library = scratch / "disk.so"
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE)]
        subprocess.run(command, check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process must find in its environment to be recorded."""
        return {
            "LD_PRELOAD": str(self._library),
            "DISK_FOLDER": str(self._folder),
            "DISK_LOG": str(self._log),
        }

    def notes(self) -> list[Note]:
        """Read what was recorded so far."""
        return list(_parsed(self._log.read_bytes()))


def _parsed(raw: bytes) -> Iterator[Note]:
    at = 0
    while at < len(raw):
        kind, fd, offset, length = HEAD.unpack_from(raw, at)
        at += HEAD.size + length
        yield Note(kind.decode(), fd, offset, raw[at - length : at])


@dataclass(frozen=True, slots=True)
class _Change:
    """A write or, without data, a change of the size; `when` is the number of its note."""

    when: int
    offset: int
    data: bytes | None

    def apply(self, content: bytearray, rng: random.Random | None = None) -> None:
        """Change the content; a gap is filled with zeros, or by `rng` with rubbish."""
        if self.data is None:
            del content[self.offset :]
        gap = self.offset - len(content)
        if gap > 0:
            content += bytes(gap) if rng is None else rng.randbytes(gap)
        if self.data is not None:
            content[self.offset : self.offset + len(self.data)] = self.data

    def size_after(self, before: int) -> int:
        """Return the size of a file that it was applied to."""
        return self.offset if self.data is None else max(before, self.offset + len(self.data))

    def sectors(self) -> Iterator[_Change]:
        """Take a write apart where a disk may."""
        if self.data is None:
            yield self
            return
        end = self.offset + len(self.data)
        for start in range(self.offset - self.offset % SECTOR, end, SECTOR):
            first, last = max(start, self.offset), min(start + SECTOR, end)
            piece = self.data[first - self.offset : last - self.offset]
            yield replace(self, offset=first, data=piece)


@dataclass(eq=False, slots=True)
class _File:
    """What is safely on the disk, and what is on its way there."""

    synced: bytearray = field(default_factory=bytearray)
    waiting: list[_Change] = field(default_factory=list)

    def sync(self, before: int) -> None:
        """Let everything noted before a moment arrive."""
        for change in self.waiting:
            if change.when < before:
                change.apply(self.synced)
        self.waiting = [change for change in self.waiting if change.when >= before]

    def now(self) -> bytes:
        """Return what a process reads."""
        content = bytearray(self.synced)
        for change in self.waiting:
            change.apply(content)
        return bytes(content)

    def after_a_cut(self, rng: random.Random) -> bytes:
        """Return what may be found when the power is back."""
        content = bytearray(self.synced)
        arrived = _selection(self.waiting, rng)
        rubbish = rng if rng.random() < 0.25 else None
        for change in arrived:
            change.apply(content, rubbish)
        if rng.random() < 0.25:  # the size and the data are two things
            _Change(0, rng.choice(self._sizes()), None).apply(content, rubbish)
        return bytes(content)

    def _sizes(self) -> list[int]:
        """Return the sizes that the file had since it was synced."""
        sizes = [len(self.synced)]
        for change in self.waiting:
            sizes.append(change.size_after(sizes[-1]))
        return sizes


def _selection(waiting: list[_Change], rng: random.Random) -> list[_Change]:
    """Choose, in one of the ways in which it happens, which changes have arrived."""
    match rng.choice(["none", "all", "first ones", "any", "sectors"]):
        case "none":
            return []
        case "all":
            return waiting
        case "first ones":
            return waiting[: rng.randint(0, len(waiting))]
        case "any":
            return [change for change in waiting if rng.random() < 0.5]
        case _:
            share = rng.random()
            sectors = [sector for change in waiting for sector in change.sectors()]
            return [sector for sector in sectors if rng.random() < share]


class _Folder:
    """A folder: what is in it has names of its own."""


_Names = dict[str, _File | _Folder]


@dataclass(frozen=True, slots=True)
class _Naming:
    """A name that was given to a file or folder, or with None taken away."""

    when: int
    name: str
    file: _File | _Folder | None

    def apply(self, names: _Names) -> None:
        if self.file is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.file


class Disk:
    """The files in one folder and the folders in it, as recorded up to some moment.

    Attributes:
        sent: per connection, what has been given to the network.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._names: _Names = {}
        self._synced_names: _Names = {}
        self._namings: list[_Naming] = []
        self._open: dict[int, _File | str] = {}  # a text: the folder of this path
        self._syncs: dict[int, int] = {}
        self._count = 0
        self.sent: dict[int, bytearray] = {}

    def play(self, note: Note) -> None:
        """Do what a process did."""
        self._count += 1
        match note.kind:
            case "O":
                self._open[note.fd] = self._opened(note)
            case "C":
                self._open.pop(note.fd, None)
            case "W":
                self._change(note, note.data)
            case "T":
                self._change(note, None)
            case "S":
                self._syncs[note.fd] = self._count
            case "E":
                self._sync(note.fd)
            case "U" | "R" | "M":
                self._named(note.kind, *note.data.decode().split("\0"))
            case "A":
                self.sent.setdefault(note.fd, bytearray()).extend(note.data)
            case kind:
                raise AssertionError(f"disk.c writes no note {kind!r}")

    def _opened(self, note: Note) -> _File | str:
        path = note.data.decode()
        if path == self._folder or isinstance(self._names.get(path), _Folder):
            return path
        if path not in self._names:
            self._name(path, _File())
        file = self._names[path]
        assert isinstance(file, _File)
        if note.offset & os.O_TRUNC:
            file.waiting.append(_Change(self._count, 0, None))
        return file

    def _change(self, note: Note, data: bytes | None) -> None:
        file = self._open[note.fd]
        assert isinstance(file, _File)
        file.waiting.append(_Change(self._count, note.offset, data))

    def _named(self, kind: str, path: str, to: str = "") -> None:
        """Note an unlink, a rename, or a new folder."""
        if kind == "R":
            self._name(to, self._names[path])
        self._name(path, _Folder() if kind == "M" else None)

    def _name(self, path: str, file: _File | _Folder | None) -> None:
        naming = _Naming(self._count, path, file)
        naming.apply(self._names)
        self._namings.append(naming)

    def _sync(self, fd: int) -> None:
        file, before = self._open[fd], self._syncs.pop(fd)
        if isinstance(file, _File):
            file.sync(before)
            return
        arrived = [n for n in self._namings if n.when < before and str(Path(n.name).parent) == file]
        for naming in arrived:
            naming.apply(self._synced_names)
        self._namings = [naming for naming in self._namings if naming not in arrived]

    def files(self) -> dict[str, bytes]:
        """Return the files, by path in the folder, as a process sees them that reads them now."""
        return {
            str(Path(path).relative_to(self._folder)): file.now()
            for path, file in self._names.items()
            if isinstance(file, _File)
        }

    def cut(self, rng: random.Random, folder: Path) -> None:
        """Write what may be left if the power goes now into a new folder."""
        names = dict(self._synced_names)
        for naming in self._namings:
            if rng.random() < 0.5:
                naming.apply(names)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in sorted(names):  # a folder comes before what is in it
            file, left = names[path], folder / Path(path).relative_to(self._folder)
            if not left.parent.is_dir():
                continue
            if isinstance(file, _Folder):
                left.mkdir(mode=0o700)
            else:
                left.write_bytes(file.after_a_cut(rng))
