"""`minisession bench isolation` as a user types it: what it says, writes and returns."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from minisession.bench import Progress, Report
from minisession.cli import bench, main
from tests.bench.samples import report, report_with_findings
from tests.command import COMMAND, ROOT, environment, finished

PLANTED = [sys.executable, str(ROOT / "tests/bench/planted.py")]
FEW = ("bench", "isolation", "--tasks", "1000")
PATIENCE = 200  # seconds, for what takes three


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.slow
def test_a_thousand_sessions_at_once_are_isolated(tmp_path: Path) -> None:
    done = run(tmp_path, *COMMAND, *FEW, "--json", "out.json", "--plot", "out.html")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "cross-talk          0" in done.stdout
    assert "1,000 visitors: 100 %" in done.stderr.splitlines()
    values = json.loads((tmp_path / "out.json").read_text())
    assert (values["is_clean"], values["runs"][-1]["alive_at_once"]) == (True, 1000)
    assert "1,000 sessions alive" in (tmp_path / "out.html").read_text()


@pytest.mark.slow
def test_the_same_command_finds_one_session_for_everybody(
    tmp_path: Path, anyio_backend: str
) -> None:
    done = run(tmp_path, *PLANTED, *FEW, "--backend", anyio_backend, "--json", "out.json")

    assert done.returncode == 1
    assert "saw 'owner' of visitor" in done.stdout
    assert "sessions are not isolated: " in done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["cross_talk"] > 1000


# --- the command line around it: the measuring is replaced by its result ------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, str, int]]:
    """Measures nothing; remembers what it was asked for."""
    asked = []

    def measure(tasks: int, backend: str, store: str, seed: int, progress: Progress) -> Report:
        asked.append((tasks, backend, store, seed))
        return report_with_findings() if seed == 666 else report()

    monkeypatch.setattr(bench, "measure", measure)
    return asked


def test_what_is_asked_for_is_measured(
    measured: list[tuple[int, str, str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--tasks", "1234", "--backend", "trio", "--store", "sqlite:///x.db", "--seed", "5"]

    assert [main(["bench", "isolation"]), main(["bench", "isolation", *options])] == [0, 0]

    assert measured == [(20_000, "asyncio", "memory://", 1), (1234, "trio", "sqlite:///x.db", 5)]
    assert "20,000 visitors at once" in capsys.readouterr().out


def test_findings_are_exit_code_1_after_the_files_were_written(
    measured: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"

    code = main(["bench", "isolation", "--seed", "666", "--json", str(file)])

    assert code == 1
    assert json.loads(file.read_text())["cross_talk"] == 3
    assert capsys.readouterr().err.startswith(
        "minisession bench isolation: sessions are not isolated: 3 of "
    )


@pytest.mark.parametrize(
    ("name", "opening"),
    [("out.svg", b"<svg "), ("out.html", b"<!doctype html>"), ("out.png", b"\x89PNG\r\n")],
)
def test_the_plot_is_what_the_files_name_says(
    measured: object, tmp_path: Path, name: str, opening: bytes
) -> None:
    assert main(["bench", "isolation", "--plot", str(tmp_path / name)]) == 0

    assert (tmp_path / name).read_bytes().startswith(opening)


def test_every_option_is_in_the_manual(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/how-to/measure-isolation.md").read_text()

    with pytest.raises(SystemExit):
        main(["bench", "isolation", "--help"])

    options = set(re.findall(r"^ +(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    assert "--tasks" in options
    assert {option for option in options if f"`{option}" not in page} == set()


def test_the_drawing_of_the_manual_is_one_of_this_program() -> None:
    root = ET.fromstring((ROOT / "docs/images/isolation.svg").read_text())

    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "20,000 sessions alive in one event loop" in texts


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "999"], "argument --tasks: '999': allowed is 1000 to 100000"),
        (["--tasks", "100001"], "as in --tasks 20000"),
        (["--tasks", "many"], "'many': allowed is 1000 to 100000"),
        (["--backend", "curio"], "invalid choice: 'curio'"),
        (["--plot", "out.gif"], "'out.gif': allowed are .svg, .png, .html"),
        (["--plot", "no/out.svg"], "'no/out.svg': a file in a folder that exists is needed"),
        (["--json", "."], "'.': a file in a folder that exists is needed"),
        (["--store", "sqlight:///x"], "store=sqlight:...: no such store"),
    ],
)
def test_a_wrong_option_exits_with_2_and_says_what_is_allowed(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    try:
        code: object = main(["bench", "isolation", *arguments])
    except SystemExit as ended:
        code = ended.code

    assert code == 2
    assert said in capsys.readouterr().err


def test_a_store_that_cannot_be_opened_exits_with_1(tmp_path: Path) -> None:
    done = finished(tmp_path, "bench", "isolation", "--store", "sqlite:///no/such/folder/x.db")

    assert (done.returncode, done.stdout) == (1, "")
    assert "no/such/folder exists" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written_exits_with_1(
    measured: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "isolation", "--json", "/dev/full"]) == 1

    assert "cannot write /dev/full: No space left on device" in capsys.readouterr().err


INTERRUPTIBLE = """
import signal, sys
from minisession.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts the tests may ignore it
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_ends_it_without_a_traceback(tmp_path: Path, anyio_backend: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "bench", "isolation", "--backend", anyio_backend],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        try:
            process.stderr.readline()  # it has begun
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()

    assert (process.returncode, out) == (1, "")
    assert "stopped before the end" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "missing", "said"),
    [
        (["--backend", "trio"], "trio", 'pip install "minisession[server]"'),
        (["--plot", "out.png"], "resvg_py", 'pip install "minisession[bench]"'),
    ],
)
def test_what_is_not_installed_is_said_before_anything_is_measured(
    arguments: list[str],
    missing: str,
    said: str,
    measured: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed

    assert main(["bench", "isolation", *arguments]) == 1

    assert said in capsys.readouterr().err
    assert measured == []
