"""Batches: what the writer's thread does with the jobs it has taken.

It owns the order of the steps, on which everything rests:

    lock the folders, in their order, so that no two processes wait for each other
    read each session once, and decide all its changes
    write temporary files, and sync them         what fails until here is certainly not stored
    rename, unlink                               from here on others see it
    sync the folders                             what fails here may be stored, or not
    unlock, and answer

It knows neither the meaning of a change nor who waits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack

from minisession.errors import StoreCorrupt, StoreError, StoreUnavailable
from minisession.stores._row import Row
from minisession.stores._writer import Answer, Job

from . import shard as shards
from .cases import Case, cases_of
from .errors import damaged, explain
from .form import Unreadable
from .names import DAMAGED, name_of, shard_of
from .root import Root
from .shard import Shard, sync_folder
from .syncs import Syncs

OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)


class FilesBatches:
    """Applies each batch at once; with too few file descriptors for that, half by half.

    Mutable state: `_known`, the folders whose own names this process has seen reach the disk. It
    does not matter who made them: he may have died before he could see to that.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._known: set[str] = set()
        self._syncs = Syncs()

    def apply(self, jobs: Sequence[Job]) -> list[Answer]:
        """Apply the jobs in order and answer each."""
        try:
            return self._at_once(jobs)
        except OSError as error:  # too many open files, before anything was changed
            if len(jobs) == 1:
                return [explain(error, self._root.path)]
            half = len(jobs) // 2
            return self.apply(jobs[:half]) + self.apply(jobs[half:])

    def close(self) -> None:
        """End the threads that sync."""
        self._syncs.close()

    def _at_once(self, jobs: Sequence[Job]) -> list[Answer]:
        cases = cases_of(jobs)
        with ExitStack() as stack:
            batch = _Batch(self._root, self._known, self._syncs, stack)
            batch.lock_and_decide(cases)
            batch.write([case for case in cases if case.is_changed])
            batch.let_it_be_seen([case for case in cases if case.is_changed])
            batch.sync_folders([case for case in cases if case.is_changed])
        answers: dict[int, Answer] = {}
        for case in cases:
            answers.update(zip(case.places, case.answers, strict=True))
        return [answers[place] for place in range(len(jobs))]


class _Batch:
    """One pass through the steps. What it holds is given back by `stack`."""

    def __init__(self, root: Root, known: set[str], syncs: Syncs, stack: ExitStack) -> None:
        self._root = root
        self._known = known
        self._syncs = syncs
        self._stack = stack
        self._shards: dict[str, Shard] = {}
        self._temporary: dict[str, Shard] = {}
        """Files that were written, and did not take the place of what was there."""

    def _discard(self) -> None:
        for name, shard in self._temporary.items():
            shard.discard(name)

    def _place_of(self, case: Case) -> tuple[Shard, str, str]:
        """Return the folder of a session, the name of its file in there, and the whole path."""
        shard, name = self._shards[shard_of(case.handle)], name_of(case.handle)
        return shard, name, f"{shard.path}/{name}"

    # --- lock and decide -----------------------------------------------------------------------

    def lock_and_decide(self, cases: Sequence[Case]) -> None:
        """Lock the folders of all sessions, then decide on what is in them."""
        by_shard: dict[str, list[Case]] = {}
        for case in cases:
            by_shard.setdefault(shard_of(case.handle), []).append(case)
        deadline = time.monotonic() + shards.BUSY_TIMEOUT
        for name in sorted(by_shard):
            try:
                self._lock(name, max(deadline, time.monotonic() + shards.FAIR_WAIT))
            except StoreUnavailable as error:
                for case in by_shard.pop(name):
                    case.refuse(error)
        for name, failure in self._sync_above().items():
            for case in by_shard.pop(name):
                case.refuse(failure)
        for case in cases:
            if shard_of(case.handle) in by_shard:
                self._decide(case)

    def _lock(self, name: str, deadline: float) -> None:
        try:
            shard = self._root.shard(name)
            self._stack.callback(shard.close)
            if shard.is_new:
                self._known.discard(name)
            shard.lock(deadline)
        except OSError as error:
            raise _certain(error, f"{self._root.path}/{name}") from error
        self._shards[name] = shard

    def _sync_above(self) -> dict[str, StoreUnavailable]:
        """Let the names of folders that may be new reach the disk, before anything is in them."""
        new = self._shards.keys() - self._known
        for path in self._above() if new else ():
            try:
                # Above ours there may be a folder through which we may pass, and which we may not
                # open. Then somebody else has made ours in it.
                with contextlib.suppress(PermissionError):
                    sync_folder(path)
            except OSError as error:
                return {name: _certain(error, path) for name in new}
        self._known.update(new)
        return {}

    def _above(self) -> list[str]:
        """The folders whose names the sessions depend on, besides their own."""
        root = self._root.path
        # What is mounted has its name in a table of the system, not in the folder above.
        return [root] if os.path.ismount(root) else [root, os.path.dirname(root)]

    def _decide(self, case: Case) -> None:
        try:
            case.decide(self._stored(case))
        except StoreError as error:  # that it cannot be read now, or never under such a handle
            case.refuse(error)

    def _stored(self, case: Case) -> Row | StoreCorrupt | None:
        shard, name, path = self._place_of(case)
        try:
            return shard.read(case.handle, name)
        except Unreadable as error:
            return damaged(error, case.handle, path)
        except OSError as error:
            raise _certain(error, path) from error

    # --- write ---------------------------------------------------------------------------------

    def write(self, cases: Sequence[Case]) -> None:
        """Write the sessions to temporary files and let these reach the disk."""
        self._stack.callback(self._discard)  # which comes before the folders are closed
        with ExitStack() as files:
            written: dict[int, Case] = {}
            for case in cases:
                try:
                    descriptor = self._write(case)
                except StoreError as error:
                    case.refuse(error)
                else:
                    if descriptor is not None:
                        files.callback(os.close, descriptor)
                        written[descriptor] = case
            failures = self._syncs.sync(list(written))
        for case, failure in zip(written.values(), failures, strict=True):
            if failure is not None:
                case.refuse(explain(failure, self._place_of(case)[2]))

    def _write(self, case: Case) -> int | None:
        if case.row is None:
            return None
        shard, name, path = self._place_of(case)
        content = case.content_of(case.row)
        try:
            descriptor = shard.write(name, content, case.row.expires)
        except OSError as error:
            raise _certain(error, path) from error
        self._temporary[name] = shard
        return descriptor

    # --- let it be seen ------------------------------------------------------------------------

    def let_it_be_seen(self, cases: Sequence[Case]) -> None:
        """Put what was written in the place of what was there; remove what has ended."""
        for case in cases:
            path = self._place_of(case)[2]
            try:
                self._show(case)
            except OSError as error:
                # Only after an input/output error may a rename have been done all the same (POSIX).
                is_unsure = error.errno == errno.EIO or case.was_damaged
                fail = case.doubt if is_unsure else case.refuse
                fail(explain(error, path))

    def _show(self, case: Case) -> None:
        shard, name, _ = self._place_of(case)
        if case.row is None or case.was_damaged:
            shard.remove(name, f"{self._root.path}/{DAMAGED}")
        if case.row is not None:
            shard.put_in_place(name)
            del self._temporary[name]

    # --- sync ----------------------------------------------------------------------------------

    def sync_folders(self, cases: Sequence[Case]) -> None:
        """Let the names reach the disk: those of the files, and of folders that may be new."""
        folders: dict[int, list[Case]] = {}
        for case in cases:
            folders.setdefault(self._place_of(case)[0].descriptor, []).append(case)
        failures = self._syncs.sync(list(folders))
        for concerned, failure in zip(folders.values(), failures, strict=True):
            if failure is not None:
                for case in concerned:
                    case.doubt(explain(failure, self._place_of(case)[0].path))


def _certain(error: OSError, path: str) -> StoreUnavailable:
    """Return what to answer to an error before which nothing was changed.

    Raises:
        OSError: too many files are open, and fewer sessions at once may need fewer.
    """
    if error.errno in OUT_OF_FILES:
        raise error
    return explain(error, path)
