"""What a test needs of the machine: a user may lack it, CI may not."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import NoReturn

import pytest

FACTS = {
    "Linux": lambda: sys.platform == "linux",
    "IPv6": socket.has_dualstack_ipv6,
}
"""What is no command on the PATH, and can be named like one: `@pytest.mark.needs("Linux")`."""


def lack(reason: str) -> NoReturn:
    """Skip the running test for a user; fail it under CI, which has everything."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}: see to it in .ci/run", pytrace=False)
    pytest.skip(reason)  # the one skip of all tests: a user may lack it


def open_files() -> list[str]:
    """What the descriptors of this process stand for: paths, `socket:[1]` and the like.

    One that another thread closes meanwhile is left out.
    """
    targets = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
    return targets
