"""The protocol of Redis and Valkey: encodes commands, and parses replies of RESP2 and RESP3.

Bulk strings are bytes, simple strings are str, nulls are None, errors are `ServerError` objects
(returned, not raised), and RESP3's pushes are `Push` lists. The parser is incremental: it takes
pieces of any size.
"""

import re
from typing import Any, Final, final

from hotset import _hotset

__all__ = ["INCOMPLETE", "Parser", "ProtocolError", "Push", "ServerError", "encode", "encode_many"]

Argument = bytes | int
Command = tuple[Argument, ...]

MAX_BULK: Final = 512 << 20
"""The longest bulk string that the parser accepts, in bytes: Redis's own default limit."""
_MAX_ITEMS: Final = 1 << 20
_MAX_DEPTH: Final = 32
_MAX_LINE: Final = 64 << 10
_QUICK: Final = 20


class ProtocolError(Exception):
    """The bytes are not a reply of a Redis server."""


@final
class ServerError(Exception):
    """An error reply.

    Attributes:
        code: Its first word, such as "ERR", "OOM" or "MOVED".
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class Push(list[Any]):
    """A RESP3 message that answers no command: its kind (bytes), then its parts."""


_INVALIDATION: Final = re.compile(rb">2\r\n\$10\r\ninvalidate\r\n\*1\r\n\$(\d{1,6})\r\n")


@final
class _Incomplete:
    def __repr__(self) -> str:
        return "INCOMPLETE"


INCOMPLETE: Final = _Incomplete()
"""The result of `Parser.next` while the next reply is incomplete."""


def encode(*arguments: Argument) -> bytes:
    """Returns an encoded command.

    Args:
        *arguments: The parts of the command.
    """
    data = [argument if isinstance(argument, bytes) else b"%d" % argument for argument in arguments]
    return b"*%d\r\n%b" % (len(data), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in data]))


def quick_reply(data: bytes) -> Any:
    """Returns the reply in these bytes if it is short, whole and simple; else `INCOMPLETE`.

    Faster than a `Parser`.

    Args:
        data: The bytes.
    """
    if len(data) > _QUICK or data[-2:] != b"\r\n":
        return INCOMPLETE
    kind = data[:1]
    if kind == b":":
        number = data[1:-2]
        return int(number) if number.isdigit() else INCOMPLETE
    if kind == b"+":
        return "OK" if data == b"+OK\r\n" else INCOMPLETE
    return None if data == b"$-1\r\n" else INCOMPLETE


_core: Any = _hotset
bulk_strings: Final = _core.bulk_strings
"""Returns the reply in these bytes if it is a whole array of bulk strings; else None.

Much faster than a `Parser`.
"""


def encode_many(commands: list[Command]) -> bytes:
    """Returns an encoded pipeline of commands.

    Args:
        commands: The commands.
    """
    return b"".join([encode(*command) for command in commands])


@final
class _OpenAggregate:
    """An aggregate whose items are still being read."""

    __slots__ = ("items", "kind", "missing")

    def __init__(self, kind: int, missing: int) -> None:
        self.kind = kind
        self.missing = missing
        self.items: list[Any] = []

    def value(self) -> Any:
        """Returns the whole aggregate."""
        if self.kind == _MAP:
            return [(self.items[at], self.items[at + 1]) for at in range(0, len(self.items), 2)]
        return Push(self.items) if self.kind == _PUSH else self.items


_BULK, _SIMPLE, _ERROR, _INTEGER, _ARRAY = b"$+-:*"
_NULL, _DOUBLE, _BOOLEAN, _BLOB_ERROR, _VERBATIM, _BIG, _MAP, _SET, _ATTRIBUTE, _PUSH = b"_,#!=(%~|>"
_AGGREGATES: Final = frozenset((_ARRAY, _MAP, _SET, _PUSH, _ATTRIBUTE))


@final
class Parser:
    """Parses a stream of bytes into replies."""

    __slots__ = ("_at", "_buffer", "_needed", "_open")

    _at: int
    _buffer: bytearray
    _needed: int

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        # The length of the buffer before which the next reply cannot be complete.
        self._needed = 0
        self._open: list[_OpenAggregate] = []

    @property
    def is_empty(self) -> bool:
        """Whether no part of a further reply was fed."""
        return self._at == len(self._buffer) and not self._open

    def feed(self, data: bytes) -> None:
        """Appends received bytes.

        Args:
            data: The bytes.
        """
        if self._at and (self._at == len(self._buffer) or self._at > _MAX_LINE):
            del self._buffer[: self._at]
            self._needed = max(0, self._needed - self._at)
            self._at = 0
        self._buffer += data

    def invalidations(self) -> list[bytes]:
        """Returns the keys of the next messages, as long as each invalidates one key.

        Faster than `next`.
        """
        keys: list[bytes] = []
        if self._open:
            return keys
        buffer, at = self._buffer, self._at
        while (found := _INVALIDATION.match(buffer, at)) is not None:
            begin = found.end()
            end = begin + int(found[1])
            if len(buffer) < end + 2:
                break
            keys.append(bytes(buffer[begin:end]))
            at = end + 2
        self._at = at
        return keys

    def next(self) -> Any:
        """Returns the next reply, or `INCOMPLETE`.

        Raises:
            ProtocolError: The bytes are not a reply; the connection is of no further use.
        """
        while True:
            value = self._scalar()
            if value is INCOMPLETE:
                return value
            if isinstance(value, _OpenAggregate):
                if value.missing:
                    self._open.append(value)
                    if len(self._open) > _MAX_DEPTH:
                        raise ProtocolError("reply is nested too deeply")
                    continue
                value = value.value()
            while self._open:
                innermost = self._open[-1]
                innermost.items.append(value)
                innermost.missing -= 1
                if innermost.missing:
                    break
                self._open.pop()
                # Attributes describe the reply that follows. They are not used.
                if innermost.kind == _ATTRIBUTE:
                    break
                value = innermost.value()
            else:
                return value

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", self._at + 1)
        if end < 0:
            if len(self._buffer) - self._at > _MAX_LINE:
                raise ProtocolError("reply has an unterminated line")
            return None
        return bytes(self._buffer[self._at + 1 : end])

    def _scalar(self) -> Any:
        buffer = self._buffer
        if len(buffer) < self._needed or self._at >= len(buffer):
            return INCOMPLETE
        kind = buffer[self._at]
        if kind not in _KINDS:
            raise ProtocolError(f"server does not use the protocol of Redis: {bytes(buffer[self._at : self._at + 40])!r}")
        line = self._line()
        if line is None:
            return INCOMPLETE
        after = self._at + len(line) + 3
        if kind in (_BULK, _VERBATIM, _BLOB_ERROR):
            length = _number(line)
            if length == -1:
                self._at = after
                return None
            if not 0 <= length <= MAX_BULK:
                raise ProtocolError(f"reply announces {length} bytes")
            end = after + length
            if len(buffer) < end + 2:
                self._needed = end + 2
                return INCOMPLETE
            with memoryview(buffer) as view:
                value = view[after:end].tobytes()
            self._at = end + 2
            if kind == _VERBATIM:
                return value[4:]
            return ServerError(value.decode("utf-8", "replace")) if kind == _BLOB_ERROR else value
        self._at = after
        if kind == _INTEGER:
            return _number(line)
        if kind in _AGGREGATES:
            count = _number(line)
            if count == -1:
                return None
            if not 0 <= count <= _MAX_ITEMS:
                raise ProtocolError(f"reply announces {count} items")
            if kind == _ATTRIBUTE and not count:
                return self._scalar()
            return _OpenAggregate(kind, count * 2 if kind in (_MAP, _ATTRIBUTE) else count)
        return _simple(kind, line)


def _number(line: bytes) -> int:
    try:
        return int(line)
    except ValueError:
        raise ProtocolError(f"reply has {line[:40]!r} where a number must be") from None


def _simple(kind: int, line: bytes) -> Any:
    if kind == _SIMPLE:
        return line.decode("utf-8", "replace")
    if kind == _ERROR:
        return ServerError(line.decode("utf-8", "replace"))
    if kind == _NULL:
        return None
    if kind == _BOOLEAN:
        return line == b"t"
    if kind == _BIG:
        return _number(line)
    try:
        return float(line)
    except ValueError:
        raise ProtocolError(f"reply has {line[:40]!r} where a number must be") from None


_KINDS: Final = frozenset(b"$+-:*_,#!=(%~|>")
