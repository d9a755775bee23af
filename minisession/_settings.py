"""Settings as text: environment variables and php.ini directives, read into SessionConfig fields.

It owns how a field is spelled as text and where texts come from. It refuses to know what a value
means: only SessionConfig decides what is allowed.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from typing import TYPE_CHECKING, Any

from minisession._ini import read_ini
from minisession.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Fields = dict[str, Any]  # keyword arguments of SessionConfig, which checks them

_BOOLEANS = {
    **dict.fromkeys(("on", "yes", "true", "1"), True),
    **dict.fromkeys(("off", "no", "false", "0"), False),
}
_NOT_FIELDS = {"STORE"}  # the store's URL, which the command line reads
_WHOLE = re.compile(r"-?[0-9]{1,20}")
_DECIMAL = re.compile(r"-?[0-9]{1,20}\.[0-9]{1,20}")
_PHP = "session."
_PHP_FIELDS = {
    "name",
    "cache_expire",
    "cookie_lifetime",
    "cookie_path",
    "cookie_domain",
    "cookie_secure",
    "cookie_httponly",
    "cookie_samesite",
    "cookie_partitioned",
    "use_strict_mode",
    "cache_limiter",
}


def env_fields(environ: Mapping[str, str], prefix: str) -> Fields:
    """Return the fields that variables named `prefix` and the field in capitals give.

    An empty variable gives nothing. "none" stands for None where a field may be None, and commas
    separate the patterns of `exclude`.

    Raises:
        ConfigError: a variable with the prefix is not a field, or its text cannot be read.
    """
    fields: Fields = {}
    for variable, text in environ.items():
        if not variable.startswith(prefix) or variable.removeprefix(prefix) in _NOT_FIELDS:
            continue
        field = _field_of(variable, prefix)
        if text.strip():
            fields[field] = _read(field, variable, text.strip())
    return fields


def ini_fields(text: str) -> tuple[Fields, list[str]]:
    """Return the fields that a php.ini gives, and the `session.*` directives that are none here.

    An empty value gives nothing.

    Raises:
        ConfigError: a value can be read only by PHP, or not at all.
    """
    fields: Fields = {}
    others: list[str] = []
    for directive, value in read_ini(text).items():
        if not directive.startswith(_PHP):
            continue
        field = directive.removeprefix(_PHP)
        if field not in _PHP_FIELDS:
            others.append(directive)
        elif content := value.content(directive):
            fields[field] = _read(field, directive, content)
    return fields, others


def _field_of(variable: str, prefix: str) -> str:
    fields = {name.upper(): name for name in READERS}
    name = variable.removeprefix(prefix)
    if name not in fields:
        closest = difflib.get_close_matches(name.upper(), fields, n=1, cutoff=0)[0]
        raise ConfigError(
            f"{variable} is no field of the configuration; did you mean {prefix}{closest}? "
            f"Allowed after {prefix}: {', '.join(fields)}"
        )
    return fields[name]


def _read(field: str, source: str, text: str) -> object:
    try:
        return READERS[field](text)
    except ValueError as error:
        raise ConfigError(f"{source}={reprlib.repr(text)}: {error} is allowed") from None


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError("one of on, off, yes, no, true, false, 1, 0") from None


def _integer(text: str) -> int:
    # Not int() alone: it takes "1_000", the digits of every script, and as many as there are.
    if not _WHOLE.fullmatch(text):
        raise ValueError("a whole number of at most 20 digits")
    return int(text)


def _number(text: str) -> float:
    if _WHOLE.fullmatch(text):
        return int(text)
    if not _DECIMAL.fullmatch(text):
        raise ValueError("a number such as 30 or 0.5")
    return float(text)


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(pattern.strip() for pattern in text.split(","))


def _or_none(read: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: None if text.lower() == "none" else read(text)


READERS: dict[str, Callable[[str], object]] = {
    "name": str,
    "cache_expire": _number,
    "cookie_lifetime": _or_none(_integer),
    "cookie_path": str,
    "cookie_domain": _or_none(str),
    "cookie_secure": _or_none(_boolean),
    "cookie_httponly": _boolean,
    "cookie_samesite": str,
    "cookie_partitioned": _boolean,
    "use_strict_mode": _boolean,
    "cache_limiter": str,
    "absolute_timeout": _or_none(_number),
    "refresh_on_read": _boolean,
    "rotation_grace": _number,
    "on_error": str,
    "exclude": _patterns,
    "save_timeout": _number,
    "max_size": _integer,
}
