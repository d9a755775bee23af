"""`minisession` as a process of its own, as a user would start it in some folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.watch import shows_an_id

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "minisession"]

GRACE = 15  # seconds; a server that stops in good order needs a small part of it


@dataclass
class Running:
    """A server that accepts requests.

    Attributes:
        url: where it listens, as it said.
        process: itself.
    """

    url: str
    process: subprocess.Popen[str]

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """Stop it by a signal; return its exit code."""
        self.process.send_signal(with_signal)
        return self.process.wait(GRACE)

    def lines(self) -> list[str]:
        """Return what it said after it had said where it listens, once it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read().splitlines()


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without our own variables, changed."""
    ours = {name for name in os.environ if name.startswith("MINISESSION_")}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def finished(folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
        timeout=GRACE,
    )


@contextmanager
def running(folder: Path, *arguments: str, **changes: str) -> Iterator[Running]:
    """Start a command that serves; in the end stop it, if it still runs, in good order.

    Nothing that it says may show an id.
    """
    with (folder / "stderr.txt").open("a") as errors:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            env=environment(**changes),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            process_group=0,  # like a command that is started at a terminal
        )
    with process:
        try:
            server = Running(_announced(process, folder), process)
            yield server
            if process.poll() is None:
                assert server.stop() == 0
        finally:
            process.kill()
        assert process.stdout is not None
        said = process.stdout.read() + (folder / "stderr.txt").read_text()
        assert not shows_an_id(said), "the server's output shows an id or a secret"


def _announced(process: subprocess.Popen[str], folder: Path) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.fullmatch(r"Listening on (https?://\S+|unix:\S+)\n", line)
    assert match, f"{line!r}, and on stderr: {(folder / 'stderr.txt').read_text()}"
    return match[1]
