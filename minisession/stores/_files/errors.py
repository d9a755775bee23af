"""What the operating system says, in words that help: which path, what is wrong, what to do.

It owns the messages and decides nothing. None of them holds what is in a file.
"""

from __future__ import annotations

import errno
from os import strerror

from minisession.errors import StoreCorrupt, StoreError, StoreUnavailable

from .form import Newer, Unreadable

_FULL = "the disk or the quota is full. Free some space; what was stored before is safe"
_RIGHTS = (
    "this user may not do that. Give the folder and all in it to the user of the application"
    " (chown -R), with modes 0700 and 0600"
)
_DISK = "the disk reports an input/output error. Check it, and the log of the system"
_FILES = "this process or the system has too many open files. Raise the limit (ulimit -n)"

ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "the file would be larger than this process may write (ulimit -f)",
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EIO: _DISK,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOENT: "a folder on the way there is missing. Make it, or mount what belongs there",
    errno.ENOTDIR: "what should be a folder is something else",
    errno.ENOTSUP: "this file system has no locks. Sessions need a local one",
    errno.ENOLCK: "this file system has no locks. Sessions need a local one",
}


def explain(error: OSError, path: str) -> StoreUnavailable:
    """Return the error that says where, what is wrong, and what to do."""
    number = error.errno or 0
    advice = ADVICE.get(number, strerror(number))
    name = errno.errorcode.get(number, type(error).__name__)
    return StoreUnavailable(f"session files: {path}: {advice} ({name})")


def damaged(error: Unreadable, handle: str, path: str) -> StoreCorrupt:
    """Return the error that says which session cannot be read, and how to end it."""
    if isinstance(error, Newer):
        advice = "Upgrade minisession here to the release that wrote it, or a later one"
    else:
        advice = "To be rid of it: await manager.revoke(handle)"
    return StoreCorrupt(f"session {handle}: {path} {error}; it was left as it is. {advice}")


def again(error: StoreError) -> StoreError:
    """Return an error that says the same to somebody else, who raises it elsewhere."""
    return type(error)(*error.args)
