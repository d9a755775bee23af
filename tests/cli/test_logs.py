"""How records look: nobody forges a line, and programs get JSON."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from minisession.cli.logs import JSONFormatter, TextFormatter, escaped


def record(message: str, *arguments: object, error: str = "", **extra: object) -> logging.LogRecord:
    exc_info = raised(ValueError(error)) if error else None
    made = logging.LogRecord("shop", logging.INFO, "shop.py", 1, message, arguments, exc_info)
    made.created, made.msecs, made.process = 0.0, 0.0, 42
    vars(made).update(extra)
    return made


def raised(error: ValueError) -> Any:
    try:
        raise error
    except ValueError:
        return sys.exc_info()


FORGED = "hello\n2026-01-01 00:00:00,000 INFO shop: paid"


def test_a_record_is_one_line_of_text() -> None:
    line = TextFormatter(with_process=True).format(record("said %s", FORGED))

    assert "\n" not in line
    assert line.endswith(r" [42] INFO shop: said hello\n2026-01-01 00:00:00,000 INFO shop: paid")


def test_a_traceback_stays_readable_and_none_of_its_lines_begins_like_a_record() -> None:
    lines = TextFormatter(with_process=False).format(record("failed", error=FORGED)).split("\n")

    assert lines[0].endswith(" INFO shop: failed")
    assert lines[1] == "  Traceback (most recent call last):"
    assert lines[-1] == "  " + FORGED.split("\n")[1]
    assert all(line.startswith("  ") for line in lines[1:])


def test_no_line_of_a_stack_begins_like_a_record_or_commands_a_terminal() -> None:
    text = TextFormatter(with_process=False).format(record("here", stack_info=FORGED + "\x1b[2J"))

    assert all(line.startswith("  ") for line in text.split("\n")[1:])
    assert text.endswith(r"paid\x1b[2J")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Käse in Ordnung", "Käse in Ordnung"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\r\nb\0\x7f\x9b", r"a\r\nb\x00\x7f\x9b"),
        ("\u2028\u202e", r"\u2028\u202e"),
        ("\udc80", r"\udc80"),
        ("C:\\temp", "C:\\temp"),
    ],
)
def test_what_would_command_a_terminal_is_shown_instead(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_a_record_in_json_is_one_object_on_one_line() -> None:
    access = {"client": None, "method": "GET", "status": 200}

    line = JSONFormatter().format(
        record("said %s", FORGED, access=access, name="minisession.server.access")
    )

    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "INFO",
        "logger": "minisession.server.access",
        "process": 42,
        "message": "said " + FORGED,
        **access,
    }


def test_what_an_application_calls_access_is_its_own_business() -> None:
    told = json.loads(JSONFormatter().format(record("opened", access="granted")))

    assert told["message"] == "opened"
    assert "access" not in told


def test_a_traceback_in_json_is_a_field() -> None:
    told = json.loads(JSONFormatter().format(record("failed", error="no stock")))

    assert told["exception"].startswith("Traceback (most recent call last):\n")
    assert told["exception"].endswith("\nValueError: no stock")
