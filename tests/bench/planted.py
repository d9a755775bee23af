"""`minisession` with a planted bug: one current session for everybody, as in a global variable.

    python tests/bench/planted.py bench isolation --tasks 1000

The command is the one that users run; nothing else is replaced.
"""

from __future__ import annotations

import sys
from typing import Any

from minisession import _context
from minisession.cli import main


class OneForAll:
    """Has the methods of a `ContextVar`, and is none: every task sees what was set last."""

    def __init__(self) -> None:
        self.value: Any = None

    def get(self, *default: Any) -> Any:
        if self.value is not None:
            return self.value
        if default:
            return default[0]
        raise LookupError

    def set(self, value: Any) -> Any:
        before, self.value = self.value, value
        return before

    def reset(self, before: Any) -> None:
        self.value = before


if __name__ == "__main__":
    _context._bound = OneForAll()  # type: ignore[assignment]
    sys.exit(main())
