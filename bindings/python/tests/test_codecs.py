"""Codecs: each restores exactly what it encoded, or refuses it; arbitrary bytes are an error."""

import collections
import datetime
import decimal
import enum
import itertools
import json
import marshal
import math
import pickle
import struct
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hotset
from hotset._codecs import codec_of
from hotset._hotset import dumps, loads

TEXT = st.text(st.characters(exclude_categories=()))
ZONES = st.none() | st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23)).map(datetime.timezone)
LEAF = st.one_of(
    st.sampled_from([None, True, False]) | st.integers() | st.floats() | st.complex_numbers() | st.binary() | TEXT,
    st.dates() | st.datetimes(timezones=ZONES) | st.times(timezones=ZONES) | st.timedeltas(),
    st.decimals(allow_nan=False) | st.uuids(),
)
HASHABLE = LEAF | st.tuples(LEAF, LEAF) | st.frozensets(LEAF, max_size=3)


def containers(parts):
    lists = st.lists(parts, max_size=4)
    return lists | lists.map(tuple) | st.dictionaries(HASHABLE, parts, max_size=4) | st.sets(HASHABLE, max_size=4)


simple = st.recursive(HASHABLE, containers, max_leaves=10)
few = settings(max_examples=60, deadline=None)


def told(value):
    """Returns a description that equals only that of an identical value: types, bits and order."""
    match value:
        case float():
            inner = struct.pack("d", value)
        case complex():
            inner = struct.pack("dd", value.real, value.imag)
        case list() | tuple():
            inner = [told(item) for item in value]
        case dict():
            inner = [told(item) for item in value.items()]
        case set() | frozenset():
            inner = sorted(repr(told(item)) for item in value)
        case decimal.Decimal():
            inner = value.as_tuple()
        case datetime.datetime() | datetime.time():
            inner = value.isoformat(), value.fold, repr(value.tzinfo)
        case _:
            inner = value
    return type(value), inner


def same(a, b):
    return told(a) == told(b)


@few
@given(simple)
@example(2**63)
@example(-(2**63) - 1)
@example([-(2**64), 2**10000, True, 1, 1.0, -0.0, math.nan])
@example("\ud800 alone")
@example([datetime.timezone.utc, datetime.timezone(datetime.timedelta(hours=1), "CET"), decimal.Decimal("-sNaN7"), decimal.Decimal("1E+99")])
@example(datetime.datetime(2026, 10, 25, 2, 30, fold=1))
def test_simple_values_round_trip(value):
    assert same(loads(dumps(value)), value)


class Colour(enum.IntEnum):
    RED = 1


class Zone(datetime.tzinfo):
    pass


class Date(datetime.date):
    pass


date = type("date", (), {})
Point = collections.namedtuple("Point", "x y")


OTHERS = [object(), Colour.RED, Point(1, 2), collections.OrderedDict(), bytearray(), type, [1, {2: range(3)}], Date(2026, 1, 1), date()]


@pytest.mark.parametrize("value", OTHERS)
def test_other_values_are_refused(value):
    with pytest.raises(TypeError, match="has no .*only None, bool, int"):
        dumps(value)


def test_foreign_time_zone_is_refused():
    with pytest.raises(TypeError, match="has no test_codecs.Zone"):
        dumps(datetime.datetime(2026, 1, 1, tzinfo=Zone()))


@pytest.mark.parametrize("number", range(9))
def test_hostile_objects(number):
    bad = bytes([0, 0, 1, 0]), b"\xff" * 10, (1, 2, 3), "x", 10**20, None, -1, [2], {"a": 1}
    for count in range(10):
        for some in itertools.islice(itertools.permutations(bad, count), 20):
            check(b"o" + bytes([number]) + dumps(some))
    with pytest.raises(TypeError):
        loads(b"o" + bytes([number]) + dumps([1]))
    # All of these take bytes that pickle would give them, and would not check them.
    for state in (bytes(4), b"\xff" * 6, b"\x07\xea\x01\xff\xff\xff\xff\xff\xff\xff"):
        with pytest.raises((ValueError, TypeError)):
            loads(b"o" + bytes([number]) + dumps((state,)))


def test_depth_is_bounded():
    deep = []
    for _ in range(99):
        deep = [deep]
    assert loads(dumps(deep)) == deep
    with pytest.raises(ValueError, match="more than 100 deep"):
        dumps([deep])
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="deep"):
        dumps(endless)
    for begins in [struct.pack("<BI", kind, 1) for kind in b"tlSzd"] + [b"o\0"]:
        with pytest.raises(ValueError, match="deep"):
            loads(begins * 1_000_000)


def check(data):
    try:
        value = loads(data)
    except (ValueError, TypeError, ArithmeticError):
        return
    assert same(loads(dumps(value)), value)


@few
@given(st.binary())
def test_hostile_bytes_are_an_error_or_a_value(data):
    check(data)


@few
@given(simple, st.data())
def test_damaged_bytes_are_an_error_or_a_value(value, data):
    whole = bytearray(dumps(value))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    check(bytes(whole))
    if len(whole) > 1:
        with pytest.raises((ValueError, TypeError)):
            loads(dumps(value)[:-1])
    with pytest.raises(ValueError, match="after the end"):
        loads(dumps(value) + b"n")


@pytest.mark.parametrize("kind", b"Isbtldz")
def test_announced_lengths_allocate_no_memory(kind):
    with pytest.raises(ValueError):
        loads(struct.pack("<BI", kind, 2**32 - 1) + b"nnnn")


def test_dumps_that_returns_no_bytes_is_an_error():
    with pytest.raises(TypeError):
        loads("text")
    with pytest.raises(TypeError):
        loads(bytearray(b"n"))


def test_nothing_is_leaked():
    value = [{"a": (1, 2.5, b"x")}, {3}, 2**70]
    dumps(value), loads(dumps(value))
    leaf = object()
    before = sys.getrefcount(leaf)
    for _ in range(100):
        with pytest.raises(TypeError):
            dumps([1, [leaf]])
        with pytest.raises(ValueError):
            loads(dumps([1, "text"])[:-1])
    assert sys.getrefcount(leaf) == before


jsonable = st.recursive(
    st.sampled_from([None, True, False]) | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(), parts, max_size=4),
    max_leaves=10,
)


@few
@given(jsonable)
def test_json_restores_what_it_accepts(value):
    codec = codec_of("json")
    assert same(codec.loads(codec.dumps(value)), value)


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, [{"a": (1,)}], Colour.RED, collections.OrderedDict(), Point(1, 2), b"x", {1}])
def test_json_takes_nothing_else(value):
    with pytest.raises(TypeError):
        codec_of("json").dumps(value)


def test_codecs_are_distinguished():
    class Own:
        dumps = staticmethod(dumps)
        loads = staticmethod(loads)

    codecs = [codec_of(codec) for codec in ("values", "bytes", "json", "pickle", marshal, Own(), Own)]
    numbers = [codec.number(schema, of) for codec in codecs for schema in (None, 0, "0", "") for of in ("", "f")]
    # (An object is known by its class, and so is the class.)
    assert len(set(numbers)) == len(numbers) - 8
    assert all(0 <= number < 2**64 for number in numbers)
    assert codec_of(json) is codec_of("json")
    assert codec_of(pickle) is codec_of("pickle")
    assert codec_of(Own()).name.endswith("test_codecs_are_distinguished.<locals>.Own")


WRONG = [
    ({"codec": "msgpack"}, ValueError, "values, bytes, json, pickle, or an object with dumps and loads, not 'msgpack'"),
    ({"codec": 3}, TypeError, "an object with dumps and loads, not int"),
    ({"codec": None}, TypeError, "not NoneType"),
    ({"schema": 1.5}, TypeError, "schema must be an int, a str or None, not float"),
    ({"schema": True}, TypeError, "not bool"),
]


@pytest.mark.parametrize(("settings", "error", "text"), WRONG)
def test_wrong_arguments(settings, error, text, tmp_path):
    cache = hotset.Cache(10)
    with pytest.raises(error, match=text):
        cache.save(tmp_path / "file", **settings)
    with pytest.raises(error, match=text):
        cache.load(tmp_path / "file", **settings)
    with pytest.raises(error, match=text):
        hotset.cached(snapshot=tmp_path / "file", **settings)(len)
    assert list(tmp_path.iterdir()) == []


def test_wrong_paths():
    cache = hotset.Cache(10)
    for wrong in (None, 3, ["a"]):
        with pytest.raises(TypeError, match="path must be a str, bytes or an os.PathLike, not"):
            cache.save(wrong)
    with pytest.raises(TypeError, match="path must be"):
        hotset.cached(snapshot=3)
    with pytest.raises(ValueError, match="null byte"):
        cache.save("a\0b")


def test_a_codec_returns_bytes(tmp_path):
    class Text:
        @staticmethod
        def dumps(value):
            return str(value)

        loads = eval

    cache = hotset.Cache(10)
    cache[1] = 2
    with pytest.raises(hotset.SnapshotError, match="dumps must return bytes, not str"):
        cache.save(tmp_path / "file", codec=Text)
