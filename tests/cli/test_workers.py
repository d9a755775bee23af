"""Several processes that serve together: killed, replaced, stopped, and left alone."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

from minisession.cli.supervisor import Supervisor, WorkerFailed
from tests.certificates import Certificate
from tests.command import GRACE, Running, finished, running
from tests.effort import Tally, effort

TELLING = """
import os
import anyio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("this application has no lifespan")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    pid = str(os.getpid()).encode()
    await send({"type": "http.response.body", "body": pid, "more_body": True})
    await anyio.sleep(float(scope["path"][1:] or 0))
    await send({"type": "http.response.body", "body": b" done"})

async def broken(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""

SERVE = ("serve", "telling:app", "--port", "0", "--workers", "2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "telling.py").write_text(TELLING)
    return tmp_path


class Visit:
    """One request; what it got. Mutable: both, as they come."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self.pid = ""
        self.is_whole = False
        self.has_begun = threading.Event()
        self._client, self._url = client, url

    def run(self) -> None:
        """Make the request; its failure is noted, not raised."""
        try:
            with self._client.stream("GET", self._url, headers={"connection": "close"}) as response:
                for text in response.iter_text():
                    self.pid = self.pid or text.split()[0]
                    self.is_whole = text.endswith("done")
                    self.has_begun.set()
        except httpx.TransportError:
            self.is_whole = False
        finally:
            self.has_begun.set()


@contextmanager
def visitors(
    url: str, path: str, count: int, client: httpx.Client | None = None
) -> Iterator[list[Visit]]:
    """That many requests at once, all of which have begun; they are over in the end."""
    with client or httpx.Client(timeout=GRACE) as client, ThreadPoolExecutor(count) as pool:
        visits = [Visit(client, url + path) for _ in range(count)]
        for visit in visits:
            pool.submit(visit.run)
        assert all(visit.has_begun.wait(GRACE) for visit in visits)
        yield visits


def pids_at_work(url: str, client: httpx.Client | None = None) -> set[int]:
    """Who answers: enough slow requests at once that each worker gets some."""
    with visitors(url, "/0.05", 8, client) as visits:
        pass
    return {int(visit.pid) for visit in visits if visit.pid}


def wait_until(is_so: Callable[[], bool]) -> None:
    end = monotonic() + GRACE
    while not is_so():
        assert monotonic() < end
        sleep(0.02)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended and that nobody has asked about yet is in the table still.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def all_pids(server: Running) -> set[int]:
    """The workers; each has answered."""
    found: set[int] = set()

    def are_all_found() -> bool:
        found.update(pids_at_work(server.url))
        return len(found) == 2

    wait_until(are_all_found)
    return found


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_only_its_own_requests_with_it_and_is_replaced(
    folder: Path, anyio_backend: str, tally: Tally
) -> None:
    kills = effort(1, soak=20)
    with running(folder, *SERVE, "--backend", anyio_backend) as server:
        for _ in range(kills):
            before = all_pids(server)
            with visitors(server.url, "/0.3", 8) as visits:
                killed = int(visits[0].pid)
                os.kill(killed, signal.SIGKILL)
                after = pids_at_work(server.url)  # meanwhile

            assert {visit.is_whole for visit in visits if visit.pid != str(killed)} <= {True}
            assert {visit.is_whole for visit in visits if visit.pid == str(killed)} == {False}
            assert after == before - {killed}
            wait_until(lambda old=before: bool(pids_at_work(server.url) - old))  # type: ignore[misc]

    assert f"worker {killed} ended: SIGKILL; another" in (folder / "stderr.txt").read_text()
    tally("kills", kills)


def terminate(server: Running) -> None:
    server.process.terminate()


def press_ctrl_c(server: Running) -> None:
    os.killpg(server.process.pid, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "backend"), [(terminate, "trio"), (press_ctrl_c, "asyncio")])
def test_a_stop_lets_every_request_that_was_accepted_finish(
    folder: Path, backend: str, stop: Callable[[Running], None]
) -> None:
    with running(folder, *SERVE, "--backend", backend) as server:
        workers = all_pids(server)
        with visitors(server.url, "/0.5", 8) as visits:
            stop(server)
        code = server.process.wait(GRACE)

    assert [visit.is_whole for visit in visits] == [True] * 8
    assert code == 0
    assert not any(map(lives, workers))
    assert "ERROR" not in (folder / "stderr.txt").read_text()


@pytest.mark.slow
def test_a_second_signal_cancels_what_still_runs(folder: Path) -> None:
    with running(folder, *SERVE) as server, visitors(server.url, "/100", 4) as visits:
        server.process.terminate()
        wait_until(lambda: "stopping on SIGTERM" in (folder / "stderr.txt").read_text())
        code = server.stop()

    assert [visit.is_whole for visit in visits] == [False] * 4
    assert code == 0


@pytest.mark.slow
def test_workers_whose_supervisor_is_killed_finish_their_requests_and_go(folder: Path) -> None:
    with running(folder, *SERVE) as server:
        workers = all_pids(server)
        with visitors(server.url, "/0.5", 8) as visits:
            server.stop(signal.SIGKILL)

        assert [visit.is_whole for visit in visits] == [True] * 8
        wait_until(lambda: not any(map(lives, workers)))


@pytest.mark.slow
def test_workers_share_a_unix_socket_and_a_certificate(
    folder: Path, certificate: Certificate
) -> None:
    files = ("--certfile", certificate.certfile, "--keyfile", certificate.keyfile)
    with running(folder, *SERVE, "--uds", "s.sock", *files, "--backend", "trio") as server:
        path = str(folder / "s.sock")
        transport = httpx.HTTPTransport(uds=path, verify=certificate.client())

        assert server.url == "unix:s.sock"
        assert pids_at_work("https://localhost", httpx.Client(transport=transport, timeout=GRACE))
    assert not (folder / "s.sock").exists()


def test_a_worker_that_cannot_start_stops_all_and_says_why_once(folder: Path) -> None:
    run = finished(folder, "serve", "telling:broken", *SERVE[2:])

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.count("no database") == 1
    assert run.stderr.endswith("minisession serve: a worker could not start: exit code 1\n")


@pytest.mark.parametrize("command", [("serve", "telling:app"), ("demo",)])
def test_sessions_in_memory_are_refused_with_more_than_one_worker(
    folder: Path, command: tuple[str, ...]
) -> None:
    run = finished(folder, *command, "--store", "memory://", "--workers", "2")

    assert (run.returncode, run.stdout) == (2, "")
    assert "--store sqlite:///sessions.db" in run.stderr


# --- the supervisor alone, with workers that do as they please ------------------------------------

READY = """
import os, signal, sys, time
os.write(int(sys.argv[-1].split(",")[0]), b"1")
"""
# Until it is killed, or its supervisor is no more.
WAIT = """
os.read(int(sys.argv[-1].split(",")[0]), 1)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + READY + WAIT
# The fourth one has the supervisor stop, in good order.
FRAIL = (
    READY
    + """
open("starts", "a").write("x")
if len(open("starts").read()) == 4:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()
sys.exit(3)
"""
)


def supervisor(script: str, patience: float = GRACE) -> Supervisor:
    return Supervisor([sys.executable, "-c", script], [], 1, patience)


def test_workers_that_do_not_stop_are_killed(caplog: pytest.LogCaptureFixture) -> None:
    stubborn = supervisor(STUBBORN, patience=0.2)

    with pytest.raises(WorkerFailed, match="SIGKILL"):
        stubborn.run(lambda: os.kill(os.getpid(), signal.SIGTERM), lambda: None)

    assert "they did not stop in 0.2 s" in caplog.text


def test_who_ends_again_and_again_is_replaced_ever_more_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)

    supervisor(FRAIL).run(lambda: None, lambda: None)

    said = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert said == [f"exit code 3; another starts in {pause} s" for pause in ("0.2", "0.4", "0.8")]


def test_a_long_row_of_losses_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minisession.cli.supervisor._LONGEST_PAUSE", 0.0)
    frail = supervisor(FRAIL)
    frail._losses = 1023  # 2.0 to the power of 1024 is no number

    frail.run(lambda: None, lambda: None)

    assert (tmp_path / "starts").read_text() == "xxxx"


class StopsWhenTold(logging.Handler):
    """Stops this process's supervisor as soon as it says something with these words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def emit(self, record: logging.LogRecord) -> None:
        if self.words in record.getMessage():
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_supervisor_that_cannot_start_a_worker_tries_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    vanishing = READY + f"os.unlink({str(link)!r}); sys.exit(3)"
    logger, stopping = logging.getLogger("minisession.supervisor"), StopsWhenTold("again in 0.8 s")
    logger.addHandler(stopping)
    try:
        Supervisor([str(link), "-c", vanishing], [], 1, GRACE).run(lambda: None, lambda: None)
    finally:
        logger.removeHandler(stopping)

    said = [record.getMessage() for record in caplog.records][1:]
    assert said == [
        f"no worker can start now: No such file or directory; again in {pause} s"
        for pause in ("0.4", "0.8")
    ]


def test_a_first_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match="could not start: No such file or directory"):
        Supervisor([str(tmp_path / "python")], [], 1, GRACE).run(lambda: None, lambda: None)


def test_a_worker_that_will_say_no_more_is_not_waited_for_in_circles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[int] = []
    seen: list[int] = []
    wait = Supervisor._wait

    class Noted(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> Any:
            ready = super().select(timeout)
            events.append(len(ready))
            return ready

    def look_before(self: Supervisor, until: float | None) -> None:
        [worker] = self._workers
        if worker.is_mute and not worker.has_ended:
            wait(self, monotonic())
            seen.append(events[-1])
            worker.send(signal.SIGKILL)
        wait(self, until)

    monkeypatch.setattr(selectors, "DefaultSelector", Noted)
    monkeypatch.setattr(Supervisor, "_wait", look_before)
    silent = """
import os, signal, sys
os.close(int(sys.argv[-1].split(",")[0]))
signal.pause()
"""

    with pytest.raises(WorkerFailed, match="SIGKILL"):
        supervisor(silent).run(lambda: None, lambda: None)

    assert set(seen) == {0}


def test_the_signals_are_as_before_when_the_supervisor_is_over() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]

    with pytest.raises(WorkerFailed, match="exit code 5"):
        supervisor("import sys; sys.exit(5)").run(lambda: None, lambda: None)

    after = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]
    assert after == before
