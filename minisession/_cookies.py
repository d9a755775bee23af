"""Cookie and Set-Cookie as text, by RFC 6265bis (draft-ietf-httpbis-rfc6265bis).

It owns the reading of one name from a request's Cookie fields, the writing of Set-Cookie fields,
and the rules by which a browser would drop such a field in silence. It refuses to know what a
session or a valid id is, where the configuration comes from, and what time it is.
"""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from minisession.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

FOUR_HUNDRED_DAYS = 400 * 24 * 60 * 60  # seconds; browsers keep no cookie longer (section 5.5)
TEN_YEARS = 3650 * 24 * 60 * 60  # seconds; more than this is a mistake in the unit

_WHITESPACE = " \t"  # section 5.6: only SP and HTAB are trimmed
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # section 5.6 step 1: HTAB is not among them

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_COOKIE_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")  # section 4.1.1
# What a browser can have in the path of a request as it stands: everything else arrives
# percent-encoded (WHATWG URL, the path percent-encode set), so a cookie path with it never matches.
_PATH = re.compile(r"/[!$%&'()*+,\-./0-9:=@A-Z\[\]^_a-z|~]*")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1034 3.5, RFC 1123 2.1
_NUMBER_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")  # a host that ends so is an IPv4 address

_MAX_PAIR = 4096  # octets of name and value together (section 5.6 step 5)
_MAX_ATTRIBUTE = 1024  # octets of an attribute's value (section 5.6)
_ID_LENGTH = 55  # the longest value that a session's cookie carries: "<handle>.<secret>"

_SAMESITE = {"lax": "Lax", "strict": "Strict", "none": "None"}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def read_cookie(headers: Iterable[bytes], name: str) -> list[str]:
    """Return the distinct values of the cookie called exactly `name`, the first match first.

    The values are what was sent: not unquoted, not decoded, and not checked for being an id.

    Args:
        headers: the values of all Cookie fields of one request, in order; HTTP/2 may split them
            (section 4.2.1), and they are read as if joined by "; ". Octets are taken as latin-1.
        name: compared exactly; case counts (section 4.1.3).

    Returns:
        No value where the name does not occur, only with control characters, or with two different
        values under a `__Host-` name: a browser cannot hold two of those, so one was planted.
    """
    text = b"; ".join(headers).decode("latin-1")
    if name not in text:
        return []
    values: dict[str, None] = {}  # its keys: a header full of values is still read in linear time
    for pair in text.split(";"):
        if name not in pair:
            continue
        key, equals, value = pair.partition("=")
        if equals and key.strip(_WHITESPACE) == name and not _CONTROL.search(value):
            values[value.strip(_WHITESPACE)] = None
    if len(values) > 1 and name.lower().startswith("__host-"):
        return []
    return list(values)


@dataclass(frozen=True, slots=True)
class CookieAttributes:
    """The name and the attributes of a cookie that a browser accepts, checked when built.

    `domain` is kept in lower case without a leading dot, which browsers ignore (section 5.6.3), and
    `samesite` in the standard's spelling, so that equal cookies are equal values.

    Raises:
        ConfigError: a browser would drop the cookie in silence, never send it back, or read
            attributes that nobody meant. The message names the field of `SessionConfig`.
    """

    name: str
    path: str = "/"
    domain: str | None = None
    secure: bool = True
    httponly: bool = True
    samesite: str = "Lax"
    partitioned: bool = False
    _tail: bytes = field(init=False, repr=False, compare=False)
    _deletion: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_path(self.path)
        for flag in ("secure", "httponly", "partitioned"):
            _check_flag(f"cookie_{flag}", getattr(self, flag))
        object.__setattr__(self, "domain", _canonical_domain(self.domain))
        object.__setattr__(self, "samesite", _canonical_samesite(self.samesite))
        self._check_together()
        object.__setattr__(self, "_tail", self._render_tail())
        deletion = f"{self.name}=; Max-Age=0; Expires={_imf_fixdate(0)}"
        object.__setattr__(self, "_deletion", deletion.encode("ascii") + self._tail)

    def _check_together(self) -> None:
        if self.samesite == "None" and not self.secure:
            raise ConfigError(
                'cookie_samesite="None" needs cookie_secure=True: browsers drop the cookie without '
                'it. Set cookie_secure=True, or cookie_samesite="Lax"'
            )
        if self.partitioned and not self.secure:
            raise ConfigError(
                "cookie_partitioned=True needs cookie_secure=True: browsers drop the cookie "
                "without it. Set cookie_secure=True, or cookie_partitioned=False"
            )
        for missing in self._missing_for_prefix():
            raise ConfigError(
                f"name={_show(self.name)} has a prefix that needs {missing}: browsers drop the "
                f"cookie otherwise. Set {missing}, or choose a name without the prefix"
            )

    def _missing_for_prefix(self) -> Iterable[str]:
        # Browsers compare the prefixes without case (section 5.7), and so do we.
        name = self.name.lower()
        if needs_secure(self.name) and not self.secure:
            yield "cookie_secure=True"
        if name.startswith(("__http-", "__host-http-")) and not self.httponly:
            yield "cookie_httponly=True"
        if name.startswith("__host-") and self.path != "/":
            yield 'cookie_path="/"'
        if name.startswith("__host-") and self.domain is not None:
            yield "cookie_domain=None"

    def _render_tail(self) -> bytes:
        parts = [f"; Path={self.path}"]
        if self.domain is not None:
            parts.append(f"; Domain={self.domain}")
        if self.secure:
            parts.append("; Secure")
        if self.httponly:
            parts.append("; HttpOnly")
        parts.append(f"; SameSite={self.samesite}")
        if self.partitioned:
            parts.append("; Partitioned")
        return "".join(parts).encode("ascii")


def needs_secure(name: str) -> bool:
    """Whether browsers accept a cookie of this name only with the Secure attribute."""
    return name.lower().startswith(("__secure-", "__host-", "__http-"))


def set_cookie(attributes: CookieAttributes, value: str, max_age: int | None, now: float) -> bytes:
    """Return the Set-Cookie field value that gives the browser this cookie.

    Args:
        attributes: the cookie's name and attributes.
        value: the cookie's value; cookie-octets only, never quoted or encoded here.
        max_age: seconds from `now`, sent as Max-Age and as Expires; None sends neither, and the
            cookie goes with the browser's session.
        now: seconds since the epoch.

    Raises:
        ConfigError: `max_age` is not a whole number from 1 to ten years: browsers would delete the
            cookie at once, or ignore the attribute. Or name and value together are too long.
        ValueError: `value` could not be sent as it is. The message does not hold it.
    """
    if not _COOKIE_VALUE.fullmatch(value):
        raise ValueError("a cookie's value must be made of cookie-octets (RFC 6265bis 4.1.1)")
    if len(attributes.name) + len(value) > _MAX_PAIR:
        raise ConfigError(
            f"name={_show(attributes.name)} leaves no room for the value: browsers drop a cookie "
            f"whose name and value have more than {_MAX_PAIR} octets together"
        )
    pair = f"{attributes.name}={value}"
    if max_age is not None:
        check_max_age("Max-Age", max_age)
        pair += f"; Max-Age={max_age}; Expires={_imf_fixdate(now + max_age)}"
    return pair.encode("ascii") + attributes._tail


def delete_cookie(attributes: CookieAttributes) -> bytes:
    """Return the Set-Cookie field value that makes the browser forget this cookie.

    It repeats every attribute: a browser replaces a cookie only under the same name, Domain and
    Path, and lets only a Secure one replace a Secure one, a Partitioned one a Partitioned one.
    """
    return attributes._deletion


def check_max_age(name: str, max_age: int) -> None:
    """Raise ConfigError, naming `name`, unless browsers take `max_age` (seconds) for a future."""
    if type(max_age) is not int or not 1 <= max_age <= TEN_YEARS:
        raise ConfigError(
            f"{name}={_show(max_age)}: a whole number of seconds from 1 to {TEN_YEARS} "
            f"(ten years) is allowed; thirty days would be {name}=2592000"
        )


def _imf_fixdate(seconds: float) -> str:
    """The date of RFC 9110 section 5.6.7, in English whatever the locale is."""
    t = datetime.fromtimestamp(int(seconds), UTC)
    return (
        f"{_DAYS[t.weekday()]}, {t.day:02} {_MONTHS[t.month - 1]} {t.year:04} "
        f"{t.hour:02}:{t.minute:02}:{t.second:02} GMT"
    )


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ConfigError(
            f"name={_show(name)}: a cookie's name is a token of ASCII letters, digits and "
            '!#$%&\'*+-.^_`|~ (RFC 9110 5.6.2); for example name="MINISESSID"'
        )
    if len(name) > _MAX_PAIR - _ID_LENGTH:
        raise ConfigError(
            f"name={_show(name)} has {len(name)} characters: at most {_MAX_PAIR - _ID_LENGTH} are "
            f"allowed, as browsers drop a cookie of more than {_MAX_PAIR} with its value"
        )


def _check_path(path: str) -> None:
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ConfigError(
            f"cookie_path={_show(path)}: a path begins with / and holds what a URL's path holds as "
            'it stands, percent-encoded where needed, no ; and no space; for example "/app"'
        )
    if len(path) > _MAX_ATTRIBUTE:
        raise ConfigError(
            f"cookie_path={_show(path)} has {len(path)} characters: at most {_MAX_ATTRIBUTE} are "
            "allowed, as browsers ignore a longer one"
        )


def _check_flag(name: str, flag: bool) -> None:
    if type(flag) is not bool:
        raise ConfigError(f"{name}={_show(flag)}: True or False is allowed")


def _canonical_samesite(samesite: str) -> str:
    canonical = _SAMESITE.get(samesite.lower()) if isinstance(samesite, str) else None
    if canonical is None:
        raise ConfigError(
            f'cookie_samesite={_show(samesite)}: one of the strings "Lax", "Strict", "None" is '
            'allowed; for example cookie_samesite="Lax"'
        )
    return canonical


def _canonical_domain(domain: str | None) -> str | None:
    if domain is None:
        return None
    if not isinstance(domain, str):
        raise _domain_error(domain, "it is not a string")
    host = domain.removeprefix(".").lower()
    labels = host.split(".")
    # ASCII is asked for first: lower() turns a Kelvin sign into the letter k.
    if not domain.isascii() or len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise _domain_error(domain, "it is not a bare host name in ASCII (RFC 6265bis 4.1.2.3)")
    if _NUMBER_LABEL.fullmatch(labels[-1]):
        raise _domain_error(domain, "an IP address has no subdomains")
    # A single label is a public suffix by the list's default rule: browsers take it from the host
    # of that very name alone, and then as if there were no Domain.
    if len(labels) == 1:
        raise _domain_error(domain, "browsers take no top-level name for a Domain")
    return host


def _domain_error(domain: object, why: str) -> ConfigError:
    return ConfigError(
        f"cookie_domain={_show(domain)}: {why}. A host name that the site shares with its "
        'subdomains is allowed, such as "example.org" (an international one in its xn-- form), '
        "or None for this host alone"
    )


def _show(value: object) -> str:
    return reprlib.repr(value)
