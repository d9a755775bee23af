"""Dies at the n-th step of Python: between any two of them, a process may be killed.

The fine steps are each call of a function of the package and each return (of a coroutine: each time
that it goes on or waits), from a request to its answer: handed over, taken by the writer, answered,
headers given to the server. The coarse ones are the calls into SQLite, sockets and files alone,
before and after: transaction begun, each statement, committed; locked, written, renamed; sent.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sqlite3
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import minisession

PACKAGE = str(Path(minisession.__file__).parent)
OUTSIDE = (sqlite3.Connection, sqlite3.Cursor, socket.socket)
FILES = {os.open, os.write, os.fsync, os.rename, os.unlink, os.mkdir, fcntl.flock}


class Steps:
    """Counts the steps of all threads together, down to the last one.

    Made before there are other threads: only those that start later take part.
    """

    def __init__(self, *, fine: bool) -> None:
        self._fine = fine
        self._left = 0
        sys.setprofile(self._step)
        threading.setprofile(self._step)

    def die_at(self, n: int) -> None:
        """Kill this process at the n-th step from now on; 0 lets it live."""
        self._left = n

    def _step(self, frame: FrameType, event: str, called: Any) -> None:
        if not self._left or not self._counts(frame, event, called):
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _counts(self, frame: FrameType, event: str, called: Any) -> bool:
        if event.startswith("c_"):
            return isinstance(getattr(called, "__self__", None), OUTSIDE) or called in FILES
        return self._fine and frame.f_code.co_filename.startswith(PACKAGE)
