"""The architecture, read from the source: who may import whom, and what the core never does."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import minisession
import minisession.errors

NAME = "minisession"
PACKAGE = Path(minisession.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Each layer may import those above it in this list, and itself; names in one line are neighbours
# that know nothing of each other. What is not listed has no place yet: give it one here.
LAYERS = [
    ["errors"],
    ["_ids", "_codec", "_cookies", "_caching", "_ini", "_loop", "_worker"],
    ["_settings"],
    ["config"],
    ["_core"],
    ["abc", "_context"],
    ["stores", "_alarm"],
    ["_loader"],
    ["_committer"],
    ["_manager"],  # opens the store of a URL, and binds what it opens
    ["_exchange"],
    ["asgi"],
    ["cli"],
    ["__main__"],
]
RANKS = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}

CORE_REFUSES = {"anyio", "asyncio", "datetime", "os", "random", "sniffio", "time", "trio"}
SHIM_MARKER = "# backend shim"


def part_of(file: Path) -> str:
    """The top-level part that a file belongs to: `_core` for `_core/journal.py`."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


PARTS = {part_of(file) for file in FILES}


def imported_modules(file: Path) -> Iterator[str]:
    """Every name that a file imports, at its top or inside a function, as an absolute path."""
    package = [NAME, *file.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imported_parts(file: Path) -> set[str]:
    """The parts of this package that a file imports; `__init__` for `from minisession import x`."""
    ours = [name.split(".")[1:] for name in imported_modules(file) if name.split(".")[0] == NAME]
    return {path[0] if path[1:] or PARTS.intersection(path) else "__init__" for path in ours}


def imported_roots(file: Path) -> set[str]:
    """The top-level names of everything a file imports."""
    return {name.split(".")[0] for name in imported_modules(file)}


def may_import(importer: str, imported: str) -> bool:
    """Whether the architecture lets one part import another."""
    if imported == importer:
        return True
    match importer, imported:
        case "demo" | "bench", _:  # applications like a user's: they know what the package exports
            return imported == "__init__"
        case _, "__init__":
            return False
        case "__init__", _:
            return imported in RANKS and RANKS[imported] < RANKS["cli"]
        case "server", _:  # an ASGI server that has never heard of sessions
            return False
        case "testing", _:
            return imported in RANKS and RANKS[imported] < RANKS["cli"]
        case _, "testing":
            return False
        case _, "server" | "demo" | "bench":
            return importer == "cli"
        case _:
            return RANKS[imported] < RANKS[importer]


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_downwards_only(file: Path) -> None:
    upward = {part for part in imported_parts(file) if not may_import(part_of(file), part)}

    assert upward == set()


@pytest.mark.parametrize("file", sorted((PACKAGE / "_core").glob("*.py")), ids=name_of)
def test_the_core_decides_synchronously_without_a_clock_or_io(file: Path) -> None:
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    tree = ast.parse(file.read_text())

    assert [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, waiting)] == []
    assert imported_roots(file) & CORE_REFUSES == set()


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_only_a_marked_shim_knows_one_of_the_two_backends(file: Path) -> None:
    opening = file.read_text().split("\n\n")[:2]
    is_shim = any(SHIM_MARKER in paragraph for paragraph in opening)

    assert is_shim or imported_roots(file) & {"asyncio", "trio"} == set()


def test_every_file_has_a_place_in_the_layers() -> None:
    placed = {*RANKS, "__init__", "bench", "demo", "server", "testing"}

    assert PARTS - placed == set()


def test_the_public_names_are_exactly_those_that_are_meant() -> None:
    errors = {
        name
        for name, value in vars(minisession.errors).items()
        if inspect.isclass(value) and issubclass(value, minisession.errors.MinisessionError)
    }
    interface = {
        "Session",
        "SessionConfig",
        "SessionManager",
        "SessionMiddleware",
        "current",
        "session",
    }

    assert set(minisession.__all__) == interface | errors
    assert all(hasattr(minisession, name) for name in minisession.__all__)


def test_importing_the_package_loads_nothing_that_only_some_users_need() -> None:
    script = "import minisession, sys; print(*sys.modules)"
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}

    run = subprocess.run(  # without coverage, which loads sqlite3 for itself
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    )

    assert set(run.stdout.split()) & {"h11", "sqlite3", "starlette", "trio"} == set()


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("_core", "errors", True),
        ("_core", "_core", True),
        ("errors", "config", False),
        ("_ids", "_codec", False),
        ("stores", "_manager", False),
        ("asgi", "__init__", False),
        ("server", "errors", False),
        ("server", "server", True),
        ("cli", "server", True),
        ("asgi", "server", False),
        ("demo", "__init__", True),
        ("demo", "asgi", False),
        ("cli", "demo", True),
        ("bench", "__init__", True),
        ("bench", "_context", False),
        ("cli", "bench", True),
        ("testing", "asgi", True),
        ("testing", "cli", False),
        ("asgi", "testing", False),
        ("__init__", "asgi", True),
    ],
)
def test_the_rule_itself(importer: str, imported: str, *, allowed: bool) -> None:
    assert may_import(importer, imported) is allowed
