"""What every test shares: both backends, what it needs of the machine, the count of its tries."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.effort import SOAK, Tally, summed

ACCEPTANCE = Path(__file__).parent / "acceptance"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every anyio test on both backends."""
    return str(request.param)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Count what a test tries: `tally("schedules", 500)`. The run's summary prints the sums."""
    return Tally(request.node.user_properties)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the long run, keep only the searches: the tests that count what they try."""
    if not SOAK:
        return
    rest = [item for item in items if "tally" not in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=rest)
    items[:] = [item for item in items if item not in set(rest)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how much was tried in the whole run."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    sums = summed(report for report in reports if report.when == "call")
    if sums:
        terminalreporter.section("what was tried")
    for what, tried in sorted(sums.items()):
        terminalreporter.write_line(f"{tried:>12,} {what}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Keep `@pytest.mark.needs("command", ...)`: skip without it; under CI, which has all, fail."""
    needed = [command for mark in item.iter_markers("needs") for command in mark.args]
    missing = [command for command in needed if shutil.which(command) is None]
    if not missing:
        return
    reason = f"needs {', '.join(missing)} on the PATH"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}: install it in .ci/run", pytrace=False)
    pytest.skip(reason)
