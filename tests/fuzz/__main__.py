"""A coverage-guided fuzzer for the server's cycle: `nox -s fuzz -- --minutes 30`.

Owns the run: the corpus, which is kept from run to run, and the time. What an input means and what
must hold is in `inputs.py`. A finding is written into the corpus's folder as `crash-...`, and
becomes a line of `tests/server/test_properties.py`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["minisession.server"]):
    from tests.fuzz import inputs

# libFuzzer: longer inputs are slower, and find no more.
MAX_INPUT = 4096  # bytes

WORDS = (
    "HTTP/1.1", "HTTP/1.0", "\r\n", "\r\n\r\n", "Host: a\r\n", "Connection: close\r\n",
    "Connection: keep-alive\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n", "0\r\n\r\n", "5;a=b\r\nhello\r\n", "GET / ", "POST /", "HEAD /",
    "OPTIONS * ", "http://a/b", "%00", "%ff", "\n\0\n", "S200;content-length:", "S204", "S304",
    "\nR\n", "\nM", "\nL",
)  # fmt: skip


def main() -> None:
    """Fuzz until the time is over or something is found."""
    parser = argparse.ArgumentParser(prog="nox -s fuzz --", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"), help="the folder to go on in")
    arguments = parser.parse_args()
    corpus = _prepare(arguments.corpus)
    options = [
        f"-max_total_time={int(arguments.minutes * 60)}",
        f"-max_len={MAX_INPUT}",
        f"-dict={arguments.corpus / 'words'}",
        f"-artifact_prefix={arguments.corpus}/",
        "-timeout=10",  # seconds for one input: a hang
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], inputs.check_input)
    atheris.Fuzz()


def _prepare(folder: Path) -> Path:
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(inputs.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    (folder / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS))
    return corpus


def _escaped(word: str) -> str:
    return "".join(f"\\x{each:02x}" for each in word.encode())


main()
