"""Every acceptance case, through the probe's own functions, against a real server.

Those about well-formed requests and about connections once more through TLS: the probe is then
given sockets that encrypt.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import socket
import ssl
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from minisession.server.config import ServerConfig
from minisession.server.main import serve
from tests.certificates import NAME, Certificate

ACCEPTANCE = Path(__file__).parent.parent / "acceptance"
CASES = json.loads((ACCEPTANCE / "http_cases.json").read_text())

# The probe expects the server's time-outs to be these.
TIMES: dict[str, Any] = {f"{name}_timeout": 2.0 for name in ("keep_alive", "head", "body", "write")}

THROUGH_TLS = [case for case in CASES if case["group"] in ("accept", "connection")]


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
    return judged(load("http_probe"), ServerConfig(port=0, **TIMES), request.param)


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def verdicts_through_tls(
    request: pytest.FixtureRequest, certificate: Certificate
) -> dict[str, Any]:
    probe = load("http_probe")
    probe.socket = encrypting(certificate.client())  # type: ignore[attr-defined]
    only = "|".join(f"^{case['id']}$" for case in THROUGH_TLS)
    config = ServerConfig(port=0, **TIMES, **certificate.options)
    return judged(probe, config, request.param, only=only)


def judged(probe: ModuleType, config: ServerConfig, backend: str, **which: str) -> dict[str, Any]:
    app = load("probe_app").app
    with start_blocking_portal(backend=backend) as portal:
        running, addresses = portal.start_task(functools.partial(serve, app, config))
        with warnings.catch_warnings():
            # The probe leaves its file of cases to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            results: dict[str, Any] = probe.run(addresses[0][1], **which)[0]
        running.cancel()
    return results


class HalfClosable(ssl.SSLSocket):
    """Goes on being encrypted when one direction is over, as a program on OpenSSL does."""

    def shutdown(self, how: int) -> None:
        socket.socket.shutdown(self, how)


def encrypting(context: ssl.SSLContext) -> SimpleNamespace:
    """What the probe uses of the module `socket`; connections speak TLS."""
    context.sslsocket_class = HalfClosable

    def create_connection(*arguments: Any) -> ssl.SSLSocket:
        return context.wrap_socket(socket.create_connection(*arguments), server_hostname=NAME)

    return SimpleNamespace(**{**vars(socket), "create_connection": create_connection})


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['group']}-{case['id']}")
def test_the_case_passes_without_a_warning(verdicts: dict[str, Any], case: dict[str, Any]) -> None:
    verdict = verdicts[case["id"]]

    assert verdict["verdict"] == "pass", verdict


@pytest.mark.parametrize("case", THROUGH_TLS, ids=lambda case: f"{case['group']}-{case['id']}")
def test_the_case_passes_through_tls(
    verdicts_through_tls: dict[str, Any], case: dict[str, Any]
) -> None:
    verdict = verdicts_through_tls[case["id"]]

    assert verdict["verdict"] == "pass", verdict
