"""The configuration: its defaults, its refusals, what follows from it, and where it comes from."""

from __future__ import annotations

import ast
import copy
import dataclasses
import logging
import pickle
import re
import reprlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisession import config as config_module
from minisession._cookies import CookieAttributes
from minisession._settings import READERS
from minisession.config import ConfigWarning, InsecureConfigWarning, SessionConfig
from minisession.errors import ConfigError

STOCK = Path(__file__).parent / "data" / "php.ini"
REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "configuration.md"
DAY = 24 * 60 * 60

DEFAULTS = {
    "name": None,
    "cache_expire": 180,
    "cookie_lifetime": 0,
    "cookie_path": "/",
    "cookie_domain": None,
    "cookie_secure": None,
    "cookie_httponly": True,
    "cookie_samesite": "Lax",
    "cookie_partitioned": False,
    "use_strict_mode": True,
    "cache_limiter": "nocache",
    "absolute_timeout": None,
    "refresh_on_read": True,
    "rotation_grace": 30,
    "on_error": "commit",
    "exclude": (),
    "save_timeout": 5,
    "max_size": 1048576,
}


def settings(config: SessionConfig) -> dict[str, Any]:
    """What a user can set, as it was set."""
    fields = [field.name for field in dataclasses.fields(config) if field.init]
    return {name: getattr(config, name) for name in fields}


# Values


def test_the_defaults_are_the_documented_ones() -> None:
    assert settings(SessionConfig()) == DEFAULTS


def test_the_reference_names_every_field_and_its_default() -> None:
    text = REFERENCE.read_text(encoding="utf-8")

    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", text, re.MULTILINE)

    assert {name: ast.literal_eval(default) for name, default in rows} == DEFAULTS


def test_a_configuration_is_a_frozen_value() -> None:
    config = SessionConfig(cache_expire=30, exclude=["/static/*"])

    assert config == SessionConfig(cache_expire=30, exclude=("/static/*",))
    assert hash(config) == hash(SessionConfig(cache_expire=30, exclude=("/static/*",)))
    assert config != SessionConfig()
    assert repr(config).startswith("SessionConfig(name=None, cache_expire=30, ")
    assert "_over" not in repr(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.cache_expire = 5  # type: ignore[misc]


def test_replacing_a_field_derives_everything_again() -> None:
    config = dataclasses.replace(SessionConfig(), cache_expire=1, cookie_path="/app")

    assert config.idle == 60
    assert config.cookie_for(https=True).path == "/app"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copied_configuration_works_the_same(copied: Any) -> None:
    config = SessionConfig(exclude=("/static/*",))

    again = copied(config)

    assert again == config
    assert again.excludes("/static/x")
    assert again.cookie_for(https=True) == config.cookie_for(https=True)


@pytest.mark.parametrize("field", ["cache_expire", "absolute_timeout"])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [(30, 1800.0), (0.5, 30.0), (timedelta(hours=1), 3600.0), (3650 * 24 * 60, 3650.0 * DAY)],
)
def test_a_duration_is_in_minutes_or_a_timedelta(field: str, value: Any, seconds: float) -> None:
    config = SessionConfig(**{field: value})

    assert (config.idle if field == "cache_expire" else config.absolute) == seconds


@pytest.mark.parametrize(
    ("expire", "whole"), [(180, 10800), (0.5, 30), (1.01, 60), (timedelta(milliseconds=5), 0)]
)
def test_the_max_age_for_caches_is_never_longer_than_the_session(expire: Any, whole: int) -> None:
    assert SessionConfig(cache_expire=expire).cache_max_age == whole


def test_without_an_absolute_timeout_there_is_none() -> None:
    assert SessionConfig().absolute is None


NO_NUMBER = [True, "5", float("nan"), float("inf"), -float("inf"), -1, 10**400, [5], b"5"]
NO_FLAG = [None, 0, 1, "on", "True"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("cache_expire", value) for value in [*NO_NUMBER, None, 0, 3650 * 24 * 60 + 1]),
        *(("cache_expire", timedelta(seconds=value)) for value in (0, -1, 3650 * DAY + 1)),
        *(("absolute_timeout", value) for value in [*NO_NUMBER, 0, 3650 * 24 * 60 + 1]),
        ("absolute_timeout", timedelta(0)),
        *(("rotation_grace", value) for value in [*NO_NUMBER, None, timedelta(seconds=30)]),
        *(("save_timeout", value) for value in [*NO_NUMBER, None, 0]),
        *(("max_size", value) for value in [True, "5", None, 0, -1, 1.5, float("inf")]),
        *(("cookie_lifetime", value) for value in [*NO_NUMBER, 1.5, 3650 * DAY + 1]),
        ("cookie_lifetime", timedelta(days=1)),
        *(("use_strict_mode", value) for value in NO_FLAG),
        *(("refresh_on_read", value) for value in NO_FLAG),
        *(("cookie_httponly", value) for value in NO_FLAG),
        *(("cookie_partitioned", value) for value in NO_FLAG),
        *(("cookie_secure", value) for value in NO_FLAG if value is not None),
        *(("cache_limiter", value) for value in ("", "no-cache", "NOCACHE", None, ["public"])),
        *(("on_error", value) for value in ("", "raise", None, True)),
        *(("exclude", value) for value in ("/static/*", None, 5, ("static/*",), (5,), ("",))),
        *(("name", value) for value in ("", "a b", 5, b"sid")),
        *(("cookie_path", value) for value in ("", "app", None, "/;")),
        *(("cookie_domain", value) for value in ("", "org", 5, "a.org:443")),
        *(("cookie_samesite", value) for value in (None, "", "loose", True)),
    ],
    ids=reprlib.repr,
)
def test_a_value_that_is_not_allowed_is_refused_with_its_field_named(
    field: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=f"^{field}=.*llowed|^{field}=.*(begins|token)"):
        SessionConfig(**{field: value})


def test_a_field_that_does_not_exist_is_refused_by_python() -> None:
    with pytest.raises(TypeError, match="cookie_lifetme"):
        SessionConfig(cookie_lifetme=5)  # type: ignore[call-arg]


def test_a_mode_that_is_not_strict_warns_where_it_is_built() -> None:
    with pytest.warns(InsecureConfigWarning, match="use_strict_mode=False") as caught:
        SessionConfig(use_strict_mode=False)

    assert [warning.filename for warning in caught] == [__file__]


def test_a_cookie_lifetime_that_browsers_shorten_warns_where_it_is_built() -> None:
    with pytest.warns(ConfigWarning, match="34560001") as caught:
        SessionConfig(cookie_lifetime=400 * DAY + 1)

    assert [warning.filename for warning in caught] == [__file__]


# The cookie


@pytest.mark.parametrize(
    ("values", "over_https", "over_http"),
    [
        ({}, ("__Host-MINISESSID", True), ("MINISESSID", False)),
        ({"cookie_path": "/app"}, ("MINISESSID", True), ("MINISESSID", False)),
        ({"cookie_domain": "a.org"}, ("MINISESSID", True), ("MINISESSID", False)),
        ({"cookie_secure": True}, ("__Host-MINISESSID", True), ("__Host-MINISESSID", True)),
        ({"cookie_secure": False}, ("MINISESSID", False), ("MINISESSID", False)),
        ({"name": "sid"}, ("sid", True), ("sid", False)),
        ({"name": "__Host-sid"}, ("__Host-sid", True), ("__Host-sid", True)),
        ({"cookie_samesite": "none"}, ("__Host-MINISESSID", True), ("__Host-MINISESSID", True)),
        ({"cookie_partitioned": True}, ("__Host-MINISESSID", True), ("__Host-MINISESSID", True)),
    ],
)
def test_the_cookie_depends_on_the_scheme(
    values: dict[str, Any], over_https: tuple[str, bool], over_http: tuple[str, bool]
) -> None:
    config = SessionConfig(**values)

    found = [(cookie.name, cookie.secure) for cookie in map(config.cookie_for, (True, False))]
    assert found == [over_https, over_http]
    assert config.emits_over(https=True)
    assert config.emits_over(https=False) is not over_http[1]


def test_the_cookie_has_the_configured_attributes() -> None:
    config = SessionConfig(
        name="sid",
        cookie_path="/app",
        cookie_domain=".Example.org",
        cookie_httponly=False,
        cookie_samesite="STRICT",
        cookie_partitioned=True,
    )

    assert config.cookie_for(https=True) == CookieAttributes(
        name="sid",
        path="/app",
        domain="example.org",
        secure=True,
        httponly=False,
        samesite="Strict",
        partitioned=True,
    )
    assert (config.cookie_domain, config.cookie_samesite) == ("example.org", "Strict")


@pytest.mark.parametrize(
    "values",
    [
        {"name": "__Host-sid", "cookie_secure": False},
        {"name": "__Host-sid", "cookie_path": "/app"},
        {"name": "__Secure-sid", "cookie_secure": False},
        {"name": "__Http-sid", "cookie_httponly": False},
        {"cookie_samesite": "None", "cookie_secure": False},
        {"cookie_partitioned": True, "cookie_secure": False},
    ],
)
def test_cookie_fields_that_contradict_each_other_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="browsers drop"):
        SessionConfig(**values)


def test_a_secure_cookie_over_http_is_reported_once_per_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config_module._report_not_sent.cache_clear()
    config = SessionConfig(cookie_secure=True)

    answers = [config.emits_over(https=False) for _ in range(3)]
    config.emits_over(https=True)

    assert answers == [False, False, False]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "X-Forwarded-Proto" in record.getMessage()


@pytest.mark.parametrize(
    ("values", "age", "max_age"),
    [
        ({}, 0, 21600),
        ({"cache_expire": 1}, 9999, 120),
        ({"cache_expire": 0.51}, 0, 62),
        ({"absolute_timeout": 60}, 0, 3600),
        ({"absolute_timeout": 60}, 3000.5, 600),
        ({"absolute_timeout": 60}, 3600, 1),  # on the way out; 0 would delete it
        ({"absolute_timeout": 60}, 5000, 1),
        ({"absolute_timeout": 600}, 0, 21600),
        ({"cache_expire": timedelta(days=365)}, 0, 400 * DAY),
        ({"cookie_lifetime": 3600}, 0, 3600),
        ({"cookie_lifetime": 3600, "absolute_timeout": 1}, 0, 3600),
        ({"cookie_lifetime": None, "absolute_timeout": 1}, 0, None),
    ],
)
def test_the_cookie_lives_as_long_as_the_session_can_or_as_configured(
    values: dict[str, Any], age: float, max_age: int | None
) -> None:
    created = 1_700_000_000.0

    assert SessionConfig(**values).cookie_max_age(created + age, created) == max_age


@given(st.floats(1e-6, 5e6), st.none() | st.floats(1e-6, 5e6), st.floats(0, 4e9), st.floats(0, 1e9))
def test_a_cookie_never_ends_before_an_active_session_could(
    idle: float, absolute: float | None, created: float, age: float
) -> None:
    config = SessionConfig(cache_expire=idle, absolute_timeout=absolute)

    max_age = config.cookie_max_age(created + age, created)

    assert max_age is not None
    assert 1 <= max_age <= 400 * DAY
    session_end = idle * 60 if absolute is None else min(idle * 60, absolute * 60 - age)
    assert max_age >= min(session_end - 1e-3, 400 * DAY)


# Paths


@pytest.mark.parametrize(
    ("patterns", "path", "excluded"),
    [
        ((), "/", False),
        (("/static/*",), "/static/a/b.css", True),
        (("/static/*",), "/static/", True),
        (("/static/*",), "/static", False),
        (("/static/*",), "/x/static/a", False),
        (("/static/*",), "/STATIC/a", False),
        (("/healthz",), "/healthz", True),
        (("/healthz",), "/healthz/", False),
        (("/healthz",), "/healthz\n", False),
        (("/healthz", "*.ico"), "/img/favicon.ico", True),
        (("/v?/ping",), "/v1/ping", True),
        (("/v[12]/ping",), "/v3/ping", False),
        (("*",), "/anything\nat all", True),
        (("/a.b",), "/axb", False),
        (["/list"], "/list", True),
    ],
)
def test_a_path_is_excluded_by_a_pattern_that_matches_all_of_it(
    patterns: Any, path: str, excluded: bool
) -> None:
    assert SessionConfig(exclude=patterns).excludes(path) is excluded


# From the environment


def test_every_field_can_come_from_the_environment() -> None:
    environ = {
        "MINISESSION_NAME": "sid",
        "MINISESSION_CACHE_EXPIRE": "30",
        "MINISESSION_COOKIE_LIFETIME": "3600",
        "MINISESSION_COOKIE_PATH": "/app",
        "MINISESSION_COOKIE_DOMAIN": "example.org",
        "MINISESSION_COOKIE_SECURE": "on",
        "MINISESSION_COOKIE_HTTPONLY": "No",
        "MINISESSION_COOKIE_SAMESITE": "strict",
        "MINISESSION_COOKIE_PARTITIONED": "1",
        "MINISESSION_USE_STRICT_MODE": "TRUE",
        "MINISESSION_CACHE_LIMITER": "none",
        "MINISESSION_ABSOLUTE_TIMEOUT": "0.5",
        "MINISESSION_REFRESH_ON_READ": "off",
        "MINISESSION_ROTATION_GRACE": "2.5",
        "MINISESSION_ON_ERROR": "rollback",
        "MINISESSION_EXCLUDE": "/static/*, /healthz",
        "MINISESSION_SAVE_TIMEOUT": "1",
        "MINISESSION_MAX_SIZE": " 4096 ",
        "MINISESSION_STORE": "sqlite:///sessions.db",
        "UNRELATED": "x",
    }

    config = SessionConfig.from_env(environ)

    assert settings(config) == {
        "name": "sid",
        "cache_expire": 30,
        "cookie_lifetime": 3600,
        "cookie_path": "/app",
        "cookie_domain": "example.org",
        "cookie_secure": True,
        "cookie_httponly": False,
        "cookie_samesite": "Strict",
        "cookie_partitioned": True,
        "use_strict_mode": True,
        "cache_limiter": "none",
        "absolute_timeout": 0.5,
        "refresh_on_read": False,
        "rotation_grace": 2.5,
        "on_error": "rollback",
        "exclude": ("/static/*", "/healthz"),
        "save_timeout": 1,
        "max_size": 4096,
    }


def test_every_field_has_a_spelling_as_text() -> None:
    assert list(READERS) == list(DEFAULTS)


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISESSION_CACHE_EXPIRE", "7")
    monkeypatch.setenv("SHOP_CACHE_EXPIRE", "8")

    assert SessionConfig.from_env().cache_expire == 7
    assert SessionConfig.from_env(prefix="SHOP_").cache_expire == 8


def test_an_empty_variable_means_the_default() -> None:
    environ = {f"MINISESSION_{name.upper()}": " " for name in DEFAULTS}

    assert SessionConfig.from_env(environ) == SessionConfig()


@pytest.mark.parametrize(
    "field", ["cookie_lifetime", "cookie_domain", "cookie_secure", "absolute_timeout"]
)
def test_none_in_a_variable_is_none(field: str) -> None:
    config = SessionConfig.from_env({f"MINISESSION_{field.upper()}": "None"})

    assert getattr(config, field) is None


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CACHE_EXPIRES", "5", "did you mean MINISESSION_CACHE_EXPIRE?"),
        ("SAMESITE", "Lax", "did you mean MINISESSION_COOKIE_SAMESITE?"),
        ("cache_expire", "5", "did you mean MINISESSION_CACHE_EXPIRE?"),
        ("IDLE", "5", "did you mean MINISESSION_"),
        ("", "5", "did you mean MINISESSION_"),
        ("CACHE_EXPIRE", "soon", "MINISESSION_CACHE_EXPIRE='soon': a number"),
        ("CACHE_EXPIRE", "nan", "MINISESSION_CACHE_EXPIRE='nan': a number"),
        ("CACHE_EXPIRE", "-5", "cache_expire=-5"),
        ("CACHE_EXPIRE", "1_0", "MINISESSION_CACHE_EXPIRE='1_0': a number"),
        ("COOKIE_LIFETIME", "1.5", "MINISESSION_COOKIE_LIFETIME='1.5': a whole number"),
        ("COOKIE_LIFETIME", "٣", "MINISESSION_COOKIE_LIFETIME='٣': a whole number"),
        ("COOKIE_LIFETIME", "9" * 5000, "MINISESSION_COOKIE_LIFETIME='9999.*: a whole number"),
        ("MAX_SIZE", "1 MiB", "MINISESSION_MAX_SIZE='1 MiB': a whole number"),
        ("COOKIE_SECURE", "maybe", "MINISESSION_COOKIE_SECURE='maybe': one of on, off"),
        ("EXCLUDE", "/a,,/b", "exclude=''"),
        ("COOKIE_SAMESITE", "loose", "cookie_samesite='loose'"),
    ],
)
def test_a_variable_that_is_wrong_is_refused_with_its_name(
    variable: str, value: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        SessionConfig.from_env({f"MINISESSION_{variable}": value})


# From php.ini


def from_text(tmp_path: Path, text: str, *, insecure: bool = False) -> SessionConfig:
    path = tmp_path / "php.ini"
    path.write_text(text, encoding="utf-8")
    return SessionConfig.from_ini(path, insecure=insecure)


def test_a_stock_php_ini_gives_our_defaults_under_its_own_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = SessionConfig.from_ini(STOCK)

    assert config == SessionConfig(name="PHPSESSID")
    assert {record.name for record in caplog.records} == {"minisession.config"}
    others, strict = [record.getMessage() for record in caplog.records]
    for directive in ("save_handler", "gc_maxlifetime", "use_cookies", "trans_sid_tags"):
        assert f"session.{directive}" in others
    assert "use_strict_mode = 0 is not followed" in strict


def test_an_insecure_php_ini_is_followed_when_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.warns(InsecureConfigWarning):
        config = SessionConfig.from_ini(str(STOCK), insecure=True)

    assert config.use_strict_mode is False
    assert "use_strict_mode" not in caplog.text


def test_a_strict_php_ini_is_followed_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = from_text(tmp_path, "session.use_strict_mode = 1")

    assert config.use_strict_mode is True
    assert not caplog.records


def test_every_directive_that_applies_is_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = from_text(
        tmp_path,
        """
        [Session]
        session.name = SHOP
        session.cache_expire = 30
        session.cookie_lifetime = 3600
        session.cookie_path = /shop
        session.cookie_domain = .example.org
        session.cookie_secure = On
        session.cookie_httponly = Off
        session.cookie_samesite = "Strict"
        session.cookie_partitioned = 1
        session.use_strict_mode = yes
        session.cache_limiter = private
        """,
    )

    assert config == SessionConfig(
        name="SHOP",
        cache_expire=30,
        cookie_lifetime=3600,
        cookie_path="/shop",
        cookie_domain="example.org",
        cookie_secure=True,
        cookie_httponly=False,
        cookie_samesite="Strict",
        cookie_partitioned=True,
        cache_limiter="private",
    )
    assert not caplog.records


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("session.name = SID", "SID"),
        ("session.name=SID", "SID"),
        ("\t session.name \t=\t SID \t", "SID"),
        ("session.name = SID ; a comment", "SID"),
        ("session.name = SID;a comment", "SID"),
        ('session.name = "SID"', "SID"),
        ('session.name = "SID" ; a "comment"', "SID"),
        ("session.name = 'SID'", "SID"),
        ("session.name = 'a$b'", "a$b"),
        ('session.name = "a!b"', "a!b"),
        ("session.name = First\nsession.name = SID", "SID"),
        ("session.name = SID\r\n", "SID"),
        ("\ufeffsession.name = SID", "SID"),
        ("[Session]\nsession.name = SID", "SID"),
        ("", None),
        ("session.name", None),
        ("session.name =", None),
        ("session.name = ; nothing", None),
        ('session.name = ""', None),
        ("session.name = ''", None),
        ("session.name = None", None),
        ("session.name = null", None),
        ("; session.name = SID", None),
        ("# session.name = SID", None),
        ("#session.name = SID", None),
        ("Session.Name = SID", None),
        ("[PATH=/www/site]\nsession.name = SID", None),
        ("[HOST=example.org]\nsession.name = SID\n[PHP]", None),
        ("[HOST=example.org]\nx = 1\n[Session]\nsession.name = SID", "SID"),
        ("error_reporting = E_ALL & ~E_NOTICE\nsession.name = SID", "SID"),
        ('include_path = "${HOME}/lib\nsession.name = SID', "SID"),
    ],
)
def test_php_ini_is_read_as_php_reads_it(tmp_path: Path, line: str, name: str | None) -> None:
    assert from_text(tmp_path, line).name == name


@pytest.mark.parametrize(
    "value",
    ["${NAME}", '"${NAME}"', "A | B", "!x", "~1", "(1)", '"open', "'open", '"a" "b"', "'a' . b"],
)
def test_a_value_that_only_php_can_read_is_refused_with_its_line(
    tmp_path: Path, value: str
) -> None:
    with pytest.raises(ConfigError, match=r"line 2: the value of session\.name .* only PHP"):
        from_text(tmp_path, f"[Session]\nsession.name = {value}")


@pytest.mark.parametrize("spelling", ["1", "On", "on", "Yes", "TRUE", '"true"'])
def test_php_spellings_of_true_are_understood(tmp_path: Path, spelling: str) -> None:
    config = from_text(tmp_path, f"session.cookie_secure = {spelling}")

    assert config.cookie_secure is True


@pytest.mark.parametrize("spelling", ["0", "Off", "no", "False", "'off'"])
def test_php_spellings_of_false_are_understood(tmp_path: Path, spelling: str) -> None:
    config = from_text(tmp_path, f"session.cookie_secure = {spelling}")

    assert config.cookie_secure is False


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "session.cache_expire = 1h",
            "session.cache_expire='1h': a number such as 30 or 0.5 is allowed",
        ),
        ("session.cookie_secure = 2", "session.cookie_secure='2': one of on, off"),
        ("session.cookie_lifetime = -1", "cookie_lifetime=-1 is not allowed"),
        ("session.cookie_path = app", "cookie_path='app'"),
        ("session.name = sess\u00efon", "name='sess\u00efon'"),
        ('session.cookie_samesite = "None"\nsession.cookie_secure = 0', "cookie_samesite"),
    ],
)
def test_a_php_ini_value_that_is_not_allowed_is_refused(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_text(tmp_path, line)


def test_a_php_ini_in_another_encoding_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "php.ini"
    path.write_bytes(b"; r\xe9sum\xe9\nsession.name = SID\n")

    assert SessionConfig.from_ini(path).name == "SID"


@pytest.mark.parametrize("missing", ["absent.ini", "."])
def test_a_php_ini_that_cannot_be_read_is_refused(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        SessionConfig.from_ini(tmp_path / missing)
