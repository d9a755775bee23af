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
TESTS_THAT_SEARCH = """
import pytest

@pytest.mark.parametrize("schedules", [500, 700])
def test_that_searches(schedules, tally):
    tally("schedules", schedules)

def test_that_does_not_search():
    pass
"""
TESTS_OF_CLAUSES = """
import pytest
from tests.clause_table import note

@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("clause", ["is_kept", "is_broken", "is_kept_too"])
def test_that_checks(clause, backend, request):
    part = "life" if clause == "is_kept" else "limits"
    note(request.node.user_properties, part, clause, "shelf", backend)
    assert backend == "trio" or clause != "is_broken"
"""


def run_pytest(test_file: Path, *more: str, **env: str) -> str:
    """Run one file with this project's configuration, and return what pytest prints."""
    options = ["-c", "pyproject.toml", "-p", "tests.conftest", "-p", "no:cacheprovider", *more]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, test_file],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", "1 passed, 1 skipped"), ("true", "1 passed, 1 error")]
)
def test_a_test_that_lacks_a_command_skips_for_a_user_and_fails_in_ci(
    tmp_path: Path, ci: str, outcome: str
) -> None:
    test_file = tmp_path / "test_needs.py"
    test_file.write_text(TESTS_WITH_NEEDS)

    printed = run_pytest(test_file, CI=ci)

    assert outcome in printed.splitlines()[-1]
    assert "needs no-such-command" in printed


@pytest.mark.parametrize(("soak", "outcome"), [("", "3 passed"), ("1", "2 passed, 1 deselected")])
def test_what_was_searched_is_summed_up_and_the_long_run_does_nothing_else(
    tmp_path: Path, soak: str, outcome: str
) -> None:
    test_file = tmp_path / "test_search.py"
    test_file.write_text(TESTS_THAT_SEARCH)

    printed = run_pytest(test_file, MINISESSION_SOAK=soak)

    assert "1,200 schedules" in printed
    assert outcome in printed.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "rows"),
    [
        (("-n1",), ["| clauses about | shelf asyncio | shelf trio |", "| limits | 1/2 | 2/2 |"]),
        (("-v",), ["| clause | shelf asyncio | shelf trio |", "| is_broken | 0/1 | 1/1 |"]),
    ],
    ids=["by part, from another process", "each clause"],
)
def test_which_clauses_which_store_has_kept_is_printed_as_a_table(
    tmp_path: Path, more: tuple[str, ...], rows: list[str]
) -> None:
    test_file = tmp_path / "test_clauses.py"
    test_file.write_text(TESTS_OF_CLAUSES)

    printed = run_pytest(test_file, *more).splitlines()

    for row in [*rows, "| all | 2/3 | 3/3 |"]:
        assert row in printed
