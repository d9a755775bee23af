"""`minisession store`: what somebody asks who runs a store, and how the answer looks.

It owns the words. What is done with the store is said in survey.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import anyio

from minisession.abc import Inspects, Store
from minisession.bench import Progress
from minisession.errors import ConfigError, StoreError
from minisession.stores import open_store

from .serving import WrongOption
from .survey import Findings, Stock, examine, purge, take_stock

T = TypeVar("T")
Survey = Callable[[Store, float, Progress], Awaitable[T]]

UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")

PATHS: Final = {
    "sqlite": "; of sqlite:///, a path with three slashes is meant from this folder",
    "file": "; of file:///, the path is always an absolute one, and that of a folder",
}
"""What is easily got wrong in the URL of a place."""

_EPILOG: Final = """\
The application may go on meanwhile. Handles are shown, which are public names; no secret and
no value ever is.

examples:
  minisession store stats sqlite:///sessions.db
  minisession store check sqlite:////var/lib/shop/sessions.db --json
"""


class CannotSurvey(Exception):
    """The store cannot be looked at; the message says why and what to do."""


class Damaged(Exception):
    """A check has found damage, which has been printed."""


def add_store(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and what it can do."""
    parser = commands.add_parser(
        "store",
        usage="minisession store COMMAND URL [--json]",
        help="look at a store: how much is there, and is it sound?",
        description="Look at a store from outside, while applications use it or not.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, prog="minisession store"
    )
    _add(
        names,
        "stats",
        _stats,
        "count sessions and the room that they take",
        "Count the living sessions and those that wait for a purge, and say how much room they"
        " take and in which format they are stored.",
    )
    _add(
        names,
        "purge",
        _purge,
        "remove what has expired",
        "Remove expired sessions, in small batches. A running application does so by itself, about"
        " each minute; this is for stores that none is using.",
    )
    _add(
        names,
        "check",
        _check,
        "read everything, and report damage",
        "Read every living session to its last value, have the store look at its place, and report"
        " what is damaged. Nothing is changed. Exit code 1 if there is damage.",
    )


def _add(
    names: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], None],
    what: str,
    description: str,
) -> None:
    parser = names.add_parser(
        name,
        usage=f"minisession store {name} URL [--json]",
        help=what,
        description=description,
    )
    parser.add_argument("url", metavar="URL", help="the store, such as sqlite:///sessions.db")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.set_defaults(run=run, parser=parser)


def _stats(options: argparse.Namespace) -> None:
    store = _named(options.url)
    stock = _surveyed(options.url, store, take_stock)
    _print(options, _told(store, stock), asdict(stock))


def _purge(options: argparse.Namespace) -> None:
    removed = _surveyed(options.url, _named(options.url), purge)
    _print(options, f"{removed:,} expired sessions removed\n", {"removed": removed})


def _check(options: argparse.Namespace) -> None:
    findings = _surveyed(options.url, _named(options.url), examine)
    values = {"read": findings.read, "damage": [asdict(each) for each in findings.damage]}
    _print(options, _judged(findings), values)
    if findings.damage:
        raise Damaged("this store is damaged; what is damaged was left as it is")


def _named(url: str) -> Store:
    """Return the store of a URL, if it is one that is kept outside the application."""
    if url.startswith("memory:"):
        raise WrongOption(
            "memory:// is kept inside the application, and ends with it: from outside there is"
            " nothing to look at. Name a store that is kept elsewhere: sqlite:///sessions.db"
        )
    try:
        return open_store(url)
    except ConfigError as error:
        raise WrongOption(str(error)) from None


def _surveyed(url: str, store: Store, survey: Survey[T]) -> T:
    """Open the store, and return what the survey does.

    Raises:
        CannotSurvey: there is no store, it cannot be opened or read, or Ctrl-C.
    """
    progress = Progress(sys.stderr)
    try:
        _require_place(url, store)
        return anyio.run(_survey, store, survey, progress)
    except StoreError as error:
        progress.clear()
        raise CannotSurvey(str(error)) from None
    except KeyboardInterrupt:
        progress.clear()
        raise CannotSurvey("stopped before the end; what was purged until then is purged") from None


def _require_place(url: str, store: Store) -> None:
    if isinstance(store, Inspects) and not store.is_there():
        scheme = url.partition(":")[0]
        raise CannotSurvey(
            f"{store!r}: there is nothing at that place. A store is made by the first application"
            f" that uses it{PATHS.get(scheme, '')}"
        )


async def _survey(store: Store, survey: Survey[T], progress: Progress) -> T:
    async with store:
        return await survey(store, time.time(), progress)


def _print(options: argparse.Namespace, text: str, values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values, indent=2) + "\n" if options.json else text)


def _told(store: Store, stock: Stock) -> str:
    """Return the statistics as lines of two columns."""
    lines = {
        "store": repr(store),
        "living sessions": f"{stock.living:,}, of {stock.principals:,} principals",
        "oldest, newest": f"{_moment(stock.oldest)}, {_moment(stock.newest)}",
    }
    if stock.inspection is not None:
        waiting = stock.inspection.expired
        lines["waiting for a purge"] = "not known" if waiting is None else f"{waiting:,}"
        lines["room"] = _room(stock)
        lines["format"] = stock.inspection.format
    return "".join(f"{name:20} {value}\n" for name, value in lines.items())


def _room(stock: Stock) -> str:
    inspection = stock.inspection
    if inspection is None or inspection.bytes is None:
        return "not known"
    free = inspection.free or 0
    sessions = stock.living + (inspection.expired or 0)
    each = f", {_size((inspection.bytes - free) / sessions)} a session" if sessions else ""
    empty = f", {_size(free)} of it empty" if free else ""
    return f"{_size(inspection.bytes)}{each}{empty}"


def _size(number: float) -> str:
    """Return a number of bytes with the unit that suits it."""
    power = 0
    while number >= 1024 and power < len(UNITS) - 1:
        number /= 1024
        power += 1
    return f"{number:.{1 if power else 0}f} {UNITS[power]}"


def _moment(seconds: float | None) -> str:
    if seconds is None:
        return "none"
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds")


def _judged(findings: Findings) -> str:
    head = f"{findings.read:,} sessions read, "
    if not findings.damage:
        return f"{head}everything is sound\n"
    return f"{head}damage:\n" + "".join(f"  {each.what}\n" for each in findings.damage)
