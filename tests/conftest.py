"""What every test shares: both backends, what a test needs of the machine, the acceptance cases."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ACCEPTANCE = Path(__file__).parent / "acceptance"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every anyio test on both backends."""
    return str(request.param)


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
