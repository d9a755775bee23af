"""What the searches share: silence about what is expected thousands of times."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Drop the log lines about sessions that are gone."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
