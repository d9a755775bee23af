"""ServerConfig: defaults that work, and errors that name field, value and choices."""

from __future__ import annotations

import re
from typing import Any

import pytest

from minisession.server.config import ServerConfig


def test_the_defaults_are_allowed() -> None:
    config = ServerConfig()

    assert (config.host, config.port, config.max_request_line) == ("127.0.0.1", 8000, 16384)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", ""),
        ("port", -1),
        ("port", 65536),
        ("port", True),
        ("port", "8000"),
        ("backlog", 0),
        ("backlog", 2**31),
        ("root_path", "app"),
        ("root_path", "/app/"),
        ("keep_alive_timeout", 0),
        ("head_timeout", -1.0),
        ("body_timeout", float("inf")),
        ("write_timeout", float("nan")),
        ("graceful_timeout", True),
        ("max_head", 0),
        ("max_body", 1.5),
        ("max_request_line", 64 * 1024),
        ("fds", ("3",)),
        ("keyfile", "key.pem"),
    ],
)
def test_a_field_that_is_not_allowed_is_named_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"ServerConfig.{field}={value!r}: allowed is")):
        ServerConfig(**{field: value})


@pytest.mark.parametrize(("field", "value"), [("port", 0), ("root_path", "/app"), ("max_body", 1)])
def test_a_field_at_the_edge_is_allowed(field: str, value: Any) -> None:
    assert getattr(ServerConfig(**{field: value}), field) == value


def test_a_proxy_that_cannot_be_read_is_named_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"ServerConfig.forwarded_allow_ips: 'proxy': allowed are"):
        ServerConfig(forwarded_allow_ips="127.0.0.1, proxy")
