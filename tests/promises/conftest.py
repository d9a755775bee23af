"""The stores on which every promise is tried: the model, and the one that is kept on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from minisession.abc import Store
from minisession.stores.memory import MemoryStore
from minisession.stores.sqlite import SQLiteStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store, not opened yet."""
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "sessions.db")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a database may be made that several processes share."""
    return tmp_path / "shared.db"
