"""Watches all that the suite prints, logs and raises for an id, the one thing that must not show.

P10 says that no id is in a `repr`, a log record or an error. The tests of that promise look where
they expect one. This looks everywhere else: at what is captured of every test, at every log record
with its traceback, and at what the servers print that tests start as processes.

Two searches find an id: by its shape, whoever made it, and by heart, for the secrets that were made
in this process, which then are found without their handle too.
"""

from __future__ import annotations

import base64
import logging
import re
import secrets

from minisession import _ids

_WHOLE = re.compile(
    r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{21}[AQgw]\.[A-Za-z0-9_-]{32}(?![A-Za-z0-9_-])"
)
_AS_LONG_AS_A_SECRET = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{32}(?![A-Za-z0-9_-])")

_made: set[str] = set()


def remember_secrets() -> None:
    """Know every secret by heart that is made in this process from now on."""
    _ids.new_secret.__defaults__ = (_remembering,)


def _remembering(length: int) -> bytes:
    raw = secrets.token_bytes(length)
    _made.add(base64.urlsafe_b64encode(raw).rstrip(b"=").decode())
    return raw


def shows_an_id(text: str) -> bool:
    """Tell whether a text holds an id, or the secret of one that was made in this process."""
    return _WHOLE.search(text) is not None or not _made.isdisjoint(
        _AS_LONG_AS_A_SECRET.findall(text)
    )


class LogWatch(logging.Handler):
    """Reads every record of the package, as it would be written with its traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.caught: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the name of the logger and the place of a record that shows an id."""
        if shows_an_id(self.format(record)):
            self.caught.append(f"{record.name} at {record.filename}:{record.lineno}")
