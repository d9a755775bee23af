"""The store that "Write your own store" builds: it keeps every clause, and stays short."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.examples.shelf_store import ShelfStore
from minisession.abc import Destroy
from minisession.errors import SaveOutcomeUnknown, StoreUnavailable
from minisession.testing import Clause, check_clause, clauses
from tests.stores.kit import NOW, birth

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "shelf_store.py"


@pytest.mark.anyio
@pytest.mark.parametrize("clause", clauses(persistent=True), ids=lambda clause: clause.__name__)
async def test_the_store_keeps(clause: Clause, tmp_path: Path) -> None:
    await check_clause(clause, lambda: ShelfStore(tmp_path / "sessions"))


@pytest.mark.anyio
async def test_a_file_that_is_no_shelf_logs_nobody_out(tmp_path: Path) -> None:
    for end in ("", ".db", ".dat", ".dir"):  # whichever dbm this Python has
        tmp_path.joinpath(f"sessions{end}").write_bytes(b"no shelf " * 1000)
    store = ShelfStore(tmp_path / "sessions")

    with pytest.raises(StoreUnavailable, match="cannot be used"):
        await store.load("h", NOW)
    with pytest.raises(SaveOutcomeUnknown, match="cannot be used"):
        await store.commit([birth(), Destroy("h", None)], NOW)


def test_it_has_less_than_a_hundred_lines() -> None:
    source = EXAMPLE.read_text().partition("# --8<-- [start:test]")[0]
    uncounted = {
        line for start, end in docstrings_and_imports(source) for line in range(start, end)
    }

    code = [
        line
        for number, line in enumerate(source.splitlines(), start=1)
        if number not in uncounted and line.strip() and not line.strip().startswith("#")
    ]

    assert 50 < len(code) < 100


def docstrings_and_imports(source: str) -> Iterator[tuple[int, int]]:
    """Where those begin and end."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
                yield node.lineno, (node.end_lineno or node.lineno) + 1
