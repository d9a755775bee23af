"""The command line itself: help, exit codes, and what is said when it is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from minisession.cli import main
from tests.command import environment, finished

SHOP = "async def app(scope, receive, send): pass"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], ["serve ", "demo "]),
        (["serve", "--help"], ["minisession serve MODULE:APP [options]", "--store URL"]),
        (["demo", "--help"], ["--no-browser", "sqlite:///minisession-demo.db"]),
    ],
)
def test_help_names_what_there_is(
    arguments: list[str], shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert [text for text in shown if text not in out] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: COMMAND"),
        (["sevre"], "invalid choice: 'sevre'"),
        (["serve"], "required: MODULE:APP"),
        (["serve", "shop:app", "--backend", "curio"], "invalid choice: 'curio'"),
        (["serve", "shop:app", "--port", "http"], "invalid int value: 'http'"),
        (["serve", "shop:app", "--port", "99999"], "port=99999: allowed is 0 to 65535"),
        (["serve", "shop:app", "--workers", "0"], "'0': allowed is 1 to 1000, as in --workers 4"),
        (["serve", "shop:app", "--keyfile", "key.pem"], "keyfile='key.pem': allowed is"),
        (["serve", "shop:app", "--forwarded-allow-ips", "proxy"], "'proxy': allowed are addresses"),
        (["serve", "shop:app", "--head-timeout", "0"], "head_timeout=0.0: allowed is seconds"),
        (["serve", "shop:app", "--store", "sqlight:///x"], "store=sqlight:...: no such store"),
        (["demo", "--store", "sqlite"], "store='sqlite': no such store"),
        (["serve", "shop:ap"], "minisession serve shop:app"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_what_is_allowed(
    folder: Path, arguments: list[str], said: str
) -> None:
    run = finished(folder, *arguments)

    assert (run.returncode, run.stdout) == (2, "")
    assert said in run.stderr
    assert "Traceback" not in run.stderr


def test_a_wrong_environment_variable_exits_with_2_and_names_the_one_that_was_meant(
    folder: Path,
) -> None:
    run = finished(
        folder, "serve", "shop:app", "--store", "memory://", MINISESSION_CACHE_EXPIER="5"
    )

    assert run.returncode == 2
    assert "did you mean MINISESSION_CACHE_EXPIRE" in run.stderr


def test_a_mistake_in_the_applications_own_configuration_is_shown_where_it_is(
    folder: Path,
) -> None:
    (folder / "shop.py").write_text("from minisession import SessionConfig; SessionConfig(name='')")

    run = finished(folder, "serve", "shop:app", "--store", "memory://")

    assert run.returncode == 1
    assert 'shop.py", line 1' in run.stderr


@pytest.mark.parametrize(
    ("arguments", "missing", "code", "said"),
    [
        (["serve", "shop:app"], "h11", 1, "needs h11, which is not installed"),
        (["demo"], "h11", 1, 'pip install "minisession[server]"'),
        (["serve", "shop:app", "--backend", "trio"], "trio", 1, "needs trio, "),
        (["serve", "--help"], "h11", 0, ""),
    ],
)
def test_what_is_not_installed_is_said_with_the_command_that_installs_it(
    folder: Path, arguments: list[str], missing: str, code: int, said: str
) -> None:
    script = f"""
import sys
sys.modules[{missing!r}] = None  # as if it were not installed
from minisession.cli import main
sys.exit(main({arguments!r}))
"""

    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == code
    assert said in run.stderr
