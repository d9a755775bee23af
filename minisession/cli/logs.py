"""How log records look on stderr: lines for people, or JSON for programs.

Owns that nobody forges a line: what a client has sent may hold line ends and codes that command a
terminal. What is logged is decided elsewhere.
"""

from __future__ import annotations

import json
import logging
import unicodedata
from datetime import UTC, datetime

FORMATS = ("text", "json")

# Records of others may have an attribute `access`, too, which may be anything.
_ACCESS = "minisession.server.access"

# Cc are control characters, Cf those that reverse the direction of writing, Zl and Zp line ends.
_FORBIDDEN = {"Cc", "Cf", "Zl", "Zp", "Cs"}


def log_to_stderr(kind: str, *, with_process: bool) -> None:
    """Show warnings, and what this package says, unless the application has set up its own.

    Args:
        kind: one of `FORMATS`.
        with_process: lines say which process wrote them; JSON always does.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter() if kind == "json" else TextFormatter(with_process))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("minisession").setLevel(logging.INFO)


class TextFormatter(logging.Formatter):
    """One line for a record. Only tracebacks have more, and those are indented."""

    def __init__(self, with_process: bool) -> None:
        process = " [%(process)d]" if with_process else ""
        super().__init__(f"%(asctime)s{process} %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line, with control characters escaped."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        """Return the traceback; none of its lines looks like the beginning of a record."""
        return _indented(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        """Return the stack that somebody wanted to see, likewise."""
        return _indented(super().formatStack(stack_info))


class JSONFormatter(logging.Formatter):
    """One JSON object for a record, on one line.

    It has `time` (RFC 3339, UTC), `level`, `logger`, `process`, `message`, `exception` if there is
    one, and the fields of a record of the access log.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            **(getattr(record, "access", {}) if record.name == _ACCESS else {}),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def _indented(text: str) -> str:
    return "\n".join("  " + escaped(line) for line in text.split("\n"))


def escaped(text: str) -> str:
    r"""Return a text on one line that commands nothing: "\n" for a line end."""
    if text.isprintable():
        return text
    return "".join(
        repr(each)[1:-1] if unicodedata.category(each) in _FORBIDDEN else each for each in text
    )
