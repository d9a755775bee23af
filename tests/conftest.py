"""What every test shares: both backends, what it needs of the machine, how much was tried, and the
watch that no id shows in anything that is printed, logged or raised."""

from __future__ import annotations

import logging
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest
from coverage import Coverage

from tests.certificates import Certificate, issue
from tests.clause_table import Table
from tests.effort import SOAK, Tally, summed
from tests.machine import FACTS, lack
from tests.watch import LogWatch, remember_secrets, shows_an_id

ACCEPTANCE = Path(__file__).parent / "acceptance"

# No test modules, but their assertions are to show what they compared all the same.
for _name in ("writes", "ends", "logins", "requests", "world"):
    pytest.register_assert_rewrite(f"tests.races.{_name}")

log_watch = LogWatch()


def pytest_configure() -> None:
    """Start the watch, and hear Ctrl-C: shells have their background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _start_the_watch()


def _start_the_watch() -> None:
    """Watch secrets as they are made, and all that the package logs."""
    remember_secrets()
    logger = logging.getLogger("minisession")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(log_watch)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that makes an id show, even if nothing else is wrong with it."""
    report = yield
    shown = [name for name, text in report.sections if shows_an_id(text)]
    shown += [f"a log record of {place}" for place in log_watch.caught]
    log_watch.caught.clear()
    if shown and report.passed:
        report.outcome = "failed"
        report.longrepr = f"An id or a secret shows in: {', '.join(shown)}"
    return report


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every anyio test on both backends."""
    return str(request.param)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A server's certificate and key, made once."""
    return issue(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Count what a test tries: `tally("schedules", 500)`. The run's summary prints the sums.

    Coverage looks away meanwhile: a search does a thousand times what other tests do once, and
    being traced takes it twice as long.
    """
    with untraced():
        yield Tally(request.node.user_properties)


@contextmanager
def untraced() -> Iterator[None]:
    """Where coverage is measured, do not measure it for a while, nor in processes begun then."""
    measured = Coverage.current()
    if measured is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(
            "COVERAGE_PROCESS_CONFIG", raising=False
        )  # how `patch = subprocess` tells them
        measured.stop()
        try:
            yield
        finally:
            measured.start()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the long run, keep only the searches: the tests that count what they try."""
    if not SOAK:
        return
    rest = [item for item in items if "tally" not in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=rest)
    items[:] = [item for item in items if item not in set(rest)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how much was tried in the whole run, and which clauses which store has kept."""
    outcomes = ("passed", "failed")
    reports = [report for kind in outcomes for report in terminalreporter.getreports(kind)]
    called = [report for report in reports if report.when == "call"]
    sums = summed(called)
    if sums:
        terminalreporter.section("what was tried")
    for what, tried in sorted(sums.items()):
        terminalreporter.write_line(f"{tried:>12,} {what}")
    table = Table.of(called)
    if table.stores:
        terminalreporter.section("clauses of the store contract: kept/checked")
    for line in table.lines(each=terminalreporter.config.get_verbosity() > 0):
        terminalreporter.write_line(line)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Keep `@pytest.mark.needs("command", ...)`: skip without it; under CI, which has all, fail."""
    needed = [name for mark in item.iter_markers("needs") for name in mark.args]
    missing = [name for name in needed if not (FACTS[name]() if name in FACTS else which(name))]
    if missing:
        lack(f"needs {', '.join(missing)}")
