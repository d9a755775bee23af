"""Where the crash tests keep their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scratch import scratch_folder


@pytest.fixture
def scratch() -> Iterator[Path]:
    """An empty folder."""
    with scratch_folder() as folder:
        yield folder
