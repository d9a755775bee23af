from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS_WITH_NEEDS = f"""
import pytest

@pytest.mark.needs({sys.executable!r})
def test_whose_command_is_here():
    pass

@pytest.mark.needs("no-such-command")
def test_whose_command_is_missing():
    pass
"""


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", "1 passed, 1 skipped"), ("true", "1 passed, 1 error")]
)
def test_a_test_that_lacks_a_command_skips_for_a_user_and_fails_in_ci(
    tmp_path: Path, ci: str, outcome: str
) -> None:
    test_file = tmp_path / "test_needs.py"
    test_file.write_text(TESTS_WITH_NEEDS)
    options = ["-c", "pyproject.toml", "-p", "tests.conftest", "-p", "no:cacheprovider"]

    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, test_file],
        cwd=ROOT,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )

    assert outcome in run.stdout.splitlines()[-1]
    assert "needs no-such-command on the PATH" in run.stdout
