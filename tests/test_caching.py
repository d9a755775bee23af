"""The cache policy: what caches may do with a response shrinks, and never grows."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisession._caching import CACHE_LIMITERS, Headers, add_vary_cookie, apply_cache_limiter

N = 10800  # seconds: what the limiters are given here as max-age
LONG_AGO = (b"expires", b"Thu, 01 Jan 1970 00:00:00 GMT")
NO_CACHE = (b"pragma", b"no-cache")
DATE = (b"Date", b"Thu, 01 Jan 2026 00:00:00 GMT")
IN_AN_HOUR = (b"Expires", b"Thu, 01 Jan 2026 01:00:00 GMT")


def cache_control(headers: Headers) -> str | None:
    """The one Cache-Control of a response, or None."""
    fields = [value for name, value in headers if name.lower() == b"cache-control"]
    assert len(fields) < 2
    return fields[0].decode("latin-1") if fields else None


# Existing Cache-Control (None: no such field) -> what each mode makes of it.
STRICT = "no-store, no-cache, must-revalidate"
TABLE: list[tuple[str | None, str, str, str, str]] = [
    # existing, nocache, private, public, private_no_expire
    (None, STRICT, "private, max-age=10800", "public, max-age=10800", "private"),
    ("", STRICT, "private, max-age=10800", "public, max-age=10800", "private"),
    ("no-store", STRICT, "private, no-store", "no-store", "private, no-store"),
    ("No-Store", STRICT, "private, no-store", "no-store", "private, no-store"),
    ("no-store=1", STRICT, "private, no-store", "no-store", "private, no-store"),
    (
        "no-cache",
        STRICT,
        "private, no-cache, max-age=10800",
        "public, no-cache, max-age=10800",
        "private, no-cache",
    ),
    (
        'no-cache="Set-Cookie, X"',
        STRICT,
        'private, no-cache="Set-Cookie, X", max-age=10800',
        'public, no-cache="Set-Cookie, X", max-age=10800',
        'private, no-cache="Set-Cookie, X"',
    ),
    (
        'no-cache="a", no-cache',
        STRICT,
        "private, no-cache, max-age=10800",
        "public, no-cache, max-age=10800",
        "private, no-cache",
    ),
    (
        'no-cache=""',
        STRICT,
        "private, no-cache, max-age=10800",
        "public, no-cache, max-age=10800",
        "private, no-cache",
    ),
    (
        "private",
        f"{STRICT}, private",
        "private, max-age=10800",
        "private, max-age=10800",
        "private",
    ),
    (
        'private="x-user"',
        f'{STRICT}, private="x-user"',
        "private, max-age=10800",
        'private="x-user", max-age=10800',
        "private",
    ),
    ("public", STRICT, "private, max-age=10800", "public, max-age=10800", "private"),
    (
        "public, max-age=31536000, immutable",
        STRICT,
        "private, max-age=10800",
        "public, max-age=10800",
        "private, max-age=31536000",
    ),
    ("max-age=60", STRICT, "private, max-age=60", "public, max-age=60", "private, max-age=60"),
    ("max-age=0", STRICT, "private, max-age=0", "public, max-age=0", "private, max-age=0"),
    ("MAX-AGE=60", STRICT, "private, max-age=60", "public, max-age=60", "private, max-age=60"),
    ('max-age="60"', STRICT, "private, max-age=60", "public, max-age=60", "private, max-age=60"),
    ("max-age=060", STRICT, "private, max-age=60", "public, max-age=60", "private, max-age=60"),
    (
        "max-age=90, max-age=60",
        STRICT,
        "private, max-age=60",
        "public, max-age=60",
        "private, max-age=60",
    ),
    (
        "max-age=60, max-age=90",
        STRICT,
        "private, max-age=60",
        "public, max-age=60",
        "private, max-age=60",
    ),
    *(
        (invalid, STRICT, "private, max-age=0", "public, max-age=0", "private, max-age=0")
        for invalid in (
            "max-age",
            "max-age=",
            "max-age=-5",
            "max-age=1.5",
            "max-age=1h",
            "max-age=²",
        )
    ),
    (
        f"max-age={'9' * 5000}",
        STRICT,
        "private, max-age=10800",
        "public, max-age=10800",
        "private, max-age=2147483648",
    ),
    (
        "s-maxage=60",
        STRICT,
        "private, max-age=10800",
        "public, s-maxage=60, max-age=10800",
        "private",
    ),
    (
        "s-maxage=99999, max-age=60",
        STRICT,
        "private, max-age=60",
        "public, s-maxage=10800, max-age=60",
        "private, max-age=60",
    ),
    (
        "must-revalidate, proxy-revalidate, no-transform",
        f"{STRICT}, proxy-revalidate, no-transform",
        "private, must-revalidate, proxy-revalidate, no-transform, max-age=10800",
        "public, must-revalidate, proxy-revalidate, no-transform, max-age=10800",
        "private, must-revalidate, proxy-revalidate, no-transform",
    ),
    (
        "max-age=60, stale-while-revalidate=600, stale-if-error=86400",
        STRICT,
        "private, max-age=60",
        "public, max-age=60",
        "private, max-age=60",
    ),
    (
        "must-understand, no-store, max-age=60",
        STRICT,
        "private, no-store, max-age=60",
        "no-store, max-age=60",
        "private, no-store, max-age=60",
    ),
    (
        "must-understand",
        STRICT,
        "private, must-understand, max-age=10800",
        "public, must-understand, max-age=10800",
        "private, must-understand",
    ),
    (
        'community="U, C\\" I", x, y=1, y=2',
        f'{STRICT}, community="U, C\\" I", x, y=1, y=2',
        'private, community="U, C\\" I", x, y=1, y=2, max-age=10800',
        'public, community="U, C\\" I", x, y=1, y=2, max-age=10800',
        'private, community="U, C\\" I", x, y=1, y=2',
    ),
    (
        'x="never closed, no-store',
        f'{STRICT}, x="never closed, no-store',
        'private, x="never closed, no-store, max-age=10800',
        'public, x="never closed, no-store, max-age=10800',
        'private, x="never closed, no-store',
    ),
    (" , no-store ,, ", STRICT, "private, no-store", "no-store", "private, no-store"),
]


@pytest.mark.parametrize(
    ("existing", "limiter", "expected"),
    [
        pytest.param(existing, limiter, row[i], id=f"{limiter}-{str(existing)[:40]}")
        for existing, *row in TABLE
        for i, limiter in enumerate(("nocache", "private", "public", "private_no_expire"))
    ],
)
def test_a_limiter_makes_an_existing_cache_control_stricter(
    existing: str | None, limiter: str, expected: str
) -> None:
    headers = [] if existing is None else [(b"Cache-Control", existing.encode("latin-1"))]

    assert cache_control(apply_cache_limiter(headers, limiter, N)) == expected


@pytest.mark.parametrize(
    ("limiter", "existing", "expected"),
    [
        ("nocache", [], [NO_CACHE, LONG_AGO]),
        ("nocache", [(b"Pragma", b"x"), DATE, IN_AN_HOUR], [DATE, NO_CACHE, LONG_AGO]),
        ("private", [], [LONG_AGO]),
        ("private", [(b"Pragma", b"x"), IN_AN_HOUR], [(b"Pragma", b"x"), LONG_AGO]),
        ("public", [DATE, IN_AN_HOUR], [DATE, IN_AN_HOUR]),
        ("private_no_expire", [DATE, IN_AN_HOUR], [DATE, IN_AN_HOUR]),
    ],
)
def test_the_fields_of_old_caches_follow_the_limiter(
    limiter: str, existing: Headers, expected: Headers
) -> None:
    result = apply_cache_limiter(existing, limiter, N)

    assert [item for item in result if item[0] != b"cache-control"] == expected


def test_the_limiter_none_leaves_the_headers_as_they_are() -> None:
    headers = [(b"Cache-Control", b"public"), (b"Pragma", b"x"), DATE, IN_AN_HOUR]

    assert apply_cache_limiter(headers, "none", N) == headers


def test_several_cache_control_fields_count_as_one_list() -> None:
    headers = [(b"Cache-Control", b"max-age=60"), (b"x", b"y"), (b"CACHE-CONTROL", b"private, a")]

    result = apply_cache_limiter(headers, "public", N)

    assert result == [(b"x", b"y"), (b"cache-control", b"max-age=60, private, a")]


def test_the_headers_that_were_given_are_not_changed() -> None:
    headers = [(b"cache-control", b"public"), (b"vary", b"accept")]
    before = list(headers)

    for limiter in CACHE_LIMITERS:
        apply_cache_limiter(headers, limiter, N)
    add_vary_cookie(headers)

    assert headers == before


@pytest.mark.parametrize(
    ("expires", "max_age"),
    [
        ([DATE, IN_AN_HOUR], 3600),
        ([DATE, (b"expires", b"Thursday, 01-Jan-26 01:00:00 GMT")], 3600),  # RFC 850
        ([DATE, (b"expires", b"Thu Jan  1 01:00:00 2026")], 3600),  # asctime
        ([DATE, (b"expires", b"Thu, 01 Jan 2099 00:00:00 GMT")], N),
        ([DATE, LONG_AGO], 0),
        ([DATE, (b"expires", b"0")], 0),
        ([DATE, (b"expires", b"-1")], 0),
        ([DATE, (b"expires", b"")], 0),
        ([DATE, (b"expires", b"Thu, 99 Jan 2026 01:00:00 GMT")], 0),
        ([DATE, (b"expires", b"Thu, 01 Jan 0000 01:00:00 GMT")], 0),
        ([DATE, IN_AN_HOUR, IN_AN_HOUR], 0),
        ([IN_AN_HOUR], 0),  # without a Date nobody knows how long that is
        ([(b"date", b"now"), IN_AN_HOUR], 0),
    ],
)
def test_a_max_age_is_never_longer_than_the_expires_that_it_overrides(
    expires: Headers, max_age: int
) -> None:
    private = apply_cache_limiter(expires, "private", N)

    assert cache_control(private) == f"private, max-age={max_age}"


def test_an_existing_max_age_counts_rather_than_expires() -> None:
    headers = [DATE, LONG_AGO, (b"cache-control", b"max-age=60")]

    assert cache_control(apply_cache_limiter(headers, "public", N)) == "public, max-age=60"


@pytest.mark.parametrize("limiter", ["private", "public", "private_no_expire"])
def test_a_pragma_without_cache_control_still_means_no_cache(limiter: str) -> None:
    result = apply_cache_limiter([(b"Pragma", b"No-Cache")], limiter, N)

    assert "no-cache" in (cache_control(result) or "")
    assert (b"Pragma", b"No-Cache") in result


@pytest.mark.parametrize(
    "name", [b"CDN-Cache-Control", b"cloudflare-cdn-cache-control", b"Surrogate-Control"]
)
@pytest.mark.parametrize("limiter", CACHE_LIMITERS)
def test_a_field_for_shared_caches_alone_stays_only_where_they_may_store(
    name: bytes, limiter: str
) -> None:
    headers = [(name, b"max-age=600")]

    kept = headers[0] in apply_cache_limiter(headers, limiter, N)

    assert kept == (limiter in {"public", "none"})


# The property. What a response permits, each as a number that is larger where more is permitted. An
# explicit `public` also opens responses to authorized requests; that is what the mode `public` is
# asked for, so it is not counted.


class Permits(NamedTuple):
    store: int
    shared_store: int  # 2: all of it, 1: without some fields
    shared_fresh: float  # seconds; infinite where the cache may guess
    private_fresh: float
    unvalidated: int  # reuse without asking: 2 all of it, 1 without some fields
    stale: float  # seconds beyond freshness
    stale_at_all: int
    shared_stale_at_all: int
    reload_unvalidated: int
    transform: int
    any_status: int


def permits(headers: Headers) -> Permits:
    said: dict[str, str] = {}
    for element in (cache_control(headers) or "").lower().split(", "):
        name, _, argument = element.partition("=")
        said[name] = argument
    private_fresh = shared_fresh = float("inf")
    if (b"expires", LONG_AGO[1]) in headers:
        private_fresh = shared_fresh = 0
    if "max-age" in said:
        private_fresh = shared_fresh = int(said["max-age"])
    if "s-maxage" in said:
        shared_fresh = int(said["s-maxage"])
    restricted = {name: 2 if name not in said else 1 if said[name] else 0 for name in FIELD_LISTS}
    stored = "no-store" not in said or "must-understand" in said
    shared = restricted["private"] if stored else 0
    return Permits(
        store=stored,
        shared_store=shared,
        shared_fresh=shared_fresh if shared else 0,
        private_fresh=private_fresh,
        unvalidated=restricted["no-cache"],
        stale=max(int(said.get(f"stale-{name}", 0)) for name in ("while-revalidate", "if-error")),
        stale_at_all="must-revalidate" not in said,
        shared_stale_at_all=bool(shared)
        and not {"must-revalidate", "proxy-revalidate", "s-maxage"} & said.keys(),
        reload_unvalidated="immutable" in said,
        transform="no-transform" not in said,
        any_status="must-understand" not in said,
    )


FIELD_LISTS = ("no-cache", "private")
SECONDS = st.sampled_from([0, 1, 60, N - 1, N, N + 1, 31536000]).map(str)
DIRECTIVES = st.one_of(
    st.sampled_from(
        [
            *("no-store", "no-cache", "private", "public", "must-revalidate", "proxy-revalidate"),
            *("no-transform", "immutable", "must-understand", 'no-cache="a"', 'private="a"', "x"),
        ]
    ),
    st.builds(
        "{}={}".format,
        st.sampled_from(
            ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "x-future"]
        ),
        SECONDS,
    ),
)
MODES: dict[str, Headers] = {
    "nocache": [(b"cache-control", STRICT.encode()), NO_CACHE, LONG_AGO],
    "private": [(b"cache-control", f"private, max-age={N}".encode()), LONG_AGO],
    "public": [(b"cache-control", f"public, max-age={N}".encode())],
    "private_no_expire": [(b"cache-control", b"private")],
}


def reuse(permitted: Permits) -> Permits:
    """What is permitted, where storing is not: nothing else then matters."""
    return permitted if permitted.store else Permits(*[0] * len(Permits._fields))


@given(
    st.lists(DIRECTIVES, unique_by=lambda directive: directive.partition("=")[0]),
    st.booleans(),
    st.sampled_from([*MODES]),
)
def test_the_result_never_permits_what_the_response_or_the_limiter_forbids(
    directives: list[str], expired: bool, limiter: str
) -> None:
    headers: Headers = [(b"expires", LONG_AGO[1])] if expired else []
    if directives:
        headers.append((b"cache-control", ", ".join(directives).encode()))

    result = apply_cache_limiter(headers, limiter, N)

    permitted = reuse(permits(result))
    for source in (headers, MODES[limiter]):
        for name, now, before in zip(
            Permits._fields, permitted, reuse(permits(source)), strict=True
        ):
            assert now <= before, (name, result)


@given(st.lists(DIRECTIVES), st.sampled_from(CACHE_LIMITERS))
def test_applying_a_limiter_twice_changes_nothing_more(directives: list[str], limiter: str) -> None:
    once = apply_cache_limiter([(b"cache-control", ",".join(directives).encode())], limiter, N)

    assert sorted(apply_cache_limiter(once, limiter, N)) == sorted(once)


@given(st.text(st.characters(max_codepoint=255)), st.sampled_from([*MODES]))
def test_no_existing_cache_control_makes_a_limiter_fail_or_weaker(text: str, limiter: str) -> None:
    headers = [(b"cache-control", text.encode("latin-1"))]

    result = apply_cache_limiter(headers, limiter, N)

    field = cache_control(result) or ""
    assert limiter == "public" or field.split(", ")[0] in {"no-store", "private"}


@pytest.mark.parametrize("text", ['"', '"\\', ",", '",', "a"])
def test_a_long_cache_control_is_read_in_linear_time(text: str) -> None:
    headers = [(b"cache-control", text.encode() * 100_000)]

    began = time.process_time()
    apply_cache_limiter(headers, "private", N)

    assert time.process_time() - began < 1


# Vary


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        ([], [b"Cookie"]),
        ([b"Accept"], [b"Accept, Cookie"]),
        ([b""], [b"Cookie"]),
        ([b"Accept", b"Accept-Language"], [b"Accept, Accept-Language, Cookie"]),
        ([b"Accept, accept,Origin"], [b"accept, Origin, Cookie"]),
        ([b"cookie"], [b"cookie"]),
        ([b"Accept, COOKIE"], [b"Accept, COOKIE"]),
        ([b"*"], [b"*"]),
        ([b"Accept", b"*"], [b"Accept", b"*"]),
        ([b"X-Cookie"], [b"X-Cookie, Cookie"]),
    ],
)
def test_vary_names_cookie_once(existing: list[bytes], expected: list[bytes]) -> None:
    headers = [(b"Vary", value) for value in existing]

    result = add_vary_cookie([(b"x", b"y"), *headers])

    assert result[0] == (b"x", b"y")
    assert [value for name, value in result if name.lower() == b"vary"] == expected


def test_adding_cookie_to_vary_twice_changes_nothing_more() -> None:
    once = add_vary_cookie([(b"vary", b"Accept")])

    assert add_vary_cookie(once) == once
