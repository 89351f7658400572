"""Units of the second tier that need no server: replies, keys, payloads, settings of clients."""

import datetime
import enum
import random
import zlib
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hotset
from hotset.tier2 import Redis
from hotset.tier2._client import greeting_of, slot_of, slots_of
from hotset.tier2._errors import Failed
from hotset.tier2._keys import KeyTextError, arguments_of, hashed, quote_name, text_of, unquote_name
from hotset.tier2._payload import COMPRESSED, NAMED, SIGNED, NotEncodable, PayloadCodec, PayloadError
from hotset.tier2._resp import INCOMPLETE, Parser, ProtocolError, Push, ServerError, bulk_strings, encode, quick_reply
from hotset.tier2._topology import tag_of

# --- Replies.

REPLIES = [
    (b"$3\r\nabc\r\n", b"abc"),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"+OK\r\n", "OK"),
    (b":-5\r\n", -5),
    (b"*-1\r\n", None),
    (b"*0\r\n", []),
    (b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", [b"a", [1]]),
    (b"_\r\n", None),
    (b"#t\r\n", True),
    (b",1.5\r\n", 1.5),
    (b"(123456789012345678901\r\n", 123456789012345678901),
    (b"=7\r\ntxt:abc\r\n", b"abc"),
    (b"%1\r\n$1\r\na\r\n:1\r\n", [(b"a", 1)]),
    (b"~2\r\n:1\r\n:2\r\n", [1, 2]),
    (b"|1\r\n+key\r\n:1\r\n:7\r\n", 7),
    (b"|0\r\n:7\r\n", 7),
    (b"*2\r\n|1\r\n+k\r\n+v\r\n:1\r\n:2\r\n", [1, 2]),
]


def parse_all(chunks):
    parser = Parser()
    found = []
    for chunk in chunks:
        parser.feed(chunk)
        while (reply := parser.next()) is not INCOMPLETE:
            found.append(reply)
    assert parser.is_empty
    return found


@given(st.lists(st.sampled_from(REPLIES), max_size=8), st.randoms())
def test_replies_in_pieces_of_any_size(replies, chance):
    stream = b"".join(raw for raw, _ in replies)
    chunks = []
    while stream:
        size = chance.choice((1, 2, 3, 7, 1000))
        chunks.append(stream[:size])
        stream = stream[size:]
    assert parse_all(chunks) == [value for _, value in replies]


def test_errors_are_returned():
    [error] = parse_all([b"-MOVED 5 127.0.0.1:7000\r\n"])
    assert isinstance(error, ServerError) and error.code == "MOVED"
    [blob] = parse_all([b"!9\r\nERR wrong\r\n"])
    assert isinstance(blob, ServerError) and str(blob) == "ERR wrong"


def test_pushes_are_distinguished_from_replies():
    [push] = parse_all([b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"])
    assert isinstance(push, Push) and push == [b"invalidate", [b"k"]]


@pytest.mark.parametrize(
    "raw",
    [b"HTTP/1.1 400\r\n", b"$abc\r\n", b"$-2\r\n", b"$99999999999\r\n", b"*99999999\r\n", b":x\r\n", b",x\r\n", b"*1\r\n" * 40, b"+" + b"x" * 70_000],
)
def test_malformed_reply_is_an_error(raw):
    parser = Parser()
    parser.feed(raw)
    with pytest.raises(ProtocolError):
        while parser.next() is not INCOMPLETE:
            pass
        raise AssertionError("it was taken for a reply")


@given(st.binary(max_size=60))
def test_any_bytes_are_a_reply_or_an_error(raw):
    parser = Parser()
    parser.feed(raw)
    try:
        while parser.next() is not INCOMPLETE:
            pass
    except ProtocolError:
        pass
    quick_reply(raw)


@given(st.lists(st.one_of(st.none(), st.binary(max_size=30)), max_size=20))
def test_quick_paths_agree_with_the_parser(items):
    raw = b"*%d\r\n" % len(items) + b"".join(b"$-1\r\n" if item is None else b"$%d\r\n%b\r\n" % (len(item), item) for item in items)
    assert bulk_strings(raw) == items
    for cut in range(len(raw)):
        assert bulk_strings(raw[:cut]) is None
    for each, value in REPLIES:
        quick = quick_reply(each)
        assert quick is INCOMPLETE or quick == value


def test_invalidations_are_read_together():
    one = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\n%b\r\n"
    raw = one % (1, b"a") + one % (2, b"bb") + b">2\r\n$10\r\ninvalidate\r\n_\r\n" + one % (1, b"c")
    for cut in range(1, len(raw)):
        parser = Parser()
        seen = []
        for chunk in (raw[:cut], raw[cut:]):
            parser.feed(chunk)
            while True:
                seen += parser.invalidations()
                message = parser.next()
                if message is INCOMPLETE:
                    break
                seen += ["flush"] if message[1] is None else message[1]
        assert seen == [b"a", b"bb", "flush", b"c"]


def test_commands_are_encoded():
    assert encode(b"SET", b"k", 5) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n5\r\n"


# --- Keys.

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.datetimes(timezones=st.one_of(st.none(), st.just(datetime.UTC), st.just(datetime.timezone(datetime.timedelta(hours=5))))),
    st.dates(),
    st.times(),
    st.timedeltas(),
)
keys = st.recursive(scalars, lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.frozensets(scalars, max_size=3)), max_leaves=6)


@given(st.lists(keys, max_size=3).map(tuple), st.dictionaries(st.text(min_size=1), keys, max_size=2))
def test_text_of_arguments_is_read_back(args, kwargs):
    text = text_of(args, kwargs)
    assert arguments_of(text) == (args, kwargs)
    assert text.isascii() and not set(text) & set(" {}\r\n\0")


@given(keys, keys)
def test_equal_arguments_have_the_same_text(one, other):
    if one == other:
        assert text_of((one,), {}) == text_of((other,), {})
    else:
        assert text_of((one,), {}) != text_of((other,), {})


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    "group",
    [(1, 1.0, True, Decimal(1), Decimal("1.0"), Number.ONE), (0.5, Decimal("0.50")), (0, -0.0, False), (Decimal("1e400"), Decimal("10e399")), ("a",)],
)
def test_values_that_are_equal_are_one_key(group):
    assert len({text_of((value,), {}) for value in group}) == 1
    if len(group) > 1:
        assert len({text_of((value,), {}, typed=True) for value in group if not isinstance(value, enum.Enum)}) > 1


@pytest.mark.parametrize("value", [[1], {}, object(), 1j, Exception(), ([],)])
def test_values_that_are_no_keys_are_errors(value):
    with pytest.raises(TypeError, match="key of the second tier"):
        text_of((value,), {})


@given(st.text(alphabet='[]()",=b1s.e%n+- tuD5', max_size=30))
def test_any_text_is_arguments_or_an_error(text):
    try:
        arguments_of(text)
    except KeyTextError:
        pass


@given(st.text())
def test_names_are_read_back(name):
    quoted = quote_name(name)
    assert unquote_name(quoted) == name and b":" not in quoted and b"!" not in quoted and b"{" not in quoted


def test_hashes_of_long_texts_differ():
    assert hashed("a") != hashed("b") and len(hashed("a")) == 33


def test_slots_are_the_servers():
    # From the specification of clusters.
    assert slot_of(b"123456789") == 12739
    assert slot_of(b"{user1000}.following") == slot_of(b"user1000") == slot_of(b"foo{user1000}bar{x}")
    assert slot_of(b"foo{}bar") != slot_of(b"")
    assert all(slot_of(b"x" + tag_of(slot) + b"y") == slot for slot in (0, 1, 8191, 16383))


# --- Payloads.


def round_trip(codec, value, key=b"k", full_key=None):
    flags, data = codec.seal(key, full_key, *codec.encode(value))
    return flags, data, codec.open(key, full_key, flags, codec.number, data)


@pytest.mark.parametrize("settings", [{}, {"compress_over": 10}, {"sign": b"s" * 32}, {"sign": b"s" * 32, "compress_over": 10}])
@pytest.mark.parametrize("full_key", [None, b"full key" * 100])
def test_payloads_round_trip(settings, full_key):
    codec = PayloadCodec(**settings)
    for value in ("x" * 1000, None, {"a": [1, 2.5, UUID(int=5)]}):
        assert round_trip(codec, value, full_key=full_key)[2] == value


@pytest.mark.parametrize("settings", [{}, {"compress_over": 10}, {"sign": b"s" * 32, "compress_over": 10}])
def test_changed_payloads_are_refused_or_decoded(settings):
    codec = PayloadCodec(**settings)
    flags, data, _ = round_trip(codec, {"a": "x" * 50, "b": [1, 2, 3]}, full_key=b"full")
    chance = random.Random(5)
    for _ in range(3000):
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        changed = bytes(changed[: chance.randrange(len(changed) + 1)])
        if changed == data:
            continue
        try:
            codec.open(b"k", b"full", flags, codec.number, changed)
        except PayloadError:
            continue
        assert "sign" not in settings


def test_payload_of_another_key_codec_or_flag_is_refused():
    codec = PayloadCodec(sign=b"s" * 32)
    flags, data, _ = round_trip(codec, 5, full_key=b"full")
    for key, full_key, other_flags, number in [
        (b"other", b"full", flags, codec.number),
        (b"k", b"other", flags, codec.number),
        (b"k", None, flags, codec.number),
        (b"k", b"full", flags & ~SIGNED, codec.number),
        (b"k", b"full", flags | COMPRESSED, codec.number),
        (b"k", b"full", flags & ~NAMED, codec.number),
        (b"k", b"full", flags | 0x8000, codec.number),
        (b"k", b"full", flags, 4),
    ]:
        with pytest.raises(PayloadError):
            codec.open(key, full_key, other_flags, number, data)


def test_compressed_payload_does_not_grow_without_bound():
    codec = PayloadCodec(compress_over=10)
    bomb = (10).to_bytes(4, "big") + zlib.compress(b"x" * 10_000_000)
    with pytest.raises(PayloadError):
        codec.open(b"k", None, COMPRESSED, codec.number, bomb)
    with pytest.raises(PayloadError):
        codec.open(b"k", None, COMPRESSED, codec.number, (1 << 31).to_bytes(4, "big") + b"x")


def test_unencodable_values_are_logged():
    for codec, value in [(PayloadCodec(), object()), (PayloadCodec("bytes"), "text"), (PayloadCodec("json"), {1: 2}), (PayloadCodec(max_value=10), "x" * 50)]:
        with pytest.raises(NotEncodable):
            codec.encode(value)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotEncodable):
        PayloadCodec().encode(deep)


def test_own_codec():
    class Reversed:
        def dumps(self, value):
            return value.encode()[::-1]

        def loads(self, data):
            return data[::-1].decode()

    assert round_trip(PayloadCodec(Reversed()), "abc")[1:] == (b"cba", "abc")


# --- What servers say.


def test_greeting_of_a_restricted_server():
    refused = ServerError("NOPERM no")
    greeting = greeting_of([refused, refused, refused, refused, refused], 1, 2)
    assert greeting.connection_id is None and greeting.version == () and not greeting.can_kill and greeting.server_ms == 0


def test_greeting_of_a_loading_server_or_replica_fails():
    with pytest.raises(Failed, match="LOADING"):
        greeting_of([ServerError("LOADING dataset")] * 5, 1, 2)
    with pytest.raises(Failed, match="replica"):
        greeting_of([5, b"redis_version:7.0.0\r\n", b"role:slave\r\n", [b"1", b"2"], 0], 1, 2)


@pytest.mark.parametrize("reply", [None, 5, [[1]], [[b"x", 2, 3]], [[1, 2, None]], ServerError("ERR no cluster")])
def test_malformed_slots_are_failures(reply):
    with pytest.raises(Failed):
        slots_of(reply, ("h", 1))


def test_slots_without_a_host_are_of_the_queried_node():
    assert slots_of([[0, 5, [b"", 7000, b"id"], [b"h", 7001]], [6, 9, [b"h", 7001]]], ("asked", 1)) == {("asked", 7000): [(0, 5)], ("h", 7001): [(6, 9)]}


@pytest.mark.parametrize(("bus", "seconds"), [("auto", 60), (None, 5)])
def test_default_local_ttl_is_that_of_the_bus(bus, seconds):
    shop = Redis("redis://127.0.0.1:1/0", prefix="shop", bus=bus)
    assert hotset.TieredCache(shop, f"bus {bus}", ttl=300)._space.settings.local_ttl == seconds * 10**9
