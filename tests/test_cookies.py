"""Cookies as browsers send and take them; the judge is a user agent written after RFC 6265bis."""

from __future__ import annotations

import json
import logging
import re
import time
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from minisession import config as config_module
from minisession._cookies import CookieAttributes, delete_cookie, read_cookie, set_cookie
from minisession.config import SessionConfig
from minisession.errors import ConfigError
from tests.acceptance import ua_oracle

Jar: Any = ua_oracle.Jar  # a browser's cookie jar; the file comes without annotations
ACCEPTANCE = Path(__file__).parent / "acceptance"
NOW = 1_700_000_000.5
VALUE = "AAAAAAAAAAAAAAAAAAAAAA.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"


def expand(text: str) -> str:
    """Spell out the macro `{{REP text n}}` of the case files: the text, n times."""
    return re.sub(r"\{\{REP ((?:.|\n)*?) (\d+)\}\}", lambda match: match[1] * int(match[2]), text)


def cases(file: str, *expected: str) -> list[Any]:
    """The cases of a file as parameters; only those that expect one of `expected`, if given."""
    found = json.loads((ACCEPTANCE / file).read_text(encoding="utf-8"))
    chosen = [case for case in found if not expected or case["expect"] in expected]
    assert chosen
    return [pytest.param(case, id=case["id"]) for case in chosen]


def cookie_fields(case: dict[str, Any]) -> list[bytes]:
    header = case["header"]
    texts = [header] if isinstance(header, str) else header
    return [expand(text).encode("latin-1") for text in texts]


def answer(case: dict[str, Any]) -> tuple[SessionConfig, str | None]:
    """Build the case's configuration; what a response to its URL then sets, None for nothing."""
    given = case["config"]
    config = SessionConfig(
        name=given["name"],
        cookie_path=given["path"],
        cookie_domain=given["domain"],
        cookie_secure=given["secure"],
        cookie_httponly=given["httponly"],
        cookie_samesite=given["samesite"],
        cookie_partitioned=given["partitioned"],
        # The cases give the attribute as it is sent. As a lifetime, 0 would mean "long enough".
        cookie_lifetime=given["max_age"] or None,
    )
    https = case["url"].startswith("https:")
    if not config.emits_over(https):
        return config, None
    cookie = set_cookie(config.cookie_for(https), case["value"], given["max_age"], NOW)
    return config, cookie.decode("latin-1")


def store(jar: Any, set_cookie_field: str, url: str) -> tuple[bool, object]:
    at = urlsplit(url)
    stored: tuple[bool, object] = jar.set(
        set_cookie_field, at.hostname, at.path, secure=at.scheme == "https"
    )
    return stored


def sent_back(jar: Any, url: str) -> list[tuple[str, str]]:
    at = urlsplit(url)
    found = jar.header(at.hostname, at.path, secure=at.scheme == "https")
    return [(record["name"], record["value"]) for record in found]


# Reading


@pytest.mark.parametrize("case", cases("cookie_cases.json"))
def test_reading_finds_what_the_case_expects(case: dict[str, Any]) -> None:
    headers = cookie_fields(case)

    began = time.process_time()
    values = read_cookie(headers, case["name"])
    took_ms = (time.process_time() - began) * 1000

    expected = None if case["expect"] is None else expand(case["expect"])
    assert (values[0] if values else None) == expected
    assert took_ms < case.get("max_ms", 20)


def test_all_distinct_values_are_returned_in_the_order_of_their_first_appearance() -> None:
    headers = [b"sid=b; sid=a", b"sid=b; sid=c"]

    assert read_cookie(headers, "sid") == ["b", "a", "c"]


@pytest.mark.parametrize("name", ["__Host-sid", "__host-sid", "__HOST-Http-sid"])
def test_two_values_under_a_host_prefix_are_both_refused_in_any_case_of_the_prefix(
    name: str,
) -> None:
    header = f"{name}=a; {name}=b".encode()

    assert read_cookie([header], name) == []


def test_a_control_character_in_another_cookie_hides_nothing() -> None:
    assert read_cookie([b"a=\x00; sid=x; b=\x7f"], "sid") == ["x"]


def test_a_pair_with_a_control_character_does_not_hide_the_next_one() -> None:
    assert read_cookie([b"sid=\x01; sid=x"], "sid") == ["x"]


@pytest.mark.parametrize("space", ["\x0b", "\x0c", "\x85", "\xa0"])
def test_only_sp_and_htab_count_as_white_space(space: str) -> None:
    assert read_cookie([f"{space}sid=x".encode("latin-1")], "sid") == []
    assert read_cookie([b"\t sid \t=\t x \t"], "sid") == ["x"]


def test_a_header_full_of_different_values_is_read_in_linear_time() -> None:
    header = b"; ".join(b"sid=%d" % n for n in range(50_000))

    began = time.process_time()
    values = read_cookie([header], "sid")
    took = time.process_time() - began

    assert len(values) == 50_000
    assert took < 0.5


def naive_read(headers: list[bytes], name: str) -> list[str]:
    """RFC 6265bis and the policy again, octet by octet."""
    wanted, values, pair = name.encode("latin-1"), [], b""
    for octet in [*b"; ".join(headers), ord(";")]:
        if octet != ord(";"):
            pair += bytes([octet])
            continue
        if b"=" in pair and not any((o < 32 and o != 9) or o == 127 for o in pair):
            at = pair.index(b"=")
            value = pair[at + 1 :].strip(b" \t").decode("latin-1")
            if pair[:at].strip(b" \t") == wanted and value not in values:
                values.append(value)
        pair = b""
    return [] if len(values) > 1 and name.lower().startswith("__host-") else values


COOKIE_TEXT = st.lists(
    st.sampled_from(["sid", "__Host-sid", "=", ";", " ", "\t", "\x00", "\x7f", '"', "x", "\xff"])
).map("".join)


@given(st.lists(COOKIE_TEXT | st.text(st.characters(max_codepoint=255))), st.booleans())
@example(["__Host-sid=a", "__Host-sid=b"], True)
def test_reading_any_cookie_header_agrees_with_a_naive_reader(
    texts: list[str], prefixed: bool
) -> None:
    name = "__Host-sid" if prefixed else "sid"
    headers = [text.encode("latin-1") for text in texts]

    assert read_cookie(headers, name) == naive_read(headers, name)


# Writing


@pytest.mark.parametrize("case", cases("setcookie_cases.json", "raise"))
def test_a_cookie_that_a_browser_would_drop_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        answer(case)


@pytest.mark.parametrize("case", cases("setcookie_cases.json", "warn"))
def test_a_cookie_that_a_browser_would_not_keep_as_meant_is_reported(
    case: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config_module._report_not_sent.cache_clear()

    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        _, cookie = answer(case)

    assert len(warned) + len(caplog.records) == 1
    if cookie is None:
        assert case["ua_verdict"] != "stored"
    else:
        assert store(Jar(now=NOW), cookie, case["url"])[0]


@pytest.mark.parametrize("case", cases("setcookie_cases.json", "stored", "stored-not-returned"))
def test_a_cookie_is_stored_and_sent_back_where_it_should_be(case: dict[str, Any]) -> None:
    jar = Jar(now=NOW)

    _, cookie = answer(case)

    assert cookie is not None
    assert store(jar, cookie, case["url"])[0]
    returned = [(case["config"]["name"], case["value"])] if case["expect"] == "stored" else []
    assert sent_back(jar, case["back"]) == returned


@pytest.mark.parametrize("case", cases("setcookie_cases.json", "deleted"))
def test_a_deleted_cookie_is_gone_from_the_browser(case: dict[str, Any]) -> None:
    jar = Jar(now=NOW)
    config, cookie = answer(case)
    assert cookie is not None
    assert store(jar, cookie, case["url"])[0]

    deletion = delete_cookie(config.cookie_for(https=True)).decode("latin-1")

    assert store(jar, deletion, case["url"])[0]
    assert sent_back(jar, case["back"]) == []


def test_a_set_cookie_field_has_every_attribute_in_a_fixed_order() -> None:
    attributes = CookieAttributes(
        "__Secure-a", "/app", ".Example.ORG", samesite="none", partitioned=True
    )

    assert set_cookie(attributes, VALUE, 3600, 0.9) == (
        f"__Secure-a={VALUE}; Max-Age=3600; Expires=Thu, 01 Jan 1970 01:00:00 GMT; Path=/app; "
        "Domain=example.org; Secure; HttpOnly; SameSite=None; Partitioned"
    ).encode("ascii")


def test_a_cookie_without_max_age_has_no_expires_either() -> None:
    cookie = set_cookie(CookieAttributes("a", secure=False, httponly=False), "v", None, NOW)

    assert cookie == b"a=v; Path=/; SameSite=Lax"


def test_a_deletion_repeats_every_attribute() -> None:
    attributes = CookieAttributes("a", "/app", "example.org", samesite="Strict", partitioned=True)

    assert delete_cookie(attributes) == (
        b"a=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/app; Domain=example.org; "
        b"Secure; HttpOnly; SameSite=Strict; Partitioned"
    )


@pytest.mark.parametrize("value", ["a b", "a;b", "a\r\nb", 'a"b', "a,b", "a\\b", "é", "\x7f"])
def test_a_value_that_cannot_be_sent_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(ValueError, match="cookie-octets") as error:
        set_cookie(CookieAttributes("a"), value, None, NOW)

    assert value not in str(error.value)


def test_a_pair_too_long_for_browsers_is_refused() -> None:
    attributes = CookieAttributes("a")

    assert set_cookie(attributes, "v" * 4095, None, NOW).startswith(b"a=v")
    with pytest.raises(ConfigError, match="4096"):
        set_cookie(attributes, "v" * 4096, None, NOW)


@pytest.mark.parametrize("max_age", [0, -1, 1.0, True, "60", 3650 * 86400 + 1])
def test_a_max_age_that_is_no_future_is_refused(max_age: Any) -> None:
    with pytest.raises(ConfigError, match="Max-Age"):
        set_cookie(CookieAttributes("a"), "v", max_age, NOW)


@pytest.mark.parametrize(
    ("domain", "kept"),
    [
        ("example.org", "example.org"),
        (".example.org", "example.org"),
        ("Sub.EXAMPLE.org", "sub.example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("4chan.org", "4chan.org"),
        (f"{'a' * 63}.org", f"{'a' * 63}.org"),
    ],
)
def test_a_cookie_domain_is_kept_as_browsers_compare_it(domain: str, kept: str) -> None:
    assert CookieAttributes("a", domain=domain).domain == kept


@pytest.mark.parametrize(
    "domain",
    [
        "",
        ".",
        "..example.org",
        "example..org",
        "example.org.",
        "-a.org",
        "a-.org",
        "a_b.org",
        "exa mple.org",
        "example.org\n",
        "example.org; Path=/x",
        "https://example.org",
        "example.org/app",
        "user@example.org",
        "*.example.org",
        "bücher.example",
        "\u212aelvin.org",
        f"{'a' * 64}.org",
        ".".join(["a" * 49] * 6),
        "org",
        "localhost",
        "127.0.0.1",
        "127.1",
        "10.0.0.0x1f",
        "[::1]",
        "::1",
        b"example.org",
    ],
)
def test_a_cookie_domain_that_browsers_would_not_take_is_refused(domain: Any) -> None:
    with pytest.raises(ConfigError, match="cookie_domain"):
        CookieAttributes("a", domain=domain)


@pytest.mark.parametrize("path", ["/", "/app", "/app/", "/a%20b", "/~me/(x)", "/" + "a" * 1023])
def test_a_cookie_path_that_a_request_can_have_is_taken(path: str) -> None:
    jar = Jar(now=NOW)
    field = set_cookie(CookieAttributes("a", path), "v", None, NOW).decode()

    assert store(jar, field, "https://example.org/elsewhere")[0]
    assert sent_back(jar, f"https://example.org{path}") == [("a", "v")]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "app",
            "/a;b",
            "/a b",
            "/a\t",
            "/a\n",
            "/é",
            "/a?b",
            "/a#b",
            '/"a"',
            "/a\\b",
            "/{id}",
        ),
        pytest.param("/" + "a" * 1024, id="long"),
        None,
        5,
    ],
)
def test_a_cookie_path_that_no_request_can_have_is_refused(path: Any) -> None:
    with pytest.raises(ConfigError, match="cookie_path"):
        CookieAttributes("a", path)


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a=b", "a;b", "a,b", "a\tb", "é", 'a"', "a[b]", "a/b", "a\n", "a" * 4042, 5, b"a"],
)
def test_a_cookie_name_that_is_no_token_or_leaves_no_room_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="name"):
        CookieAttributes(name)


def test_the_longest_cookie_name_leaves_room_for_an_id() -> None:
    longest = CookieAttributes("a" * 4041)

    assert store(Jar(now=NOW), set_cookie(longest, VALUE, None, NOW).decode(), "https://a.org/")[0]


@pytest.mark.parametrize(
    ("name", "attributes", "missing"),
    [
        ("__Secure-a", {"secure": False}, "cookie_secure=True"),
        ("__secure-a", {"secure": False}, "cookie_secure=True"),
        ("__Host-a", {"secure": False}, "cookie_secure=True"),
        ("__HOST-a", {"path": "/app"}, 'cookie_path="/"'),
        ("__Host-a", {"domain": "example.org"}, "cookie_domain=None"),
        ("__Http-a", {"secure": False}, "cookie_secure=True"),
        ("__Http-a", {"httponly": False}, "cookie_httponly=True"),
        ("__Host-Http-a", {"httponly": False}, "cookie_httponly=True"),
        ("__Host-Http-a", {"path": "/app"}, 'cookie_path="/"'),
    ],
)
def test_a_prefixed_cookie_name_is_held_to_the_rules_of_its_prefix(
    name: str, attributes: dict[str, Any], missing: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(missing)):
        CookieAttributes(name, **attributes)


@pytest.mark.parametrize("flag", ["secure", "httponly", "partitioned"])
@pytest.mark.parametrize("value", [1, 0, None, "true"])
def test_a_cookie_flag_is_true_or_false(flag: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"cookie_{flag}"):
        CookieAttributes("a", **{flag: value})


@pytest.mark.parametrize("samesite", [None, "", "Lax;", "lax ", 1, "no_restriction"])
def test_a_cookie_samesite_is_one_of_three_strings(samesite: Any) -> None:
    with pytest.raises(ConfigError, match="cookie_samesite"):
        CookieAttributes("a", samesite=samesite)


NAMES = st.sampled_from(
    [None, "a", "__Host-a", "__hOsT-a", "__Secure-a", "__Http-a", "__Host-Http-a", "$x", "Path"]
)
DOMAINS = st.sampled_from([None, "example.org", ".App.example.org", "org", "localhost", "1.2.3.4"])
PATHS = st.sampled_from(["/", "/app", "/app/", "/a%20b", "app", "/a;b", "/a\x07"])
TEXT = st.text(st.characters(max_codepoint=383), max_size=8)  # up to \u017f, which lowers to s
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES | TEXT,
        "cookie_path": PATHS | TEXT.map("/".__add__),
        "cookie_domain": DOMAINS | TEXT.map(lambda text: f"{text}.org"),
        "cookie_secure": st.none() | st.booleans(),
        "cookie_httponly": st.booleans(),
        "cookie_samesite": st.sampled_from(["Lax", "strict", "NONE"]) | TEXT,
        "cookie_partitioned": st.booleans(),
        "cookie_lifetime": st.none() | st.integers(0, 400 * 86400),
    },
)


@given(CONFIGS, st.booleans())
def test_no_configuration_that_builds_makes_a_cookie_that_a_browser_drops(
    values: dict[str, Any], https: bool
) -> None:
    try:
        config = SessionConfig(**values)
    except ConfigError:
        assume(False)
    assume(config.emits_over(https))
    attributes = config.cookie_for(https)
    jar = Jar(now=NOW)
    url = f"{'https' if https else 'http'}://{attributes.domain or 'example.org'}{attributes.path}"

    cookie = set_cookie(attributes, VALUE, config.cookie_max_age(NOW, NOW), NOW)
    stored, record = store(jar, cookie.decode("ascii"), url)

    assert stored, record
    assert sent_back(jar, url) == [(attributes.name, VALUE)]
    assert store(jar, delete_cookie(attributes).decode("ascii"), url)[0]
    assert sent_back(jar, url) == []


@given(
    st.from_regex(r"[!#-+\--:<-\[\]-~]{0,64}", fullmatch=True),
    st.none() | st.integers(1, 400 * 86400),
    st.floats(0, 4e9),
)
def test_what_is_set_comes_back_until_it_expires(
    value: str, max_age: int | None, now: float
) -> None:
    attributes = CookieAttributes("__Host-a")
    jar = Jar()

    stored, record = jar.set(
        set_cookie(attributes, value, max_age, now).decode(), "a.org", "/", secure=True, now=now
    )

    assert stored
    assert (record["name"], record["value"]) == ("__Host-a", value)
    assert record["expiry"] == (None if max_age is None else now + max_age)
    assert jar.header("a.org", "/", secure=True, now=now)
    if max_age is not None:
        assert not jar.header("a.org", "/", secure=True, now=now + max_age)


@given(st.integers(1, 400 * 86400), st.floats(0, 4e9))
def test_expires_says_the_same_moment_as_max_age(max_age: int, now: float) -> None:
    cookie = set_cookie(CookieAttributes("a"), "v", max_age, now).decode()
    without_max_age = cookie.replace(f" Max-Age={max_age};", "")
    jar = Jar()

    _, record = jar.set(without_max_age, "a.org", "/", secure=True, now=now)

    assert record["expiry"] == pytest.approx(int(now + max_age), abs=1)
