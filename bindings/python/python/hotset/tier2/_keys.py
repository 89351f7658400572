"""Names of keys on the server, which are readable and can be decoded.

An entry's key is `PREFIX:1HHHHHHHH:NAME:ARGUMENTS`: the format's number and 8 hex digits of codec
and schema, then the cache's name, then the arguments, as in `["tea"]`. Arguments that are equal in
Python have the same text, so that `f(1)`, `f(1.0)` and `f(True)` are one key, as they are in the
first tier; with `typed=True` they are three. The text can be decoded, so an invalidation that
arrives by key is applied without a table of keys.
"""

import datetime
import enum
import math
import re
from decimal import Context, Decimal
from hashlib import blake2b
from typing import Any, Final, cast, final
from urllib.parse import quote_from_bytes, unquote_to_bytes
from uuid import UUID

LONGEST: Final = 200
"""Keys of more bytes than this are named by a hash."""

LONGEST_ON_MEMCACHED: Final = 250
"""The longest key that memcached takes, in bytes."""

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

# No blanks, quotes, percent signs or control characters; no braces, between which a cluster would
# look for the part that decides the slot.
_SAFE: Final = "_.-~/@+:,;()*'$&=?#[]<>^|"
_NAME_SAFE: Final = "_.-~/@+"


class KeyTextError(ValueError):
    """A key's text is not one of this package's."""


def quote_name(name: str) -> bytes:
    """Returns a prefix, name or tag as a part of keys: without a colon.

    Args:
        name: The name.
    """
    return quote_from_bytes(name.encode("utf-8", "surrogatepass"), _NAME_SAFE).encode()


def unquote_name(text: bytes) -> str:
    """Returns the name that `quote_name` encoded.

    Args:
        text: The encoded name.
    """
    return unquote_to_bytes(text).decode("utf-8", "surrogatepass")


def _quoted(mark: str, data: bytes) -> str:
    return f'{mark}"{quote_from_bytes(data, _SAFE)}"'


def _number_text(value: Any) -> str:
    """Returns the text of a number; equal numbers have the same text."""
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e300:
            return str(int(value))
        return "nan" if math.isnan(value) else repr(value)
    if not value.is_finite():
        # Decimal("inf") equals float("inf"). (A NaN equals nothing, so any text is right.)
        return "nan" if value.is_nan() else repr(float(value))
    if value == value.to_integral_value() and abs(value) < Decimal(10) ** 300:
        return str(int(value))
    near = float(value)
    if value == Decimal(near):
        return repr(near)
    # Exactly: a context with fewer digits would round.
    return f'd"{value.normalize(Context(prec=max(1, len(value.as_tuple().digits))))}"'


def _text(value: Any, typed: bool) -> str:
    kind = cast("type[object]", type(value))
    if kind is str:
        return f'"{value}"' if value.isalnum() and value.isascii() else _quoted("", value.encode("utf-8", "surrogatepass"))
    if kind is int:
        return str(value)
    if value is None:
        return "null"
    if kind is bool:
        return ("true" if value else "false") if typed else ("1" if value else "0")
    if kind is bytes:
        return _quoted("b", value)
    if kind is float or kind is Decimal:
        if typed:
            return f'{"f" if kind is float else "D"}"{value!s}"'
        return _number_text(value)
    if kind is tuple:
        return f"({','.join([_text(item, typed) for item in value])})"
    if kind is frozenset:
        return f"s({','.join(sorted([_text(item, typed) for item in value]))})"
    if kind is UUID:
        return f'u"{value.hex}"'
    if kind is datetime.datetime:
        if value.tzinfo is not None:
            value = value.astimezone(datetime.UTC)
        return f't"{value.isoformat()}"'
    if kind is datetime.date:
        return f'c"{value.isoformat()}"'
    if kind is datetime.time and value.tzinfo is None:
        return f'h"{value.isoformat()}"'
    if kind is datetime.timedelta:
        return f'p"{value.days},{value.seconds},{value.microseconds}"'
    if isinstance(value, enum.Enum) and isinstance(value, int | str):
        # An IntEnum or StrEnum equals its value.
        return _text(value.value, typed)
    raise TypeError(
        f"a key of the second tier cannot be a {kind.__module__}.{kind.__qualname__}: "
        "use str, bytes, int, float, bool, None, tuple, frozenset, Decimal, UUID, a class of datetime, or key= to make one of these"
    )


def text_of(args: tuple[Any, ...], kwargs: dict[str, Any], *, typed: bool = False) -> str:
    """Returns the text of a call's arguments.

    Args:
        args: The positional arguments of the call.
        kwargs: The keyword arguments of the call.
        typed: Whether arguments of different types are different arguments.

    Raises:
        TypeError: An argument has no text.
    """
    if not kwargs:
        if len(args) == 1:
            only = args[0]
            if type(only) is str and only.isalnum() and only.isascii():
                return f'["{only}"]'
            if type(only) is int:
                return f"[{only}]"
        return f"[{','.join([_text(item, typed) for item in args])}]"
    named = [f"{quote_name(name).decode()}={_text(value, typed)}" for name, value in sorted(kwargs.items())]
    return f"[{','.join([*[_text(item, typed) for item in args], *named])}]"


_TOKEN: Final = re.compile(
    r"""([A-Za-z0-9_.~%/@+-]*)=|([a-zA-Z]?)"([^"]*)"|s?\(|\)|null|true|false|nan|-?inf|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|,|\]"""
)


@final
class _Reader:
    """Decodes the text of arguments."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 1

    def _token(self) -> re.Match[str]:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            raise KeyTextError(f"key has an unreadable part: {self._text[self._at : self._at + 40]!r}")
        self._at = found.end()
        return found

    def arguments(self) -> Arguments:
        """Returns the arguments."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        if self._text[self._at :] == "]":
            return (), {}
        while True:
            token = self._token()
            if token[1] is not None:
                kwargs[unquote_name(token[1].encode())] = self._value(self._token(), 0)
            elif kwargs:
                raise KeyTextError("key has a positional argument after one with a name")
            else:
                args.append(self._value(token, 0))
            end = self._token()[0]
            if end == "]" and self._at == len(self._text):
                return tuple(args), kwargs
            if end != ",":
                raise KeyTextError("key has an unreadable part")

    def _items(self, depth: int) -> list[Any]:
        if depth > 50:
            raise KeyTextError("key is nested too deeply")
        items: list[Any] = []
        token = self._token()
        if token[0] == ")":
            return items
        while True:
            items.append(self._value(token, depth))
            end = self._token()[0]
            if end == ")":
                return items
            if end != ",":
                raise KeyTextError("key has an unreadable part")
            token = self._token()

    def _value(self, token: re.Match[str], depth: int) -> Any:
        whole = token[0]
        if token[3] is not None:
            return _of_quoted(token[2], token[3])
        if whole == "(":
            return tuple(self._items(depth + 1))
        if whole == "s(":
            return frozenset(self._items(depth + 1))
        if whole in _WORDS:
            return _WORDS[whole]
        if whole[-1] in "=,)]":
            raise KeyTextError("key has an unreadable part")
        return float(whole) if "." in whole or "e" in whole or "inf" in whole or whole == "nan" else int(whole)


_WORDS: Final = {"null": None, "true": True, "false": False}


def _of_quoted(mark: str, text: str) -> Any:
    if mark == "":
        return unquote_to_bytes(text).decode("utf-8", "surrogatepass")
    if mark == "b":
        return unquote_to_bytes(text)
    if mark == "f":
        return float(text)
    if mark in "dD":
        return Decimal(text)
    if mark == "u":
        return UUID(hex=text)
    if mark == "t":
        return datetime.datetime.fromisoformat(text)
    if mark == "c":
        return datetime.date.fromisoformat(text)
    if mark == "h":
        return datetime.time.fromisoformat(text)
    if mark == "p":
        days, seconds, microseconds = text.split(",")
        return datetime.timedelta(int(days), int(seconds), int(microseconds))
    raise KeyTextError(f"key has a value of an unknown type {mark!r}")


def arguments_of(text: str) -> Arguments:
    """Returns the arguments that a text encodes.

    Args:
        text: The text.

    Raises:
        KeyTextError: It encodes none.
    """
    if len(text) < 2 or text[0] != "[":
        raise KeyTextError("key does not begin with its arguments")
    try:
        return _Reader(text).arguments()
    except KeyTextError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise KeyTextError(f"key has an unreadable value: {error}") from error


def hashed(text: str) -> bytes:
    """Returns the name of arguments whose text is too long: its hash.

    Args:
        text: The text.
    """
    return b"#" + blake2b(text.encode("utf-8"), digest_size=16).hexdigest().encode()


def wire_key(key: bytes) -> bytes:
    """Returns a key as it is sent to memcached: itself, or its hash if it is too long.

    Args:
        key: The key.
    """
    if len(key) <= LONGEST_ON_MEMCACHED:
        return key
    return b"#" + blake2b(key, digest_size=16).hexdigest().encode()
