"""Several processes that serve the same listening sockets: started, replaced and stopped together.

Owns the life of the processes, and nothing of what they serve: plain synchronous Python without an
event loop, in which the application is never imported, so that nothing of it can break the one
process that must not break.

Between a worker and its supervisor there is a socket pair. Through it the worker says that it
accepts requests; and as the kernel closes it when the supervisor ends, however it ends, nobody is
left behind.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Self

logger = logging.getLogger("minisession.supervisor")

# A worker that ends sooner has not recovered: the next one waits, twice as long each time.
_SOON = 10.0  # seconds
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
_MOST_DOUBLINGS = 10  # more would only make the number overflow, one day

_STOPPING = (signal.SIGTERM, signal.SIGINT)


class WorkerFailed(Exception):
    """A worker could not start, or did not stop in good order; it has said why itself."""


class Worker:
    """One process. Mutable: `is_ready` (it accepts requests), `is_mute` (it will say no more).

    Raises:
        OSError: the system has no room for another process, or cannot find the command.
    """

    def __init__(self, command: Sequence[str], listening: Sequence[int]) -> None:
        self.channel, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _started(command, (theirs.fileno(), *listening))
            except OSError:
                self.channel.close()
                raise
        self.channel.setblocking(False)
        self.began = monotonic()
        self.is_ready = self.is_mute = False

    @property
    def has_ended(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than it should have, once it had begun to serve.

        A second SIGTERM may come when it has stopped already and is no longer prepared for one.
        """
        return self.is_ready and self._process.poll() not in (None, 0, -signal.SIGTERM)

    @property
    def end(self) -> str:
        """How it ended, in words."""
        code = self._process.returncode
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def look(self) -> None:
        """Notice whether it has said that it is ready."""
        try:
            said = self.channel.recv(1)
        except BlockingIOError:
            return
        except ConnectionError:
            said = b""
        self.is_ready = self.is_ready or bool(said)
        self.is_mute = True

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        self._process.send_signal(number)

    def close(self) -> None:
        """Forget a process that has ended."""
        self._process.wait()
        self.channel.close()


def _started(command: Sequence[str], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own command line again
        [*command, "--worker", ",".join(map(str, descriptors))],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        # Ctrl-C reaches all of a terminal's group; a worker would take it for a first signal, and
        # the supervisor's for a second one.
        process_group=0,
    )


class _Signals:
    """Turns signals into bytes, so that one wait is for signals and everything else."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers

    def __enter__(self) -> Self:
        self.channel, self._written = socket.socketpair()
        self.channel.setblocking(False)
        self._written.setblocking(False)
        self._before = signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        self._handlers = {each: signal.signal(each, lambda *_: None) for each in self._numbers}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before)
        self.channel.close()
        self._written.close()

    def received(self) -> bytes:
        """Return the numbers of those that came since the last time."""
        with contextlib.suppress(BlockingIOError):
            return self.channel.recv(4096)
        return b""


class Supervisor:
    """Keeps `count` workers running.

    Mutable: the workers, `_due` (when lost ones are to be replaced, in monotonic seconds),
    `_losses` (workers in a row that ended soon), and `_stops` (signals that asked for the end).

    Args:
        command: the words that start a worker; `--worker` and its descriptors are added.
        listening: the descriptors of the listening sockets.
        count: of workers.
        patience: seconds for the workers to stop, before they are killed.
    """

    def __init__(
        self, command: Sequence[str], listening: Sequence[int], count: int, patience: float
    ) -> None:
        self._command = command
        self._listening = listening
        self._count = count
        self._patience = patience
        self._workers: list[Worker] = []
        self._due: list[float] = []
        self._losses = self._stops = 0

    def run(self, on_start: Callable[[], object], on_stop: Callable[[], object]) -> None:
        """Run the workers until SIGTERM or SIGINT; then stop them together, in good order.

        A second signal is passed on, and cancels what still runs.

        Args:
            on_start: is called once all workers accept requests.
            on_stop: is called before the workers are told to stop.

        Raises:
            WorkerFailed: one could not start in the beginning, or not stop in good order.
        """
        with _Signals(*_STOPPING, signal.SIGCHLD) as self._signals:
            try:
                self._start_all()
                if not self._stops:
                    on_start()
                while not self._stops:
                    self._replace_lost()
                    self._wait(min(self._due, default=None))
            finally:
                on_stop()
                self._stop_all()

    def _start_all(self) -> None:
        """Start the first worker, then the others: what is wrong is said once."""
        for count in (1, self._count):
            self._due = [0.0] * (count - len(self._workers))
            try:
                self._start_due()
            except OSError as error:
                raise WorkerFailed(f"a worker could not start: {error.strerror}") from None
            while not (self._stops or all(each.is_ready for each in self._workers)):
                self._wait(None)
                for worker in [each for each in self._workers if each.has_ended]:
                    worker.look()  # one that was ready first will be replaced
                    if not (worker.is_ready or self._stops):
                        raise WorkerFailed(f"a worker could not start: {worker.end}")

    def _start_due(self) -> None:
        while self._due and min(self._due) <= monotonic():
            self._workers.append(Worker(self._command, self._listening))
            self._due.remove(min(self._due))

    def _replace_lost(self) -> None:
        for worker in [each for each in self._workers if each.has_ended]:
            self._workers.remove(worker)
            worker.close()
            pause = self._next_pause(is_lost_soon=monotonic() - worker.began < _SOON)
            logger.error(
                "worker %d ended: %s; another starts in %g s", worker.pid, worker.end, pause
            )
            self._due.append(monotonic() + pause)
        try:
            self._start_due()
        except OSError as error:  # no memory or no process to spare, which may pass
            pause = self._next_pause(is_lost_soon=True)
            reason = error.strerror
            logger.error("no worker can start now: %s; again in %g s", reason, pause)  # noqa: TRY400
            self._due = [max(due, monotonic() + pause) for due in self._due]

    def _next_pause(self, *, is_lost_soon: bool) -> float:
        if not is_lost_soon:
            self._losses = 0
            return 0.0
        self._losses = min(self._losses + 1, _MOST_DOUBLINGS)
        return min(_FIRST_PAUSE * 2.0**self._losses, _LONGEST_PAUSE)

    def _stop_all(self) -> None:
        running = [each for each in self._workers if not each.has_ended]
        deadline = monotonic() + self._patience
        passed_on = self._stops
        self._send(signal.SIGTERM)
        while not all(each.has_ended for each in self._workers):
            if monotonic() >= deadline:
                logger.error("workers are killed: they did not stop in %g s", self._patience)
                self._send(signal.SIGKILL)
                break
            self._wait(deadline)
            if self._stops > passed_on:
                passed_on = self._stops
                self._send(signal.SIGTERM)
        for worker in self._workers:
            worker.close()
        if failed := [each for each in running if each.failed]:
            ends = ", ".join(f"{each.pid}: {each.end}" for each in failed)
            raise WorkerFailed(f"workers did not stop in good order ({ends})")

    def _send(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.send(number)

    def _wait(self, until: float | None) -> None:
        """Wait for a signal, the end of a worker, or its being ready; or until a time."""
        timeout = None if until is None else max(until - monotonic(), 0)
        with selectors.DefaultSelector() as selector:
            selector.register(self._signals.channel, selectors.EVENT_READ)
            for worker in self._workers:
                if not (worker.is_mute or worker.has_ended):
                    selector.register(worker.channel, selectors.EVENT_READ)
            selector.select(timeout)
        self._stops += sum(number in _STOPPING for number in self._signals.received())
        for worker in self._workers:
            worker.look()
