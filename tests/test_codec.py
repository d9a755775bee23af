"""Values: what is stored comes back equal, of the same type and order, or was refused by name."""

from __future__ import annotations

import copy
import dataclasses
import decimal
import json
import re
import sys
import threading
from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minisession import _codec
from minisession.errors import StoreCorrupt, UnstorableValue

PATH = 'session["cart"]'
PARIS = ZoneInfo("Europe/Paris")
unhurried = settings(deadline=None)  # the machine of a test run is shared


def encode(value: object) -> bytes:
    return _codec.encode(value, PATH)


def refusal(value: object) -> str:
    with pytest.raises(UnstorableValue) as caught:
        encode(value)
    assert caught.value.__cause__ is None
    return str(caught.value)


def same(a: Any, b: Any) -> bool:
    """Equal, and of one type at every level; and what `==` overlooks: order, sign, fold, zone."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, set):
        twins = {x: x for x in b}
        return len(a) == len(b) and all(x in twins and same(x, twins[x]) for x in a)
    if isinstance(a, datetime):
        return a == b and a.fold == b.fold and same_zone(a.tzinfo, b.tzinfo)
    if isinstance(a, float | Decimal):
        return repr(a) == repr(b)
    return bool(a == b)


def same_zone(a: tzinfo | None, b: tzinfo | None) -> bool:
    if isinstance(a, timezone) and isinstance(b, timezone):
        return a == b and a.tzname(None) == b.tzname(None)
    return a is b


# --- What can be stored.

LARGEST_OFFSET = timedelta(days=1) - timedelta.resolution
offsets = st.timedeltas(-LARGEST_OFFSET, LARGEST_OFFSET)
fixed_zones = offsets.map(timezone) | st.builds(timezone, offsets, st.text())
decimals = st.decimals(allow_nan=False, allow_infinity=False) | st.from_regex(
    r"-?[0-9]{1,30}(\.[0-9]{0,9})?(E[+-]?[0-9]{1,5})?", fullmatch=True
).map(Decimal)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=0, max_value=40).map(lambda n: -(7 ** (100 * n))),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.sampled_from(["~", "~~", "~set", '"', "\\", "\x00", "\x7f", "\u2028", "\U0001f600"]),
    st.binary(),
    decimals,
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.one_of(st.none(), fixed_zones, st.timezones())),
    st.datetimes().map(lambda moment: moment.replace(fold=1)),
)
hashables = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5
)
keys = st.text() | st.sampled_from(["~", "~~", "~~~x", "~set", "~tuple", "~int", ""])
values = st.recursive(
    hashables | st.sets(hashables, max_size=4),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=12,
)


@unhurried
@given(values)
@example({"~set": [1, 1]})
@example({"~~set": {"~": ({"~x": 1, "y": 2},)}})
@example([-0.0, 0.0, 1e16, 5e-324, 1.7976931348623157e308])
@example([1, True, 1.0, Decimal(1), 0, False, None, "", b"", (), [], {}, set()])
@example({(1,), (True, None), "1"})
def test_what_was_stored_comes_back_equal_and_of_the_same_type_at_every_level(value: Any) -> None:
    data = encode(value)

    assert same(_codec.decode(data), value)


@unhurried
@given(values)
def test_encoding_what_was_decoded_gives_the_same_bytes(value: Any) -> None:
    data = encode(value)

    assert encode(_codec.decode(data)) == data


@unhurried
@given(st.lists(hashables, max_size=8), st.randoms())
def test_equal_sets_give_the_same_bytes_however_they_were_built(
    items: list[Any], random: Any
) -> None:
    built = set(items)
    shuffled = list(built)
    random.shuffle(shuffled)
    rebuilt = {object()} | set(shuffled)  # another history, so another order inside
    rebuilt = {item for item in rebuilt if type(item) is not object}

    assert encode(built) == encode(rebuilt)


@unhurried
@given(st.dictionaries(st.text(), values, max_size=5))
def test_a_record_is_decoded_as_its_values_one_by_one_in_its_order(record: dict[str, Any]) -> None:
    items = {key: encode(value) for key, value in record.items()}

    assert same(_codec.decode_many(items), record)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ('Zoë "€"\n', '"Zoë \\"€\\"\\n"'),
        ({"b": [1, 2.5, None], "a": True}, '{"b":[1,2.5,null],"a":true}'),
        ({"~a": 1}, '{"~~a":1}'),
        ({"~a": 1, "b": 2}, '{"~a":1,"b":2}'),
        (("x", ()), '{"~tuple":["x",{"~tuple":[]}]}'),
        ({10, 9, "9"}, '{"~set":["9",10,9]}'),
        (b"\x00\xff", '{"~bytes":"AP8="}'),
        (Decimal("-0.00"), '{"~decimal":"-0.00"}'),
        (UUID(int=1), '{"~uuid":"00000000-0000-0000-0000-000000000001"}'),
        (date(2026, 1, 31), '{"~date":"2026-01-31"}'),
        (datetime(2026, 1, 31, 12), '{"~datetime":"2026-01-31T12:00:00"}'),
        (
            datetime(2026, 1, 31, 12, tzinfo=UTC),
            '{"~datetime":"2026-01-31T12:00:00+00:00"}',
        ),
        (
            datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=-5), "EST")),
            '{"~datetime":"2026-01-31T12:00:00-05:00[=EST]"}',
        ),
        (
            datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=PARIS),
            '{"~datetime":"2026-10-25T02:30:00;fold=1[Europe/Paris]"}',
        ),
        (2**2000 - 1, str(2**2000 - 1)),
        (-(2**2000), '{"~int":"-0x1' + 500 * "0" + '"}'),
    ],
)
def test_the_format_on_disk_is_the_one_that_older_versions_have_written(
    value: Any, data: str
) -> None:
    assert encode(value) == data.encode()
    assert same(_codec.decode(data.encode()), value)


def test_both_two_thirties_of_the_night_when_the_clock_goes_back_stay_apart() -> None:
    first = datetime(2026, 10, 25, 2, 30, tzinfo=PARIS)

    back = [_codec.decode(encode(first.replace(fold=fold))) for fold in (0, 1)]

    assert [moment.utcoffset() for moment in back] == [timedelta(hours=2), timedelta(hours=1)]


@pytest.mark.parametrize("name", [None, "", "X", "]", ";fold=1", "[=a];fold=1]", "+01:00", "UTC"])
@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("microsecond", [0, 1])
def test_every_fixed_offset_comes_back_to_the_microsecond_with_its_name(
    name: str | None, fold: int, microsecond: int
) -> None:
    sizes = [timedelta(0), timedelta.resolution, timedelta(seconds=1), timedelta(hours=2)]
    sizes += [timedelta(seconds=1) - timedelta.resolution, LARGEST_OFFSET]
    moment = datetime(2026, 1, 31, 12, 0, 0, microsecond, fold=fold)

    for offset in [*sizes, *(-size for size in sizes)]:
        zone = timezone(offset) if name is None else timezone(offset, name)
        value = moment.replace(tzinfo=zone)
        assert same(_codec.decode(encode(value)), value)


def test_long_ints_do_not_depend_on_the_limit_for_decimal_digits() -> None:
    long = [10**599, -(2**2000), 7**100_000]
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert _codec.decode(encode(long)) == long
    finally:
        sys.set_int_max_str_digits(limit)


def test_a_decimal_does_not_depend_on_the_context_of_the_caller() -> None:
    value = [Decimal("1.2345678901E+100"), Decimal("-0E-7")]
    data = encode(value)

    with decimal.localcontext(decimal.Context(prec=2, capitals=0, traps=[decimal.Inexact])):
        assert encode(value) == data
        assert same(_codec.decode(data), value)


def test_the_same_part_in_two_places_is_no_cycle() -> None:
    part = ["shared"]

    assert _codec.decode(encode([part, {"again": part}])) == [part, {"again": part}]


# --- What is refused, where, and what to write instead.


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    KEY = "key"


class Text(str):
    __slots__ = ()


@dataclasses.dataclass
class Item:
    price: int = 0


class Moment(datetime):
    pass


MOMENT = Moment(2026, 1, 1)


class Zone(tzinfo):
    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(0)

    dst = utcoffset

    def tzname(self, dt: datetime | None) -> str:
        return "Z"


Point = namedtuple("Point", "x y")


class Opaque:
    def __eq__(self, other: object) -> bool:
        raise AssertionError("the codec compares no unknown objects")

    def __repr__(self) -> str:
        raise AssertionError("the codec shows no unknown objects")

    __hash__ = None  # type: ignore[assignment]


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


WRAPS: list[Callable[[Any], Any]] = [
    lambda x: [x],
    lambda x: (x,),
    lambda x: {"k": x},
    lambda x: {"~": x},
]
WRAP_NAMES = ["list", "tuple", "dict", "dict that looks like a tag"]


@pytest.mark.parametrize(
    ("value", "type_name", "instead"),
    [
        (Colour.RED, "Colour", "value.value"),
        (Level.LOW, "Level", "value.value"),
        (Word.KEY, "Word", "value.value"),
        (Text("a"), "Text", "str(value)"),
        (Point(1, 2), "Point", "tuple(value)"),
        (OrderedDict(a=1), "collections.OrderedDict", "dict(value)"),
        (defaultdict(list), "collections.defaultdict", "dict(value)"),
        (UserDict(), "collections.UserDict", "dict(value)"),
        (deque([1]), "collections.deque", "list(value)"),
        (range(3), "range", "list(value)"),
        (frozenset({1}), "frozenset", "set(value)"),
        (bytearray(b"a"), "bytearray", "bytes(value)"),
        (memoryview(b"a"), "memoryview", "bytes(value)"),
        (1j, "complex", "(value.real, value.imag)"),
        (time(12), "datetime.time", "value.isoformat()"),
        (timedelta(1), "datetime.timedelta", "value.total_seconds()"),
        (MOMENT, "Moment", "datetime.fromisoformat(value.isoformat())"),
        (Item(), "Item", "dataclasses.asdict(value)"),
        (Opaque(), "Opaque", "a dict of what you need to know of it"),
        (int, "type", "a dict of what you need to know of it"),
        (print, "builtin_function_or_method", "a dict of what you need to know of it"),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_another_type_is_refused_with_what_to_write_instead(
    value: object, type_name: str, instead: str
) -> None:
    message = refusal([value])

    assert message.startswith('session["cart"][0]: a value of type ')
    assert f"{type_name} cannot be stored; write {instead} (" in message
    assert "exactly str, int, float, bool, None, list, dict, tuple, set, bytes" in message


@pytest.mark.parametrize(
    "value",
    [
        Text("a"),
        Level.LOW,
        Point(1, 2),
        OrderedDict(),
        frozenset(),
        bytearray(),
        Item(),
        MOMENT,
    ],
)
def test_the_advice_of_a_refusal_leads_to_something_that_can_be_stored(value: object) -> None:
    advice = refusal(value).partition("; write ")[2].partition(" (")[0]
    if not advice.endswith(")"):
        advice = advice + ")" * advice.count("(")
    scope = {"value": value, "datetime": datetime, "dataclasses": dataclasses}

    encode(eval(advice, scope))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (float("nan"), ": float('nan') cannot be stored"),
        (float("inf"), ": float('inf') cannot be stored"),
        (float("-inf"), ": float('-inf') cannot be stored"),
        (Decimal("NaN"), ": Decimal('NaN') cannot be stored"),
        (Decimal("-sNaN123"), ": Decimal('NaN') cannot be stored"),
        (Decimal("-Infinity"), ": Decimal('-Infinity') cannot be stored"),
    ],
    ids=str,
)
def test_a_number_that_is_not_finite_is_refused_as_what_it_is(value: object, what: str) -> None:
    assert refusal([1, {"price": value}]).startswith(f'{PATH}[1]["price"]{what}')


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("a\ud800", ""),
        (["é", "\udfff"], "[1]"),
        ({"a": {"b": ("\ud800\udc00",)}}, '["a"]["b"][0]'),
        ({"k\ud800": 1}, '["k\\ud800"]'),
        pytest.param({"x", "\ud800"}, "{...}", id="in a set"),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(0), "\ud800")), ""),
    ],
    ids=ascii,
)
def test_a_lone_surrogate_is_refused_wherever_it_hides(value: object, path: str) -> None:
    assert refusal(value).startswith(f"{PATH}{path}: a str with a lone surrogate cannot be stored")


@pytest.mark.parametrize(
    ("key", "step"),
    [
        (1, "[<int>]"),
        (None, "[<NoneType>]"),
        (b"k", "[<bytes>]"),
        (Text("k"), "[<test_codec.Text>]"),
        (Word.KEY, "[<test_codec.Word>]"),
    ],
    ids=repr,
)
def test_a_key_that_is_not_a_str_is_refused(key: object, step: str) -> None:
    message = re.sub(r"<(\w+\.)*(test_codec\.\w+)>", r"<\2>", refusal({"items": {"a": 1, key: 2}}))

    assert message.startswith(f'{PATH}["items"]{step}: a key of type ')
    assert message.endswith("keys are str: write str(key)")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (frozenset(), ""),
        ([0, frozenset()], "[1]"),
        ((0, (1, frozenset())), "[1][1]"),
        ({"a": 1, "b": {"c d": [frozenset()]}}, '["b"]["c d"][0]'),
        ({"~": frozenset()}, '["~"]'),
        ({(1, frozenset())}, "{...}[1]"),
        ({'"]\n': frozenset()}, '["\\"]\\n"]'),
        ({"é": frozenset()}, '["\\u00e9"]'),
        ({"k" * 5000: frozenset()}, f'["{"k" * 40}..."]'),
        (nested(10, lambda x: [frozenset()] if x == 1 else [x]), "[0]" * 10),
        (nested(11, lambda x: [frozenset()] if x == 1 else [x]), "[0]" * 10 + "[...]"),
    ],
)
def test_a_refusal_names_the_exact_path(value: object, path: str) -> None:
    assert refusal(value).startswith(f"{PATH}{path}: a value of type frozenset cannot be stored; ")


@pytest.mark.parametrize(
    "value",
    [Text("hunter2"), ["hunter2\ud800"], {"k": bytearray(b"hunter2")}, (Item(price=1234567890),)],
)
def test_no_refusal_shows_what_was_to_be_stored(value: object) -> None:
    message = refusal(value)

    assert "hunter2" not in message
    assert "1234567890" not in message


@pytest.mark.parametrize("wrap", WRAPS, ids=WRAP_NAMES)
def test_a_hundred_containers_in_one_another_are_stored_and_one_more_is_not(
    wrap: Callable[[Any], Any],
) -> None:
    deepest = nested(100, wrap)

    assert same(_codec.decode(encode(deepest)), deepest)
    assert "]: more than 100 containers in one another" in refusal(wrap(deepest))


def test_a_set_may_be_the_hundredth_container_and_not_the_next() -> None:
    deepest = nested(99, lambda x: {2} if x == 1 else [x])

    assert encode([deepest])
    assert "more than 100 containers" in refusal([[deepest]])


@pytest.mark.parametrize("wrap", WRAPS, ids=WRAP_NAMES)
def test_hostile_nesting_is_refused_and_never_exhausts_the_stack(
    wrap: Callable[[Any], Any],
) -> None:
    assert "more than 100 containers" in refusal(nested(20_000, wrap))


def test_what_contains_itself_is_refused_where_the_circle_begins() -> None:
    ring: list[Any] = [0]
    ring.append({"a": (ring,)})
    entry = {"x": [ring]}

    assert (
        refusal(ring)
        == f"{PATH}: what contains itself cannot be stored; store each part once, by name"
    )
    assert refusal(entry).startswith(f'{PATH}["x"][0]: what contains itself')


# --- Time zones that would not be found again.


def test_a_tzinfo_of_another_class_is_refused() -> None:
    message = refusal([datetime(2026, 1, 1, tzinfo=Zone())])

    assert message.startswith(f"{PATH}[0]: a datetime with a tzinfo of type ")
    assert message.endswith("write value.astimezone(timezone.utc)")


@pytest.mark.parametrize("key", [None, "Europe/London", "Nowhere/Land", "Europe", "../x", "a\0b"])
def test_a_zone_that_its_key_does_not_find_again_is_refused(key: str | None) -> None:
    zone = zone_from_file(key)

    assert "cannot be stored" in refusal(datetime(2026, 7, 1, tzinfo=zone))


def test_a_zone_from_a_file_that_its_key_does_find_again_is_stored() -> None:
    moment = datetime(2026, 7, 1, tzinfo=zone_from_file("Europe/Paris"))

    assert _codec.decode(encode(moment)) == moment


def zone_from_file(key: str | None) -> ZoneInfo:
    """The rules of Paris, under a key that may be wrong."""
    tzdata = pytest.importorskip("tzdata")
    with (Path(tzdata.__file__).parent / "zoneinfo" / "Europe" / "Paris").open("rb") as file:
        return ZoneInfo.from_file(file, key=key)


def test_a_zone_that_this_machine_does_not_know_is_reported_and_not_guessed() -> None:
    with pytest.raises(StoreCorrupt, match="pip install tzdata"):
        _codec.decode(b'{"~datetime":"2026-10-25T02:30:00[Mars/Olympus_Mons]"}')


# --- What encode cannot have written.


@pytest.mark.parametrize("data", [b'{"~frozenset":["tea"]}', b'["tea",{"~cart":"tea"}]'])
def test_what_a_newer_version_has_written_is_refused_with_advice(data: bytes) -> None:
    with pytest.raises(StoreCorrupt) as caught:
        _codec.decode(data)

    message = str(caught.value)
    assert "written by a newer minisession" in message
    assert "pip install --upgrade minisession" in message
    assert not {"tea", "cart", "frozenset"} & set(re.findall(r"\w+", message))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"hello", id="no JSON"),
        pytest.param(b'"a', id="cut off"),
        pytest.param(b"'a'", id="Python, not JSON"),
        pytest.param(b"\x80\x04K\x01.", id="a pickle"),
        pytest.param(b'"\xff"', id="not UTF-8"),
        pytest.param(b'"\xed\xa0\x80"', id="a surrogate in bytes"),
        pytest.param(b'"\\ud800"', id="a surrogate as an escape"),
        pytest.param(b'{"a\\uDFFF":1}', id="a surrogate in a key"),
        pytest.param(b'\xef\xbb\xbf"a"', id="a byte order mark"),
        pytest.param(b'"a\nb"', id="a bare control character"),
        pytest.param(b"1 2", id="two values"),
        pytest.param(b"1,2", id="two values with a comma"),
        pytest.param(b"1\n", id="a newline after"),
        pytest.param(b" 1", id="a space before"),
        pytest.param(b"[1]]", id="a bracket too many"),
        pytest.param(b"01", id="a leading zero"),
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b"[-Infinity]", id="an infinity"),
        pytest.param(b"1e400", id="a float that is too large"),
        pytest.param(b"9" * 5000, id="more digits than int reads"),
        pytest.param(b'{"a":1,"a":1}', id="a key twice"),
        pytest.param(b'{"~int":"0x1","~int":"0x1"}', id="a tag twice"),
        pytest.param(b'{"~frozenset":[]}', id="an unknown tag"),
        pytest.param(b'{"~":1}', id="an empty tag"),
        pytest.param(b'{"~tuple":{}}', id="a tuple of an object"),
        pytest.param(b'{"~set":"ab"}', id="a set of a text"),
        pytest.param(b'{"~set":[1,1]}', id="an element twice"),
        pytest.param(b'{"~set":[1,true]}', id="two elements that are equal"),
        pytest.param(b'{"~set":[[]]}', id="a list in a set"),
        pytest.param(b'{"~int":5}', id="a tagged int that is no text"),
        pytest.param(b'{"~int":"5"}', id="an int in decimal"),
        pytest.param(b'{"~int":"0x1_0"}', id="an int with an underscore"),
        pytest.param(b'{"~int":"x"}', id="no int"),
        pytest.param(b'{"~decimal":"NaN"}', id="a decimal that is not finite"),
        pytest.param(b'{"~decimal":" 1"}', id="a decimal with a space"),
        pytest.param(b'{"~decimal":"1,0"}', id="no decimal"),
        pytest.param(b'{"~bytes":"AP8"}', id="base64 without padding"),
        pytest.param(b'{"~bytes":"AP9="}', id="base64 with spare bits"),
        pytest.param(b'{"~bytes":"A P8="}', id="base64 with a space"),
        pytest.param('{"~bytes":"é"}'.encode(), id="base64 beyond ASCII"),
        pytest.param(b'{"~uuid":"00000000000000000000000000000001"}', id="a UUID without hyphens"),
        pytest.param(b'{"~uuid":"x"}', id="no UUID"),
        pytest.param(b'{"~date":"20260131"}', id="a date in the basic format"),
        pytest.param(b'{"~date":"2026-02-30"}', id="no day of the calendar"),
        pytest.param(b'{"~datetime":"2026-01-31"}', id="a datetime without a time"),
        pytest.param(b'{"~datetime":"2026-01-31T12:00:00Z"}', id="another spelling of UTC"),
        pytest.param(b'{"~datetime":"2026-01-31T12:00:00;fold=2"}', id="a third fold"),
        pytest.param(
            b'{"~datetime":"2026-01-31T12:00:00+00:00[=UTC]"}', id="the name it has anyway"
        ),
        pytest.param(b'{"~datetime":"2026-01-31T12:00:00[=X]"}', id="a name without an offset"),
        pytest.param(
            b'{"~datetime":"2026-01-31T12:00:00+01:00[Europe/Paris]"}', id="offset and zone"
        ),
        pytest.param(b'{"~datetime":"2026-01-31T12:00:00[../../etc/passwd]"}', id="a path as zone"),
        pytest.param(b'{"~datetime":"2026-01-31T12:00:00[Europe]"}', id="a directory as zone"),
        pytest.param(
            b'{"~datetime":"2026-01-31T12:00:00[' + b"a" * 5000 + b']"}', id="a long zone"
        ),
        pytest.param(b'{"~datetime":"2026-01-31T12:00:00[]"}', id="an empty zone"),
        pytest.param(b"[" * 101 + b"]" * 101, id="one list too deep"),
        pytest.param(b'{"~tuple":[' * 101 + b"]}" * 101, id="one tuple too deep"),
        pytest.param(b"[" * 200_000, id="a stack of brackets"),
        pytest.param(b'{"a":' * 200_000, id="a stack of braces"),
    ],
)
def test_what_encode_cannot_have_written_is_corrupt_and_never_a_value(data: bytes) -> None:
    with pytest.raises(StoreCorrupt) as caught:
        _codec.decode(data)

    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 160  # it quotes nothing


def test_many_brackets_in_a_text_or_side_by_side_are_not_nesting() -> None:
    value = {"text": "[{" * 500, "rows": [[{}] for _ in range(500)], "control": "\x00"}

    assert _codec.decode(encode(value)) == value


@unhurried
@given(
    st.binary(max_size=30) | st.text(alphabet='[]{}",:~\\u0de19.-tsn', max_size=30).map(str.encode)
)
def test_random_bytes_are_a_storable_value_or_corrupt(data: bytes) -> None:
    assert_storable_or_corrupt(data)


TOKENS = [b'"~set"', b'"~tuple"', b'"~int"', b'"~datetime"', b'"~decimal"', b'"~~"', b"\\ud800"]
TOKENS += [b"[", b"]", b"{", b"}", b'"', b",", b":", b"~", b"1e999", b"NaN", b"\xff", b"-", b"0"]


@unhurried
@given(st.data(), values)
def test_a_damaged_encoding_is_a_storable_value_or_corrupt(draw: st.DataObject, value: Any) -> None:
    data = encode(value)
    start = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(start, min(len(data), start + 4)))
    damage = draw.draw(st.sampled_from(TOKENS) | st.binary(max_size=3))

    assert_storable_or_corrupt(data[:start] + damage + data[end:])


def assert_storable_or_corrupt(data: bytes) -> None:
    try:
        value = _codec.decode(data)
    except StoreCorrupt:
        return
    assert same(_codec.decode(encode(value)), value)


def test_a_damaged_record_names_the_key_and_shows_no_value() -> None:
    items = {"user": b'"alice"', 'ca"rt': b'["hunter2"', "n": b"1"}

    with pytest.raises(StoreCorrupt) as caught:
        _codec.decode_many(items)

    assert str(caught.value).startswith('the value of ["ca\\"rt"] cannot be read: ')
    assert "hunter2" not in str(caught.value)


def test_broken_values_never_complete_one_another() -> None:
    together = {"a": b"1,2", "b": b'"x', "c": b'y"'}
    assert len(json.loads(b"[" + b",".join(together.values()) + b"]")) == len(together)

    with pytest.raises(StoreCorrupt, match=r'the value of \["a"\]'):
        _codec.decode_many(together)


# --- Containers in other hands.


@pytest.mark.parametrize(
    ("container", "change", "message"),
    [
        ({"a": 1, "b": 2}, lambda c: c.update(c=3), "dictionary changed size during iteration"),
        ({"a": 1, "b": 2}, lambda c: c.pop("a"), "dictionary changed size during iteration"),
        ({1, 2}, lambda c: c.add(3), "Set changed size during iteration"),
        ({1, 2}, lambda c: c.pop(), "Set changed size during iteration"),
        ([1, 2], lambda c: c.append(3), "list changed size during iteration"),
        ([1, 2], lambda c: c.pop(), "list changed size during iteration"),
        ([1, 2], lambda c: c.clear(), "list changed size during iteration"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"k": ("a", [x])}], ids=["top", "nested"])
def test_a_size_changed_by_another_thread_during_the_scan_comes_out_as_the_error_it_is(
    container: Any, change: Callable[[Any], object], message: str, wrap: Callable[[Any], Any]
) -> None:
    container = copy.copy(container)
    value = wrap(container)

    with in_the_scan_of_an_int(lambda: change(container)), pytest.raises(RuntimeError) as caught:
        encode(value)

    assert type(caught.value) is RuntimeError
    assert str(caught.value) == message
    assert same(_codec.decode(encode(value)), value)


def test_a_list_that_another_thread_rotates_during_the_scan_is_stored_as_it_was_at_one_moment() -> (
    None
):
    items = [1, 2, 3]

    with in_the_scan_of_an_int(lambda: items.insert(0, items.pop())):
        data = encode(items)

    assert items == [3, 1, 2]
    assert _codec.decode(data) == [1, 2, 3]


@contextmanager
def in_the_scan_of_an_int(change: Callable[[], object]) -> Iterator[None]:
    """Let another thread run `change`, once, just when the first int is being written.

    Threads that merely race meet in the middle of a scan on some runs and not on others.
    """
    pending = [change]

    def profile(frame: FrameType, event: str, _arg: object) -> None:
        if pending and event == "call" and frame.f_code.co_name == "_write_int":
            thread = threading.Thread(target=pending.pop())
            thread.start()
            thread.join()

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)
    assert not pending
