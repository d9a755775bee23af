from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from minisession._ids import join_id, new_handle, new_secret
from tests.watch import LogWatch, shows_an_id

ROOT = Path(__file__).parent.parent
LEAKS = """
import logging
import sys

from minisession._ids import join_id, new_handle, new_secret

ID = join_id(new_handle(), new_secret())

def test_that_prints_an_id():
    print("cookie:", ID)

def test_that_prints_a_secret_to_stderr():
    print(ID.partition(".")[2], file=sys.stderr)

def test_that_logs_an_id():
    logging.getLogger("minisession.stores").debug("loading %s", ID)

def test_that_logs_an_error_with_an_id():
    try:
        raise ValueError(ID)
    except ValueError:
        logging.getLogger("minisession").exception("no")

def test_that_prints_a_handle():
    print(ID.partition(".")[0])
"""


def test_an_id_is_found_by_its_shape_and_a_secret_of_this_process_by_heart() -> None:
    handle, secret = new_handle(), new_secret()
    shown = [join_id(handle, secret), f"id={join_id(handle, secret)};", f"({secret})"]
    foreign = ["0" * 32, handle, f"{handle}.", f"x{secret}", "a.b", ""]

    assert all(map(shows_an_id, shown))
    assert not any(map(shows_an_id, foreign))
    assert shows_an_id(f"{'A' * 22}.{'b' * 32}")


def test_a_log_record_is_read_with_its_traceback() -> None:
    watch = LogWatch()
    record = logging.LogRecord("minisession", logging.INFO, "a.py", 7, "no", (), None)
    record.exc_info = (ValueError, ValueError(new_secret()), None)

    watch.emit(record)

    assert watch.caught == ["minisession at a.py:7"]


def test_a_test_that_makes_an_id_show_fails(tmp_path: Path) -> None:
    test_file = tmp_path / "test_leaks.py"
    test_file.write_text(LEAKS)
    options = ["-c", "pyproject.toml", "-p", "tests.conftest", "-p", "no:cacheprovider"]

    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, test_file],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )

    assert "4 failed, 1 passed" in run.stdout.splitlines()[-1]
    assert run.stdout.count("An id or a secret shows in:") >= 4
