"""How keys and values become bytes in a snapshot, and how they come back."""

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
    """A schema that a user gave."""
    if schema is not None and (isinstance(schema, bool) or not isinstance(schema, int | str)):
        raise TypeError(f"schema must be an int, a str or None, not {type(schema).__name__}")
    return schema


class Serializer(Protocol):
    """A module or an object that makes bytes of values and values of bytes: msgpack, orjson, or one of your own."""

    def dumps(self, value: Any, /) -> bytes: ...
    def loads(self, data: bytes, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Codec:
    """How a snapshot is written.

    Keys are written as simple values, whatever the values are written by: a key must come back exactly as it was, or it is never found
    again, and JSON and its kin make a list of a tuple. Only who asks for pickle may have other keys.
    """

    name: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]
    dumps_key: Callable[[Any], bytes] = _hotset.dumps
    loads_key: Callable[[bytes], Any] = _hotset.loads

    def number(self, schema: Schema, of: str = "") -> int:
        """What tells a file that was written so, with this schema, from all others."""
        text = repr(("hotset python 1", self.name, checked_schema(schema), of))
        return int.from_bytes(blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).digest(), "little")


def _checked_bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise TypeError(f'the codec "bytes" keeps bytes, not {type(value).__qualname__}')
    return value


_JSON_SCALARS = frozenset({type(None), bool, int, float, str})


def _to_json(value: Any) -> bytes:
    """As JSON, if that gives back what it gets: it would make a list of a tuple, and a string of a key that is a number."""
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
                    raise TypeError(f'the codec "json" would make a string of a dict\'s key {key!r}: codec="values" keeps it')
        elif kind not in _JSON_SCALARS:
            raise TypeError(f'the codec "json" would not give back a {kind.__qualname__}: codec="values" keeps more types')
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
# Bytes to bytes: the files of the C library, and of Rust's `Cache<Vec<u8>, Vec<u8>>`.
_RAW = Codec("bytes", _checked_bytes, bytes, _checked_bytes, bytes)


def raw_schema(schema: Schema) -> int:
    """The schema of a file of bytes to bytes: what was given, as in C and Rust, if it is such a number; 0 by default."""
    if checked_schema(schema) is None:
        return 0
    if isinstance(schema, int) and 0 <= schema < 2**64:
        return schema
    return _RAW.number(schema, "bytes to bytes")


def codec_for_save(codec: Codec, schema: Schema, keys: Iterable[object]) -> tuple[Codec, int]:
    """How a mapping with these keys is saved: its codec and the file's schema."""
    if codec is BYTES and all(type(key) is bytes for key in keys):
        return _RAW, raw_schema(schema)
    return codec, codec.number(schema)


def codecs_for_load(codec: Codec, schema: Schema) -> list[tuple[Codec, int]]:
    """How a mapping may have been saved."""
    raw = [(_RAW, raw_schema(schema))] if codec is BYTES else []
    return [*raw, (codec, codec.number(schema))]


def codec_of(given: CodecName | Serializer) -> Codec:
    """The codec that a user named or gave."""
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

    # A module or a class has a name; an object is told by its class.
    named: Any = given if hasattr(given, "__name__") else type(given)
    name: str = getattr(named, "__qualname__", named.__name__)
    return Codec(f"object {name}", to_bytes, loads)
