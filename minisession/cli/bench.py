"""`minisession bench`: what a benchmark is asked for on the command line, and where it ends up.

What is measured and how it is drawn is said in `minisession.bench`. A file that cannot be written
is refused before anything is measured, since that takes a minute.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Final

from minisession.bench import Progress, Report, as_json, as_table, draw, measure, write_page
from minisession.errors import ConfigError, StoreError

from .options import add_backend
from .serving import WrongOption

FEWEST: Final = 1_000
MOST: Final = 100_000
TASKS: Final = 20_000

FORMATS: Final = (".svg", ".png", ".html")

_EPILOG: Final = """\
Each task is a visitor: two or three requests with a cookie, the first held open until all
visitors have one open, with child tasks, worker threads, nested values, streams, logins and
requests that are cancelled midway mixed in. Exit code 1 if anybody met a value of somebody
else, or not what it had written itself.

examples:
  minisession bench isolation
  minisession bench isolation --tasks 100000 --backend trio
  minisession bench isolation --store sqlite:///bench.db --plot isolation.html
"""


class CannotMeasure(Exception):
    """The benchmark cannot run, or its results not be kept; the message says what to do."""


class NotIsolated(Exception):
    """The benchmark has found what must not be."""


def add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its benchmarks."""
    parser = commands.add_parser(
        "bench",
        usage="minisession bench BENCHMARK [options]",
        help="measure it on this machine",
        description="Measure sessions on this machine: are they kept apart, and what do they cost?",
    )
    names = parser.add_subparsers(
        title="benchmarks", metavar="BENCHMARK", required=True, prog="minisession bench"
    )
    _add_isolation(names)


def _add_isolation(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = names.add_parser(
        "isolation",
        usage="minisession bench isolation [options]",
        help="thousands of sessions alive at once: does anybody see another's?",
        description="Keep thousands of sessions alive in one event loop, check that nobody sees"
        " another's, and measure what they cost.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--tasks",
        type=_tasks,
        default=TASKS,
        metavar="N",
        help=f"visitors at once, {FEWEST} to {MOST} (default: %(default)s)",
    )
    add_backend(parser)
    parser.add_argument(
        "--store",
        metavar="URL",
        default="memory://",
        help="where the sessions are kept (default: %(default)s); in the end all are logged out",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        metavar="N",
        help="what each visitor does is drawn from it (default: %(default)s)",
    )
    parser.add_argument(
        "--json", type=_file, metavar="FILE", help="write everything that was measured"
    )
    parser.add_argument(
        "--plot",
        type=_plot,
        metavar="FILE",
        help="draw it, as a file that ends in .svg, .html or .png",
    )
    parser.set_defaults(run=isolation, parser=parser)


def isolation(options: argparse.Namespace) -> None:
    """Run the benchmark, print its table, and write the files that were asked for.

    Raises:
        WrongOption: there is no such store.
        CannotMeasure: something is not installed, a store or file cannot be opened, or Ctrl-C.
        NotIsolated: the table, which has been printed, shows what must not be.
    """
    _require_installed(options)
    report = _measured(options)
    sys.stdout.write(as_table(report))
    if options.json is not None:
        _write(options.json, as_json(report).encode())
    if options.plot is not None:
        _write(options.plot, _plotted(report, options.plot.suffix))
    if not report.findings.is_clean:
        raise NotIsolated(_complaint(report))


def _measured(options: argparse.Namespace) -> Report:
    try:
        report = _measured_to_the_end(options)
    except ConfigError as error:
        raise WrongOption(str(error)) from None
    except StoreError as error:
        raise CannotMeasure(str(error)) from None
    if report is None:
        raise CannotMeasure("stopped before the end; nothing was written")
    return report


def _measured_to_the_end(options: argparse.Namespace) -> Report | None:
    """Return the report, or None after Ctrl-C."""
    progress = Progress(sys.stderr)
    try:
        return measure(options.tasks, options.backend, options.store, options.seed, progress)
    except KeyboardInterrupt:
        progress.clear()
        return None


def _tasks(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not FEWEST <= number <= MOST:
        raise argparse.ArgumentTypeError(
            f"{text!r}: allowed is {FEWEST} to {MOST}, as in --tasks {TASKS}"
        )
    return number


def _file(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: a file in a folder that exists is needed")
    return path


def _plot(text: str) -> Path:
    path = _file(text)
    if path.suffix not in FORMATS:
        raise argparse.ArgumentTypeError(
            f"{text!r}: allowed are {', '.join(FORMATS)}, as in --plot isolation.svg"
        )
    return path


def _require_installed(options: argparse.Namespace) -> None:
    needed = {"trio": ("--backend trio", "server")} if options.backend == "trio" else {}
    if options.plot is not None and options.plot.suffix == ".png":
        needed["resvg_py"] = ("--plot FILE.png", "bench")
    for module, (what, extra) in needed.items():
        if importlib.util.find_spec(module) is None:
            raise CannotMeasure(
                f"{what} needs {module}, which is not installed here:"
                f' pip install "minisession[{extra}]"'
            )


def _plotted(report: Report, suffix: str) -> bytes:
    if suffix == ".html":
        return write_page(report).encode()
    drawing = draw(report)
    if suffix == ".svg":
        return drawing.encode()
    import resvg_py  # noqa: PLC0415  # the only format that needs more than Python

    return bytes(resvg_py.svg_to_bytes(svg_string=drawing, zoom=2))


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise CannotMeasure(f"cannot write {path}: {error.strerror}") from None


def _complaint(report: Report) -> str:
    findings = report.findings
    return (
        f"sessions are not isolated: {findings.cross_talk:,} of {findings.looks:,} looks met"
        f" another visitor's value, {findings.lost:,} not what was written,"
        f" and {findings.failed:,} requests failed"
    )
