"""`Syncs`: many syncs at the same time, because a file system does many as fast as one.

A hundred files and their folders synced one after the other take half a second on ext4, where each
is a commit of the journal; at the same time they share commits and take a twentieth of that. It
owns threads for it, starts them when there is something to share, and knows no sessions.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

THREADS = 16
"""Of them most wait for the disk. More share no more commits (measured on ext4: 8, 16, 32)."""


class Syncs:
    """Threads that help to sync, from the first batch of several files until `close`.

    Used by one thread at a time. Where the system has no thread left, that one does it all.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def sync(self, descriptors: Sequence[int]) -> list[OSError | None]:
        """Sync all of them; return for each what went wrong, or None."""
        failures: list[OSError | None] = [None] * len(descriptors)
        waiting = deque(enumerate(descriptors))
        done = threading.Semaphore(0)

        def help_out() -> None:
            while True:
                try:
                    place, descriptor = waiting.popleft()
                except IndexError:  # none is left, which asking before would not tell for certain
                    return
                try:
                    os.fsync(descriptor)
                except OSError as error:
                    failures[place] = error
                done.release()

        for _ in range(self._helpers(len(descriptors) - 1)):
            self._calls.put(help_out)
        help_out()
        for _ in descriptors:
            done.acquire()
        return failures

    def close(self) -> None:
        """End the threads and wait for that; the next `sync` starts others."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _helpers(self, wanted: int) -> int:
        """Return how many threads can help, starting what is missing."""
        wanted = min(wanted, THREADS)
        while len(self._threads) < wanted:
            thread = threading.Thread(target=self._serve, name="syncs of files", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads, or the interpreter is about to exit
                break
            self._threads.append(thread)
        return min(wanted, len(self._threads))

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call
