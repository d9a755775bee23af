"""`minisession` on the command line: the parser, and which command does what.

    main       arguments in, exit code out
    options    the server's options as arguments
    apps       "module:app" -> the ASGI application
    logs       how log records look
    supervisor several processes that serve together
    serving    the commands that run a server
    bench      the benchmarks
    store      the commands that look at a store
    survey     how they do it, with any store

Exit codes: 0 done, or stopped in good order; 1 it cannot be done, a worker did not stop in good
order, a benchmark has found what must not be, or a check has found damage; 2 the command line is
wrong; 130 Ctrl-C came before there was anything to stop.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from .apps import AppNotFound
from .bench import CannotMeasure, NotIsolated, add_bench
from .options import add_server_options
from .serving import CannotServe, WrongOption, demo, serve
from .store import CannotSurvey, Damaged, add_store

__all__ = ["main"]

INTERRUPTED = 128 + signal.SIGINT  # what shells say of it
DEMO_STORE = "sqlite:///minisession-demo.db"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    Args:
        arguments: the words after the program's name; None for those of this process.

    Raises:
        SystemExit: help was asked for (code 0), or there is no such option (code 2).
    """
    parser = _parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(words)
    options.words = words
    try:
        options.run(options)
    except (AppNotFound, WrongOption) as error:
        return _fail(options.parser.prog, error, 2)
    except (CannotServe, CannotMeasure, NotIsolated, CannotSurvey, Damaged) as error:
        return _fail(options.parser.prog, error, 1)
    except KeyboardInterrupt:  # before there was anything to stop in good order
        return INTERRUPTED
    return 0


def _fail(command: str, error: Exception, code: int) -> int:
    sys.stderr.write(f"{command}: {error}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minisession",
        description="Sessions for structured concurrency, on asyncio and trio.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_demo(commands)
    add_bench(commands)
    add_store(commands)
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "serve",
        usage="minisession serve MODULE:APP [options]",
        help="serve an ASGI application",
        description="Serve an ASGI 3 application over HTTP/1.1 until SIGTERM or Ctrl-C, which let"
        " running requests finish.",
        epilog="With --store, the environment variables MINISESSION_* configure the sessions:"
        " MINISESSION_CACHE_EXPIRE=30 is SessionConfig(cache_expire=30).",
    )
    parser.add_argument(
        "app",
        metavar="MODULE:APP",
        help="where the application is, seen from this folder: shop.web:app, or shop.web:create()",
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        default=os.environ.get("MINISESSION_STORE") or None,
        help="give it sessions, kept in this store: sqlite:///sessions.db, or memory://"
        " (default: MINISESSION_STORE if that is set, else the application sees to its own)",
    )
    add_server_options(parser)
    parser.set_defaults(run=serve, parser=parser)


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        usage="minisession demo [options]",
        help="serve a page on which sessions are seen at work",
        description="Serve a page on which sessions are seen at work, and open it in the browser.",
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        default=DEMO_STORE,
        help="where the sessions are kept (default: %(default)s, a file in this folder)",
    )
    parser.add_argument(
        "--no-browser",
        action="store_true",
        help="open no browser; without a terminal or a screen none is opened anyway",
    )
    add_server_options(parser)
    parser.set_defaults(run=demo, parser=parser)
