"""The acceptance cases, as the bytes that a client sends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent.parent / "acceptance" / "http_cases.json"
_REPEAT = re.compile(r"\{\{REP ((?:.|\n)*?) (\d+)\}\}")


def expand(text: str) -> bytes:
    """The bytes of a case, in which `{{REP x 3}}` stands for xxx."""
    repeated = _REPEAT.sub(
        lambda match: match[1].replace("\\r", "\r").replace("\\n", "\n") * int(match[2]), text
    )
    return repeated.encode("latin-1")


CASES: list[dict[str, Any]] = json.loads(_FILE.read_text())
RAW = [expand(case["raw"]) for case in CASES]
