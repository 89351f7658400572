"""Codecs: how keys and values become bytes in a snapshot, and are restored from them."""

import json
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, Protocol, cast, get_args

from hotset import _hotset

CodecName = Literal["values", "bytes", "json", "pickle"]
Schema = int | str | None


def checked_schema(schema: Any) -> Schema:
    """Returns `schema` if it is an int, a str or None.

    Args:
        schema: What a user passed.

    Returns:
        The schema, unchanged.

    Raises:
        TypeError: `schema` is of another type.
    """
    if schema is not None and (isinstance(schema, bool) or not isinstance(schema, int | str)):
        raise TypeError(f"schema must be an int, a str or None, not {type(schema).__name__}")
    return schema


class Serializer(Protocol):
    """A module or an object with `dumps` and `loads`, such as msgpack or orjson."""

    def dumps(self, value: Any, /) -> bytes:
        """Returns `value` as bytes."""
        ...

    def loads(self, data: bytes, /) -> Any:
        """Returns the value that `dumps` made `data` of."""
        ...


@dataclass(frozen=True, slots=True)
class Codec:
    """The functions that encode and decode the entries of a snapshot.

    Keys are encoded as simple values, whatever codec encodes the values: a key must be restored
    exactly, or no lookup finds it again, and JSON, for one, turns a tuple into a list. Only the
    codec "pickle" encodes keys by itself, and so allows other keys.

    Attributes:
        name: The name of the codec, a part of the schema number.
        dumps: Encodes a value.
        loads: Decodes a value.
        dumps_key: Encodes a key.
        loads_key: Decodes a key.
    """

    name: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]
    dumps_key: Callable[[Any], bytes] = _hotset.dumps
    loads_key: Callable[[bytes], Any] = _hotset.loads

    def number(self, schema: Schema, of: str = "") -> int:
        """Returns the schema number of a file: 64 bits of codec, schema and owner.

        Args:
            schema: The user's schema.
            of: The name of the function whose results are saved; "" for a `Cache`.

        Returns:
            A number that differs, except by chance, for every other combination.

        Raises:
            TypeError: `schema` is neither an int, a str nor None.
        """
        text = repr(("hotset python 1", self.name, checked_schema(schema), of))
        return int.from_bytes(blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).digest(), "little")


def _checked_bytes(value: Any) -> bytes:
    """Returns `value` if it is of type bytes, or raises a TypeError."""
    if type(value) is not bytes:
        raise TypeError(f'the codec "bytes" takes bytes, not {type(value).__qualname__}')
    return value


_JSON_SCALARS = frozenset({type(None), bool, int, float, str})


def _to_json(value: Any) -> bytes:
    """Returns `value` as JSON, or raises a TypeError if JSON would not restore it unchanged.

    (JSON makes a list of a tuple, and a string of a key that is a number.)
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    pending: list[object] = [value]
    while pending:
        part = pending.pop()
        kind = type(part)
        if kind is list:
            pending.extend(cast(list[object], part))
        elif kind is dict:
            members = cast(dict[object, object], part)
            pending.extend(members.values())
            for key in members:
                if type(key) is not str:
                    raise TypeError(f'the codec "json" would restore the dict key {key!r} as a string: use codec="values"')
        elif kind not in _JSON_SCALARS:
            raise TypeError(f'the codec "json" cannot restore a {kind.__qualname__}: codec="values" restores more types')
    return text.encode("utf-8", "surrogatepass")


def _from_json(data: bytes) -> Any:
    return json.loads(data.decode("utf-8", "surrogatepass"))


def _to_pickle(value: Any) -> bytes:
    return pickle.dumps(value, 5)


_BUILTIN: dict[CodecName, Codec] = {
    "values": Codec("values", _hotset.dumps, _hotset.loads),
    "bytes": Codec("bytes", _checked_bytes, bytes),
    "json": Codec("json", _to_json, _from_json),
    "pickle": Codec("pickle", _to_pickle, pickle.loads, _to_pickle, pickle.loads),
}
PICKLE = _BUILTIN["pickle"]


BYTES = _BUILTIN["bytes"]
# Bytes to bytes: the format of the C library, and of Rust's `Cache<Vec<u8>, Vec<u8>>`.
_RAW = Codec("bytes", _checked_bytes, bytes, _checked_bytes, bytes)


def raw_schema(schema: Schema) -> int:
    """Returns the schema number of a file of bytes to bytes.

    An integer of 64 bits is the number itself, as in C and Rust; any other schema is hashed.

    Args:
        schema: The user's schema; None stands for 0.

    Returns:
        The schema number.

    Raises:
        TypeError: `schema` is neither an int, a str nor None.
    """
    if checked_schema(schema) is None:
        return 0
    if isinstance(schema, int) and 0 <= schema < 2**64:
        return schema
    return _RAW.number(schema, "bytes to bytes")


def codec_for_save(codec: Codec, schema: Schema, keys: Iterable[object]) -> tuple[Codec, int]:
    """Returns the codec and the schema number for saving a mapping with these keys.

    Args:
        codec: The codec that the user chose.
        schema: The user's schema.
        keys: The keys of the mapping.

    Returns:
        The codec that encodes the entries, and the schema number of the file.
    """
    if codec is BYTES and all(type(key) is bytes for key in keys):
        return _RAW, raw_schema(schema)
    return codec, codec.number(schema)


def codecs_for_load(codec: Codec, schema: Schema) -> list[tuple[Codec, int]]:
    """Returns the codecs and schema numbers that may have saved a mapping, likeliest first.

    Args:
        codec: The codec that the user chose.
        schema: The user's schema.

    Returns:
        Pairs of codec and schema number, at least one.
    """
    raw = [(_RAW, raw_schema(schema))] if codec is BYTES else []
    return [*raw, (codec, codec.number(schema))]


def codec_of(given: CodecName | Serializer) -> Codec:
    """Returns the codec that a user named or passed.

    Args:
        given: A codec's name, or a serializer.

    Returns:
        The codec.

    Raises:
        ValueError: No codec has this name.
        TypeError: `given` is neither a name nor an object with `dumps` and `loads`.
    """
    if isinstance(given, str):
        if given not in _BUILTIN:
            names = ", ".join(get_args(CodecName))
            raise ValueError(f"codec must be one of {names}, or an object with dumps and loads, not {given!r}")
        return _BUILTIN[given]
    module: Any = given
    if module is json or module is pickle:
        return _BUILTIN["json" if module is json else "pickle"]
    dumps, loads = getattr(given, "dumps", None), getattr(given, "loads", None)
    if not callable(dumps) or not callable(loads):
        raise TypeError(f"codec must be a name, or an object with dumps and loads, not {type(given).__name__}")

    def to_bytes(value: Any) -> bytes:
        data = dumps(value)
        if type(data) is not bytes:
            raise TypeError(f"a codec's dumps must return bytes, not {type(data).__qualname__}")
        return data

    # A module or a class has a name of its own; any other object is named by its class.
    named: Any = given if hasattr(given, "__name__") else type(given)
    name: str = getattr(named, "__qualname__", named.__name__)
    return Codec(f"object {name}", to_bytes, loads)
