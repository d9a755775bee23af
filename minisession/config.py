"""SessionConfig: every choice a user has, checked when it is made, and where it can come from.

It owns the fields, their defaults, their units and what follows from them for the cookie (its name,
its attributes per scheme, its lifetime). It refuses to know requests, stores and the time. Field
names and units are those of PHP's session directives; the defaults are the secure ones.
"""

from __future__ import annotations

import logging
import math
import os
import re
import reprlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import translate
from functools import cache
from pathlib import Path
from typing import NoReturn

from minisession._caching import CACHE_LIMITERS
from minisession._cookies import (
    FOUR_HUNDRED_DAYS,
    TEN_YEARS,
    CookieAttributes,
    needs_secure,
)
from minisession._settings import env_fields, ini_fields
from minisession.errors import ConfigError

_logger = logging.getLogger(__name__)

_MINUTE = 60  # seconds


class ConfigWarning(UserWarning):
    """A configuration is possible, and does not do all that it seems to say."""


class InsecureConfigWarning(ConfigWarning):
    """A configuration gives up something that this package promises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """How sessions and their cookie behave. Frozen; `dataclasses.replace` makes a changed one.

    Attributes:
        name: the cookie's name. None: `__Host-MINISESSID` for a Secure cookie with Path=/ and no
            Domain, else `MINISESSID`. A prefixed name is held to the prefix's rules.
        cache_expire: minutes (or a timedelta) without activity after which a session ends.
        cookie_lifetime: seconds. 0: the browser keeps the cookie as long as the session can live;
            n: n seconds; None: until the browser is closed.
        cookie_path: the cookie's Path.
        cookie_domain: the cookie's Domain; None keeps it to this host.
        cookie_secure: None: Secure over https. True: always, so that none is sent over http.
        cookie_httponly: whether scripts are kept from the cookie.
        cookie_samesite: "Lax", "Strict" or "None", in any case.
        cookie_partitioned: whether browsers keep a cookie for each embedding site.
        use_strict_mode: whether an id that the store does not know is refused.
        cache_limiter: "nocache", "private", "public", "private_no_expire" or "none".
        absolute_timeout: minutes (or a timedelta) after which a session ends in any case, or None.
        refresh_on_read: whether reading counts as activity.
        rotation_grace: seconds for which a request that loaded the session before its id was
            replaced may finish.
        on_error: "commit" or "rollback": what becomes of unsaved writes when a handler fails.
        exclude: patterns of paths that have no session, such as "/static/*"; `*` matches any
            characters, slashes too.
        save_timeout: seconds that a save may wait for the store.
        max_size: octets that one encoded session may have.
        idle: `cache_expire` in seconds (derived).
        absolute: `absolute_timeout` in seconds (derived).
        cache_max_age: `cache_expire` in whole seconds, for the cache limiter (derived).

    Raises:
        ConfigError: a value is not allowed, or a browser would drop the cookie in silence.

    Warns:
        InsecureConfigWarning: `use_strict_mode` is off.
        ConfigWarning: browsers keep the cookie for a shorter time than configured.
    """

    name: str | None = None
    cache_expire: float | timedelta = 180
    cookie_lifetime: int | None = 0
    cookie_path: str = "/"
    cookie_domain: str | None = None
    cookie_secure: bool | None = None
    cookie_httponly: bool = True
    cookie_samesite: str = "Lax"
    cookie_partitioned: bool = False
    use_strict_mode: bool = True
    cache_limiter: str = "nocache"
    absolute_timeout: float | timedelta | None = None
    refresh_on_read: bool = True
    rotation_grace: float = 30
    on_error: str = "commit"
    exclude: Sequence[str] = ()
    save_timeout: float = 5
    max_size: int = 1024 * 1024

    idle: float = field(init=False, repr=False, compare=False)
    absolute: float | None = field(init=False, repr=False, compare=False)
    cache_max_age: int = field(init=False, repr=False, compare=False)
    _over_http: CookieAttributes = field(init=False, repr=False, compare=False)
    _over_https: CookieAttributes = field(init=False, repr=False, compare=False)
    _excluded: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_flag("use_strict_mode", self.use_strict_mode)
        _check_flag("refresh_on_read", self.refresh_on_read)
        _check_choice("cache_limiter", self.cache_limiter, CACHE_LIMITERS)
        _check_choice("on_error", self.on_error, ("commit", "rollback"))
        _check_seconds("rotation_grace", self.rotation_grace, zero=True)
        _check_seconds("save_timeout", self.save_timeout)
        _check_max_size(self.max_size)
        self._derive_times()
        self._derive_exclusion()
        self._derive_cookie()
        self._warn()

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, prefix: str = "MINISESSION_"
    ) -> SessionConfig:
        """Build a configuration from environment variables such as MINISESSION_CACHE_EXPIRE=30.

        A variable is named by the prefix and the field in capitals; an empty one means the default.
        Units are those of the fields. "none" stands for None where the field may be None, booleans
        are on/off, yes/no, true/false or 1/0, and commas separate the patterns of `exclude`.
        MINISESSION_STORE belongs to the command line and is passed over.

        Args:
            environ: where to look; None means `os.environ`.
            prefix: how the names of the variables begin.

        Raises:
            ConfigError: a variable with the prefix names no field (the closest one is named), or
                its value is not allowed.
        """
        return cls(**env_fields(os.environ if environ is None else environ, prefix))

    @classmethod
    def from_ini(cls, path: str | os.PathLike[str], insecure: bool = False) -> SessionConfig:
        """Build a configuration from the session directives of an existing php.ini.

        Followed are `session.name`, `session.cache_expire`, `session.cookie_*`,
        `session.use_strict_mode` and `session.cache_limiter`; an empty value means our default, and
        numbers mean what they mean here: `session.cookie_lifetime = 0` keeps the cookie as long as
        the session. Every other `session.*` directive is reported in one log record.

        Args:
            path: the file.
            insecure: follow `session.use_strict_mode = 0`, which every stock php.ini has. Without
                it that line is reported and strict mode stays on.

        Raises:
            ConfigError: the file cannot be read, or one of its values is not allowed or has a
                meaning to PHP alone.
        """
        values, others = ini_fields(_read_text(Path(path)))
        if others:
            _logger.warning("%s: these directives do not apply here: %s", path, ", ".join(others))
        if values.get("use_strict_mode") is False and not insecure:
            del values["use_strict_mode"]
            _logger.warning(
                "%s: session.use_strict_mode = 0 is not followed, unknown ids stay refused; "
                "from_ini(path, insecure=True) follows it",
                path,
            )
        return cls(**values)

    def cookie_for(self, https: bool) -> CookieAttributes:
        """Return the one cookie that is read from and written to requests of this scheme.

        Whether it may be written at all is what `emits_over` says.
        """
        return self._over_https if https else self._over_http

    def emits_over(self, https: bool) -> bool:
        """Whether a response of this scheme may carry the cookie.

        A browser drops a Secure cookie that comes over http, so none is sent there; that is logged
        as a warning, once per process and cookie name. Behind a proxy that ends TLS, the server
        must be told to trust its X-Forwarded-Proto: the scheme of the ASGI scope decides.
        """
        if https or not self._over_http.secure:
            return True
        _report_not_sent(self._over_http.name)
        return False

    def cookie_max_age(self, now: float, created: float) -> int | None:
        """Return the Max-Age, in seconds, of a cookie sent now; None for none.

        With `cookie_lifetime=0` it is twice the idle timeout, or what the absolute timeout leaves
        if that is less, and never more than the 400 days for which browsers keep a cookie.

        Args:
            now: seconds since the epoch.
            created: when the session began, likewise.
        """
        if self.cookie_lifetime != 0:
            return self.cookie_lifetime
        seconds = min(2 * self.idle, FOUR_HUNDRED_DAYS)
        if self.absolute is not None:
            seconds = min(seconds, created + self.absolute - now)
        return max(1, math.ceil(seconds))

    def excludes(self, path: str) -> bool:
        """Whether requests to this path, decoded as in an ASGI scope, have no session."""
        return self._excluded is not None and self._excluded.match(path) is not None

    def _derive_times(self) -> None:
        idle = _minutes("cache_expire", self.cache_expire)
        absolute = self.absolute_timeout
        self._set(
            idle=idle,
            cache_max_age=int(idle),
            absolute=None if absolute is None else _minutes("absolute_timeout", absolute),
        )

    def _derive_exclusion(self) -> None:
        patterns = _checked_patterns(self.exclude)
        compiled = re.compile("|".join(map(translate, patterns))) if patterns else None
        self._set(exclude=patterns, _excluded=compiled)

    def _derive_cookie(self) -> None:
        _check_lifetime(self.cookie_lifetime)
        if self.cookie_secure is not None:
            _check_flag("cookie_secure", self.cookie_secure, "True, False, or None (on for https)")
        over_https = self._cookie(https=True)
        self._set(cookie_domain=over_https.domain, cookie_samesite=over_https.samesite)
        self._set(_over_https=over_https, _over_http=self._cookie(https=False))

    def _cookie(self, https: bool) -> CookieAttributes:
        secure = self.cookie_secure
        if secure is None:
            secure = https or self._is_secure_in_any_case()
        name = self.name
        if name is None:
            host_only = secure and self.cookie_path == "/" and self.cookie_domain is None
            name = "__Host-MINISESSID" if host_only else "MINISESSID"
        return CookieAttributes(
            name=name,
            path=self.cookie_path,
            domain=self.cookie_domain,
            secure=secure,
            httponly=self.cookie_httponly,
            samesite=self.cookie_samesite,
            partitioned=self.cookie_partitioned,
        )

    def _is_secure_in_any_case(self) -> bool:
        """Whether browsers would drop this cookie without Secure, so that http can have none."""
        prefixed = self.name is not None and needs_secure(self.name)
        return prefixed or self.cookie_samesite == "None" or self.cookie_partitioned

    def _warn(self) -> None:
        # The stack from here: _warn, __post_init__, __init__, the line that built it.
        if not self.use_strict_mode:
            warnings.warn(
                "use_strict_mode=False adopts ids that the store does not know: a client can bring "
                "back the id of a destroyed session, or plant one of its own",
                InsecureConfigWarning,
                stacklevel=4,
            )
        if self.cookie_lifetime is not None and self.cookie_lifetime > FOUR_HUNDRED_DAYS:
            warnings.warn(
                f"cookie_lifetime={self.cookie_lifetime}: browsers keep no cookie longer than "
                f"{FOUR_HUNDRED_DAYS} seconds, 400 days (RFC 6265bis 5.5)",
                ConfigWarning,
                stacklevel=4,
            )

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


@cache
def _report_not_sent(name: str) -> None:
    _logger.warning(
        "the cookie %s is Secure and was not sent over http, where browsers drop it. Serve https, "
        "or have the server trust the X-Forwarded-Proto of the proxy that does; to use plain http, "
        "set cookie_secure=False",
        name,
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _minutes(name: str, value: float | timedelta) -> float:
    """Check a duration in minutes and return it in seconds."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    else:
        seconds = value * _MINUTE if _is_finite(value) else 0
    if not 0 < seconds <= TEN_YEARS:
        _refuse(
            name,
            value,
            "a number of minutes or a timedelta, more than 0 and at most ten years; "
            f"half an hour is {name}=30",
        )
    return float(seconds)


def _check_seconds(name: str, value: float, *, zero: bool = False) -> None:
    if not _is_finite(value) or value < 0 or (value == 0 and not zero):
        least = "0 or more" if zero else "more than 0"
        _refuse(name, value, f"a finite number of seconds, {least}, such as {name}=5")


def _is_finite(value: float) -> bool:
    return type(value) in {int, float} and abs(value) <= sys.float_info.max


def _check_lifetime(value: int | None) -> None:
    if value is not None and (type(value) is not int or not 0 <= value <= TEN_YEARS):
        _refuse(
            "cookie_lifetime",
            value,
            "0 (as long as the session), a whole number of seconds up to ten years, such as "
            "2592000 for thirty days, or None (until the browser is closed)",
        )


def _check_max_size(value: int) -> None:
    if type(value) is not int or value < 1:
        _refuse("max_size", value, "a whole number of octets from 1, such as 1048576 for 1 MiB")


def _check_flag(name: str, value: bool, allowed: str = "True or False") -> None:
    if type(value) is not bool:
        _refuse(name, value, allowed)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        _refuse(name, value, "one of " + ", ".join(f'"{choice}"' for choice in allowed))


def _checked_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(patterns, (tuple, list)):
        _refuse("exclude", patterns, 'a tuple of patterns, such as ("/static/*", "/healthz")')
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern.startswith(("/", "*")):
            _refuse("exclude", pattern, 'a pattern begins with / or *, such as "/static/*"')
    return tuple(patterns)


def _refuse(name: str, value: object, allowed: str) -> NoReturn:
    raise ConfigError(f"{name}={reprlib.repr(value)} is not allowed. Allowed: {allowed}")
