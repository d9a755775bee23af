"""The options of the bundled server as command-line arguments.

They are written out here because the server needs h11, which not everybody has installed, and the
help must be there for all. A test compares them with `ServerConfig`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Final

from .logs import FORMATS

MOST_WORKERS: Final = 1000  # more is a slip of the finger


@dataclass(frozen=True, slots=True)
class Option:
    """One field of `ServerConfig`: `--head-timeout S` for `head_timeout`."""

    field: str
    default: str | float | bool
    metavar: str
    help: str

    @property
    def flag(self) -> str:
        """How the option is spelled."""
        return "--" + self.field.replace("_", "-")


WHERE = (
    Option("host", "127.0.0.1", "HOST", "name or address to listen on; 0.0.0.0 for all"),
    Option("port", 8000, "PORT", "0 lets the system choose"),
    Option("uds", "", "PATH", "listen on a Unix socket instead"),
    Option("certfile", "", "FILE", "serve https, with this certificate and its chain, in PEM"),
    Option("keyfile", "", "FILE", "its private key, in PEM, if the certificate's file lacks it"),
)

TIMES = (
    Option("keep_alive_timeout", 5.0, "S", "silence between two requests"),
    Option("head_timeout", 10.0, "S", "for a request's line and headers to arrive"),
    Option("body_timeout", 30.0, "S", "silence within a request's body"),
    Option("write_timeout", 30.0, "S", "a client that takes nothing of a response"),
    Option("graceful_timeout", 30.0, "S", "for running requests to finish when stopping"),
)

LIMITS = (
    Option("max_request_line", 16384, "N", "octets of a request line"),
    Option("max_head", 65536, "N", "octets of a request's line and headers"),
    Option("max_body", 67108864, "N", "octets of a request's body"),
    Option("max_connections", 20_000, "N", "connections at a time; idle ones make room for more"),
    Option("backlog", 1024, "N", "connections that wait to be accepted"),
)

PROXY = (
    Option("root_path", "", "PATH", "where it has mounted the application, such as /shop"),
    Option(
        "forwarded_allow_ips",
        "",
        "LIST",
        "believe these addresses and networks, such as 127.0.0.1,10.0.0.0/8, when they say who sent"
        " a request: in X-Forwarded-For and -Proto, or Forwarded. unix is who comes through a Unix"
        " socket, * is anybody",
    ),
)

LOGS = (Option("access_log", False, "", "log each response"),)

OPTIONS = (*WHERE, *TIMES, *LIMITS, *PROXY, *LOGS)


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add the option that every command with an event loop has."""
    parser.add_argument(
        "--backend",
        choices=("asyncio", "trio"),
        default="asyncio",
        help="the event loop (default: %(default)s)",
    )


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command with a server has."""
    add_backend(parser)
    parser.add_argument(
        "--workers",
        type=_count,
        default=1,
        metavar="N",
        help="processes that serve together (default: %(default)s)",
    )
    # How a supervisor starts a worker: the descriptors of its channel and of the sockets.
    parser.add_argument("--worker", type=_descriptors, default=(), help=argparse.SUPPRESS)
    _add(parser.add_argument_group("where"), WHERE)
    _add(parser.add_argument_group("times, in seconds"), TIMES)
    _add(parser.add_argument_group("limits"), LIMITS)
    _add(parser.add_argument_group("behind a proxy"), PROXY)
    logs = parser.add_argument_group("logs, on stderr")
    _add(logs, LOGS)
    logs.add_argument(
        "--log-format",
        choices=FORMATS,
        default=FORMATS[0],
        help="lines to read, or a JSON object for each record (default: %(default)s)",
    )


def server_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was chosen, as the fields of a `ServerConfig`."""
    return {option.field: getattr(options, option.field) for option in OPTIONS} | {
        "fds": options.worker[1:]
    }


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST_WORKERS):
        raise argparse.ArgumentTypeError(
            f"{text!r}: allowed is 1 to {MOST_WORKERS}, as in --workers 4"
        )
    return int(text)


def _descriptors(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _add(group: argparse._ArgumentGroup, options: tuple[Option, ...]) -> None:
    for option in options:
        if option.default is False:
            group.add_argument(option.flag, action="store_true", help=option.help)
            continue
        group.add_argument(
            option.flag,
            type=type(option.default),
            default=option.default,
            metavar=option.metavar,
            help=f"{option.help}{_default(option)}",
        )


def _default(option: Option) -> str:
    if option.default == "":
        return ""
    shown = "%(default)g" if isinstance(option.default, float) else "%(default)s"
    return f" (default: {shown})"
