"""Dies at the n-th step of Python: between any two of them, a process may be killed.

Steps are those of the package from a request to its answer: each call of one of its functions and
each return (of a coroutine: each time that it goes on or waits), and each call into SQLite or a
socket, before and after. That includes what the brief list of a login's parts names: handed over,
taken, transaction begun, each statement, committed, answered, headers given to the server, sent.
"""

from __future__ import annotations

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


class _Steps:
    """Counts the steps of all threads together, down to the last one."""

    def __init__(self) -> None:
        self.left = 0

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        """Take one step, if it is one. A profile function of `sys.setprofile`."""
        if not self.left or not _counts(frame, event, called):
            return
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _counts(frame: FrameType, event: str, called: Any) -> bool:
    if event.startswith("c_"):
        return isinstance(getattr(called, "__self__", None), OUTSIDE)
    return frame.f_code.co_filename.startswith(PACKAGE)


_steps = _Steps()


def die_at(n: int) -> None:
    """Kill this process at the n-th step from now on; 0 lets it live."""
    _steps.left = n
    sys.setprofile(_steps)
    threading.setprofile(_steps)
