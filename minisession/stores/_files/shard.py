"""One folder of sessions: its lock, its files, and what can stand where a file should be.

It owns every call of the operating system for a single file, and no decision: whoever has the lock
reads, decides and writes. A file appears under its name whole and synced, by a rename; so a reader
needs no lock, and a temporary file that somebody finds under the lock was left by a crash.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time

from minisession.errors import StoreUnavailable
from minisession.stores._row import Row

from .form import LARGEST, Unreadable, decode, frame_of, summary_of
from .names import temporary_of

READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
"""No link is followed, and no pipe waited for: only what is a file itself can be a session."""
FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

NO_FILES = {errno.ELOOP, errno.EMLINK, errno.ENXIO}
"""What opening a link or a socket says; EMLINK is FreeBSD's word."""

AT_FIRST = 16 * 1024
"""Octets that are read at once: most sessions wholly, and of every one the beginning."""

BUSY_TIMEOUT = 4.0
"""Seconds to wait for other processes: below the 5 s of `save_timeout`, so that the store's own
error, which says what to do, comes before the deadline's, which cannot."""
FAIR_WAIT = 0.25
"""Seconds to wait for a folder after another one has used up the time of a batch."""
FIRST_PAUSE = 0.0005  # seconds; a batch of others takes some milliseconds
LONGEST_PAUSE = 0.02

FAR = 1 << 33
"""The year 2242, in seconds: file systems cannot note much later ones."""


def read(handle: str, path: str, *, folder: int | None = None, whole: bool) -> Row | None:
    """Return the session in a file, with its items if it is wanted `whole`; None if there is none.

    Raises:
        Unreadable: what is there is no session, or not this one.
        OSError: the system cannot say.
    """
    try:
        descriptor = os.open(path, READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in NO_FILES:
            raise Unreadable("is no ordinary file") from None
        raise
    try:
        content = _content(descriptor, whole=whole)
    finally:
        os.close(descriptor)
    return decode(handle, content) if whole else summary_of(handle, content)


def _content(descriptor: int, *, whole: bool) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("is no ordinary file")
    content = os.read(descriptor, AT_FIRST)
    frame = frame_of(content)
    if frame.end > LARGEST:
        raise Unreadable(f"says that it has {frame.end:,} octets, which no session has")
    if status.st_size != frame.end:
        raise Unreadable(f"has {status.st_size:,} octets instead of {frame.end:,}")
    wanted = frame.end if whole else frame.items
    while len(content) < wanted and (more := os.read(descriptor, wanted - len(content))):
        content += more
    return content


def _times(expires: float) -> tuple[int, int]:
    """Return the times that a file is given, of the last access and the last change: its end.

    They are a hint for purges, in whole seconds rounded down, because file systems and copies make
    them coarser. A purge reads a file before it removes it.
    """
    seconds = int(min(max(0.0, expires), FAR))
    return seconds, seconds


class Shard:
    """One folder, open until `close`. Its lock is one for all processes and threads.

    Args:
        root: the folder that it is in.
        name: its own.
        is_new: whether it was made just now.
    """

    def __init__(self, root: str, name: str, *, is_new: bool) -> None:
        self.path = path = f"{root}/{name}"
        self.name = name
        self.is_new = is_new
        self.descriptor = os.open(path, FOLDER)

    def lock(self, deadline: float) -> None:
        """Wait for the lock, at most until a time of `time.monotonic`.

        Raises:
            StoreUnavailable: somebody else has kept it for too long.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(
                        f"session files: {self.path} has been locked by another process for"
                        f" {BUSY_TIMEOUT:g} s. Is one stopped, or its disk? `lsof` shows which"
                    ) from None
                time.sleep(pause)  # flock has no time-out; this is a thread, never the loop
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return

    def unlock(self) -> None:
        """Give the lock back: closing does not, while a child just forked shares the descriptor."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give back the lock and the descriptor."""
        with contextlib.suppress(OSError):  # of a file system without locks
            self.unlock()
        os.close(self.descriptor)

    # --- with the lock -------------------------------------------------------------------------

    def read(self, handle: str, name: str, *, whole: bool = True) -> Row | None:
        """Do what the function `read` does."""
        return read(handle, name, folder=self.descriptor, whole=whole)

    def write(self, name: str, content: bytes, expires: float) -> int:
        """Write the file that is to be this one, and return it open and not yet synced.

        Raises:
            OSError: nothing was changed, and nothing is left.
        """
        temporary = temporary_of(name)
        descriptor = self._make(temporary)
        with contextlib.ExitStack() as unfinished:
            unfinished.callback(self.discard, name)
            unfinished.callback(os.close, descriptor)
            os.fchmod(descriptor, 0o600)  # the umask can only have taken rights away
            left = memoryview(content)
            while left:
                left = left[os.write(descriptor, left) :]
            os.utime(descriptor, _times(expires))
            unfinished.pop_all()
        return descriptor

    def _make(self, temporary: str) -> int:
        try:
            return os.open(temporary, MAKE, 0o600, dir_fd=self.descriptor)
        except FileExistsError:  # left by a crash
            os.unlink(temporary, dir_fd=self.descriptor)
            return os.open(temporary, MAKE, 0o600, dir_fd=self.descriptor)

    def put_in_place(self, name: str) -> None:
        """Let what was written, and synced, take the place of the file."""
        here = self.descriptor
        os.rename(temporary_of(name), name, src_dir_fd=here, dst_dir_fd=here)

    def discard(self, name: str) -> None:
        """Remove what was written for a file, if it is still there."""
        with contextlib.suppress(OSError):  # the next write of the session, or a purge, does it
            os.unlink(temporary_of(name), dir_fd=self.descriptor)

    def hint(self, name: str, expires: float) -> None:
        """Put the time of change right, which somebody else has changed."""
        times = _times(expires)
        os.utime(name, times, dir_fd=self.descriptor, follow_symlinks=False)

    def remove(self, name: str, damaged: str) -> None:
        """Remove a file, if it is there. A folder in its place is set aside with what is in it."""
        try:
            os.unlink(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            return
        except OSError as error:
            # Linux says EISDIR to who would unlink a folder, POSIX and macOS EPERM.
            if error.errno not in (errno.EISDIR, errno.EPERM) or not self._is_folder(name):
                raise
            self.set_aside(name, damaged)

    def _is_folder(self, name: str) -> bool:
        status = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        return stat.S_ISDIR(status.st_mode)

    def set_aside(self, name: str, damaged: str) -> str:
        """Move what cannot be read into another folder, for somebody to look at; return its path.

        It is there on the disk before it is no longer here.
        """
        if make_folder(damaged):
            sync_folder(os.path.dirname(damaged))
        path = f"{damaged}/{name}"
        number = 0
        while os.path.lexists(path):
            number += 1
            path = f"{damaged}/{name}.{number}"
        os.rename(name, path, src_dir_fd=self.descriptor)
        sync_folder(damaged)
        os.fsync(self.descriptor)
        return path


def make_folder(path: str) -> bool:
    """Make a folder that only this user can enter, if there is none; return whether it was made."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return False
    os.chmod(path, 0o700)  # the umask can only have taken rights away
    return True


def sync_folder(path: str) -> None:
    """Let the names in a folder reach the disk."""
    descriptor = os.open(path, FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
