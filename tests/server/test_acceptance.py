"""Every acceptance case, through the probe's own functions, against a real server."""

from __future__ import annotations

import functools
import importlib.util
import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from minisession.server.config import ServerConfig
from minisession.server.main import serve

ACCEPTANCE = Path(__file__).parent.parent / "acceptance"
CASES = json.loads((ACCEPTANCE / "http_cases.json").read_text())

# The probe expects the server's time-outs to be these.
CONFIG = ServerConfig(port=0, keep_alive_timeout=2, head_timeout=2, body_timeout=2, write_timeout=2)


def load(name: str) -> ModuleType:
    """A fresh copy of a file beside the cases: the app counts in module globals."""
    spec = importlib.util.spec_from_file_location(name, ACCEPTANCE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def verdicts(request: pytest.FixtureRequest) -> dict[str, Any]:
    app = load("probe_app").app
    with start_blocking_portal(backend=request.param) as portal:
        running, addresses = portal.start_task(functools.partial(serve, app, CONFIG))
        with warnings.catch_warnings():
            # The probe leaves its file of cases to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            results: dict[str, Any] = load("http_probe").run(addresses[0][1])[0]
        running.cancel()
    return results


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['group']}-{case['id']}")
def test_the_case_passes_without_a_warning(verdicts: dict[str, Any], case: dict[str, Any]) -> None:
    verdict = verdicts[case["id"]]

    assert verdict["verdict"] == "pass", verdict
