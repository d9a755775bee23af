"""What a test needs of the machine: a user may lack it, CI may not."""

from __future__ import annotations

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
