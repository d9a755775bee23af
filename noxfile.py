"""Every task of this project, each in an environment of its own: `nox -s demo`, `nox -s tests`.

Owns what is installed for which task and how the task is started. What the tools check is said
in pyproject.toml; in which order CI wants things, and on what machine, in `.ci/run`.
"""

from __future__ import annotations

from pathlib import Path

import nox

# The first nox that reads dependency groups itself. `pip install --group` would need pip 25.1.
nox.needs_version = ">=2025.2.9"

# uv where somebody has it, because it is faster. virtualenv, which comes with nox, everywhere else.
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "docs", "tests"]

# On all cores, and who is done first takes over from the others.
PARALLEL = ["--numprocesses=auto", "--dist=worksteal"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
SUPPORTED_PYTHONS = nox.project.python_versions(PYPROJECT)


@nox.session
def demo(session: nox.Session) -> None:
    """Install the package as a user would, and start its demo; `-- --port 9000` and the like."""
    session.install(".[server]")
    # Seconds, a little more than the server's own limit: on Ctrl-C it finishes the requests that
    # are running and saves their sessions. nox alone would kill it after 0.3.
    session.run("minisession", "demo", *session.posargs, interrupt_timeout=35)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests with coverage, on the Python that runs nox; `-- -k cookie` for a choice of them."""
    _install_for_tests(session)
    if session.posargs:  # of a choice of tests, coverage says nothing
        session.run("python", "-m", "pytest", *session.posargs)
        return
    # Absolute, because the servers that tests start elsewhere report to the same place.
    data_file = Path(session.cache_dir, "coverage", session.name, "data").resolve()
    env = {"COVERAGE_FILE": str(data_file)}
    session.run("coverage", "erase", env=env)
    session.run("coverage", "run", "-m", "pytest", *PARALLEL, env=env)
    session.run("coverage", "combine", "--quiet", env=env)
    session.run("coverage", "report", env=env)


@nox.session
def soak(session: nox.Session) -> None:
    """The searches for bugs again, with ten to twenty times as many tries; takes hours."""
    _install_for_tests(session)
    env = {"MINISESSION_SOAK": "1"}
    session.run("python", "-m", "pytest", *PARALLEL, *session.posargs, env=env)


@nox.session
def mutants(session: nox.Session) -> None:
    """Break the code in thousands of ways and list what no test notices; takes hours.

    `-- 'minisession._core.*'` for a choice of mutants; `mutmut show NAME` says what one changed.
    """
    # Not the package: mutmut imports its own copy of it, which an installed one would hide.
    server = PYPROJECT["project"]["optional-dependencies"]["server"]
    needs = [*PYPROJECT["project"]["dependencies"], *server]
    session.install(*needs, *nox.project.dependency_groups(PYPROJECT, "test", "mutants"))
    session.run("mutmut", "run", "--max-children", "1", *session.posargs)
    session.run("mutmut", "results")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz the server's cycle, guided by coverage: `-- --minutes 30`; the corpus is kept."""
    _install_for_tests(session, "fuzz")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session(python=SUPPORTED_PYTHONS)
def tests_all(session: nox.Session) -> None:
    """The tests on every supported Python; one that is missing is skipped, but fails under CI."""
    _install_for_tests(session)
    session.run("python", "-m", "pytest", *PARALLEL, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting and both type checkers."""
    _install_for_tests(session, "lint", "bench")  # types are checked against what is imported
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a broken link or anchor is an error."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "docs"))
    env = {"NO_MKDOCS_2_WARNING": "1"}  # an announcement of the theme, not of our pages
    session.run("mkdocs", "build", "--strict", *session.posargs, env=env)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks, or those that are named: `-- benchmarks/name.py`."""
    _install_for_tests(session, "bench")
    names = session.posargs or sorted(map(str, Path("benchmarks").glob("[!_]*.py")))
    for name in names:
        session.run("python", name)


def _install_for_tests(session: nox.Session, *more_groups: str) -> None:
    """Install the package from the tree, so that coverage and messages name its own files."""
    requirements = nox.project.dependency_groups(PYPROJECT, "test", *more_groups)
    session.install("-e", ".[server]", *requirements)
