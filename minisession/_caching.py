"""Cache-Control, Pragma, Expires and Vary as text, by RFC 9111.

It owns one rule: what a response already says about caches is made stricter by the cache limiter,
never laxer. It refuses to know sessions, the configuration and the time: an Expires is understood
only next to a Date, and without one it counts as past.
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Headers: TypeAlias = list[tuple[bytes, bytes]]
# The name in lower case -> its argument; what nobody here interprets is a name as it stood.
Directives: TypeAlias = dict[str, str | None]

CACHE_LIMITERS = ("nocache", "private", "public", "private_no_expire", "none")

_LONG_AGO = b"Thu, 01 Jan 1970 00:00:00 GMT"
_FIELDS = {
    "nocache": [(b"pragma", b"no-cache"), (b"expires", _LONG_AGO)],
    "private": [(b"expires", _LONG_AGO)],
    "public": [],
    "private_no_expire": [],
}

_SECONDS = {"max-age", "s-maxage"}
_FIELD_LISTS = {"no-cache", "private"}  # with an argument they speak of those fields alone
_PERMISSIONS = {"public", "immutable", "stale-while-revalidate", "stale-if-error"}
_RESTRICTIONS = {"no-store", "must-revalidate", "proxy-revalidate", "no-transform"}
# must-understand lets a cache ignore the no-store beside it (RFC 9111 section 5.2.2.3).
_INTERPRETED = _PERMISSIONS | _RESTRICTIONS | {"must-understand"}
_NOCACHE: Directives = {"no-store": None, "no-cache": None, "must-revalidate": None}
_MOOT_IN_NOCACHE = _PERMISSIONS | _SECONDS | {"must-understand"}

_MAX_SECONDS = 2**31  # RFC 9111 section 1.2.2: whatever is larger counts as this

# A list element: anything but commas, where a quoted string may hold commas and escaped quotes, and
# one that nobody closed goes on to the end. The alternatives exclude each other: linear time.
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.?)*"?)+', re.DOTALL)
_DIGITS = re.compile(r'[0-9]+|"[0-9]+"')  # RFC 9111 section 5.2: both forms are to be accepted


def apply_cache_limiter(headers: Headers, limiter: str, max_age: int) -> Headers:
    """Return a response's headers with the policy of PHP's `session.cache_limiter` applied.

    The policy is merged with the Cache-Control that is there, so that the result allows nothing
    that one of the two forbids; unknown directives stay:

    - `nocache`: `no-store, no-cache, must-revalidate`, `Pragma: no-cache`, an Expires in the past;
    - `private`: `private, max-age=<max_age>`, an Expires in the past (for HTTP/1.0 caches);
    - `public`: `public, max-age=<max_age>`, unless the response was stricter already;
    - `private_no_expire`: `private`;
    - `none`: the headers as they are.

    Where shared caches are kept out, targeted fields that would override this go (RFC 9213's
    CDN-Cache-Control and its relatives, Surrogate-Control).

    Args:
        headers: the fields of an ASGI response, names in any case. The list is not changed.
        limiter: one of `CACHE_LIMITERS`.
        max_age: seconds.
    """
    if limiter == "none":
        return headers
    fields = _FIELDS[limiter]
    dropped = {b"cache-control", *(name for name, _ in fields)}
    rest = [
        (name, value)
        for name, value in headers
        if name.lower() not in dropped and (limiter == "public" or not _is_targeted(name))
    ]
    directives = _strictest(headers, limiter, max_age)
    return [*rest, (b"cache-control", _render(directives)), *fields]


def add_vary_cookie(headers: Headers) -> Headers:
    """Return a response's headers with Cookie among the Vary fields, merged into one.

    `*` says more already and stays. The list that was given is not changed.
    """
    existing = _values(headers, b"vary")
    if not existing:
        return [*headers, (b"vary", b"Cookie")]
    members = {member.lower(): member for member in _elements(existing)}
    if "*" in members or "cookie" in members:
        return headers
    rest = [(name, value) for name, value in headers if name.lower() != b"vary"]
    vary = ", ".join([*members.values(), "Cookie"])
    return [*rest, (b"vary", vary.encode("latin-1"))]


def _strictest(headers: Headers, limiter: str, max_age: int) -> Directives:
    existing = _existing_directives(headers)
    if limiter == "nocache":
        kept = {name: arg for name, arg in existing.items() if name not in _MOOT_IN_NOCACHE}
        return _NOCACHE | kept | _NOCACHE
    kept = {name: arg for name, arg in existing.items() if name not in _PERMISSIONS}
    if "no-store" in kept:
        kept.pop("must-understand", None)
    elif limiter != "private_no_expire":
        kept["max-age"] = str(min(max_age, _freshness(headers, existing)))
    if limiter == "public":
        return _for_shared_caches(kept, max_age)
    kept.pop("s-maxage", None)  # it speaks to shared caches alone
    return {"private": None} | kept | {"private": None}


def _for_shared_caches(kept: Directives, max_age: int) -> Directives:
    if shared := kept.get("s-maxage"):
        kept["s-maxage"] = str(min(max_age, int(shared)))
    if "no-store" in kept or "private" in kept:
        return kept
    return {"public": None} | kept


def _freshness(headers: Headers, existing: Directives) -> int:
    """How long a private cache may use the response as it stands, in seconds."""
    if max_age := existing.get("max-age"):
        return int(max_age)
    expires = _values(headers, b"expires")
    if not expires:
        return _MAX_SECONDS
    dates = _values(headers, b"date")
    if len(expires) > 1 or len(dates) != 1:
        return 0
    end, start = _http_date(expires[0]), _http_date(dates[0])
    # RFC 9111 section 5.3: an invalid date, "0" among them, means already expired.
    return 0 if end is None or start is None else max(0, int(end - start))


def _existing_directives(headers: Headers) -> Directives:
    directives: Directives = {}
    for element in _elements(_values(headers, b"cache-control")):
        name, equals, argument = element.partition("=")
        name, argument = name.strip().lower(), argument.strip()
        if name in _SECONDS:
            # RFC 9111 section 4.2.1: of several, or an invalid one, the stricter reading.
            seconds = min(_delta_seconds(argument), int(directives.get(name) or _MAX_SECONDS))
            directives[name] = str(seconds)
        elif name in _FIELD_LISTS:
            # Unqualified where it says so, twice, or without any field: the stricter reading.
            qualified = equals and argument.strip('" ') and name not in directives
            directives[name] = argument if qualified else None
        elif name in _INTERPRETED:
            directives[name] = None
        else:
            directives[element] = None
    if not directives and "no-cache" in map(str.lower, _elements(_values(headers, b"pragma"))):
        return {"no-cache": None}  # how some caches read it where there is no Cache-Control
    return directives


def _values(headers: Headers, field: bytes) -> list[bytes]:
    return [value for name, value in headers if name.lower() == field]


def _elements(values: Iterable[bytes]) -> Iterator[str]:
    """The members of comma-separated lists, empty ones left out."""
    for value in values:
        stripped = (match[0].strip() for match in _ELEMENT.finditer(value.decode("latin-1")))
        yield from filter(None, stripped)


def _render(directives: Directives) -> bytes:
    parts: Iterable[str] = (
        name if argument is None else f"{name}={argument}" for name, argument in directives.items()
    )
    return ", ".join(parts).encode("latin-1")


def _delta_seconds(argument: str) -> int:
    if not _DIGITS.fullmatch(argument):
        return 0  # RFC 9111 section 4.2.1: not a valid freshness, so the response is stale
    digits = argument.strip('"').lstrip("0") or "0"
    return _MAX_SECONDS if len(digits) > 10 else min(int(digits), _MAX_SECONDS)


def _http_date(value: bytes) -> float | None:
    try:
        moment = parsedate_to_datetime(value.decode("latin-1"))
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _is_targeted(name: bytes) -> bool:
    name = name.lower()
    return name.endswith(b"cdn-cache-control") or name == b"surrogate-control"
