"""The options are those of the server: written twice, and compared here."""

from __future__ import annotations

import argparse
from dataclasses import fields

from minisession.cli.options import OPTIONS, add_server_options, server_fields
from minisession.server import ServerConfig


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_server_options(parser)
    return parser.parse_args(arguments)


def test_every_field_of_the_server_is_an_option_with_the_same_default() -> None:
    config = ServerConfig()

    assert {option.field: option.default for option in OPTIONS} == {
        field.name: getattr(config, field.name)
        for field in fields(ServerConfig)
        if field.name != "fds"  # which only a supervisor has
    }


def test_without_arguments_the_server_is_as_it_is_by_default() -> None:
    assert ServerConfig(**server_fields(parse())) == ServerConfig()


def test_what_is_given_reaches_the_server() -> None:
    options = parse("--port", "0", "--head-timeout", "2.5", "--max-body", "10", "--access-log")

    config = ServerConfig(**server_fields(options))

    assert config == ServerConfig(port=0, head_timeout=2.5, max_body=10, access_log=True)
