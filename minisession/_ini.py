"""php.ini as text: which directive is given which value.

It owns the part of PHP's INI syntax that can be read without running PHP, and refuses the rest of
it loudly (`${...}`, expressions, values over several lines), but only for the directives that
somebody asks for. It refuses to know what any directive means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from minisession.errors import ConfigError

_SECTION = re.compile(r"\[([^\]]*)\]")
_ENTRY = re.compile(r"([^=;]+)=(.*)", re.DOTALL)
_QUOTED = re.compile(r""""((?:[^"\\]|\\.)*)"|'([^']*)'""")
_REST = re.compile(r"\s*(?:;.*)?")
_ESCAPED = re.compile(r"""\\(["'\\])""")
_OPERATORS = re.compile(r"""[|&^~!(){}"'$=]""")  # reserved in unquoted values, or an expression


@dataclass(frozen=True, slots=True)
class IniValue:
    """What stands right of the `=`, and where."""

    raw: str
    line: int

    def content(self, directive: str) -> str:
        """Return the value without its quotes and comment.

        It is empty where nothing is given, or an unquoted `None` or `null`, which PHP reads so.

        Raises:
            ConfigError: only PHP itself could say what the value is.
        """
        raw = self.raw.strip()
        if quoted := _QUOTED.match(raw):
            if not _REST.fullmatch(raw, quoted.end()):
                raise self._refused(directive, "a quoted string with more after it")
            if quoted[1] is None:
                return quoted[2]
            if "${" in quoted[1]:
                raise self._refused(directive, "${...}")
            return _ESCAPED.sub(r"\1", quoted[1])
        bare = raw.partition(";")[0].strip()
        if _OPERATORS.search(bare):
            raise self._refused(directive, "an expression, ${...} or an open quote")
        return "" if bare.lower() in {"none", "null"} else bare

    def _refused(self, directive: str, what: str) -> ConfigError:
        return ConfigError(
            f"line {self.line}: the value of {directive} holds {what}, which only PHP can read. "
            f'Write the value itself, in quotes if needed: {directive} = "..."'
        )


def read_ini(text: str) -> dict[str, IniValue]:
    """Return the directives of a php.ini; of several with one name, the last one.

    Sections are only headings to PHP, except `[PATH=...]` and `[HOST=...]`, which hold for some
    requests and not for others: what stands in those is left out. A line that is neither a
    directive nor a heading is passed over, as PHP does with directives it does not know.
    """
    directives: dict[str, IniValue] = {}
    applies = True
    for number, line in enumerate(text.splitlines(), start=1):
        if section := _SECTION.match(line.strip()):
            applies = not section[1].upper().startswith(("PATH=", "HOST="))
        elif applies and (entry := _ENTRY.match(line)):
            directives[entry[1].strip()] = IniValue(entry[2], number)
    return directives
