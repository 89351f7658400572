"""How `TieredCache` holds values: immutable ones as they are, all others encoded, in this process and on the server."""

from collections.abc import Callable
from typing import Any, Final, final

from hotset._codecs import PICKLE, Codec
from hotset._hotset import dumps, loads
from hotset._values import Copy, is_immutable

_PLAIN: Final = b"\0"
_ENCODED: Final = b"\1"


class Encoded(bytes):
    """A value as its codec wrote it. The type tells it from a value of type bytes."""

    __slots__ = ()


@final
class Format:
    """Makes what the first tier holds of values, and bytes of that for the server.

    With `copy="pickle"`, the first tier holds what is not immutable as the codec wrote it, and each caller has it
    decoded anew. With `copy="none"`, it holds the object.
    """

    def __init__(self, codec: Codec, copy: Copy) -> None:
        # (Part of the keys' names on the server: values of another format are other keys.)
        self.__name__: Final = f"django {codec.name}"
        self._encode = codec.dumps
        self._decode: Callable[[bytes], Any] = codec.loads
        # (pickle reads a subclass of bytes as it is.)
        self._decode_held: Callable[[bytes], Any] = codec.loads if codec is PICKLE else lambda held: codec.loads(bytes(held))
        self._copies = copy == "pickle"

    # --- Values and what stands for them.

    def freeze(self, value: Any) -> Any:
        """Returns what the first tier holds for a value."""
        return Encoded(self._encode(value)) if self._copies and not is_immutable(value) else value

    def thaw(self, stored: Any) -> Any:
        """Returns the value of what `freeze` returned: a copy, unless it is immutable."""
        return self._decode_held(stored) if type(stored) is Encoded else stored

    # --- Called by `hotset.TieredCache`, as those of a codec.

    def dumps(self, stored: Any, /) -> bytes:
        """Returns the bytes of what `freeze` returned."""
        if type(stored) is Encoded:
            return _ENCODED + stored
        if is_immutable(stored):
            try:
                return _PLAIN + dumps(stored)
            except TypeError:
                # (The native codec has no complex numbers.)
                pass
        return _ENCODED + self._encode(stored)

    def loads(self, data: bytes, /) -> Any:
        """Returns what `dumps` was called with."""
        kind, payload = data[:1], data[1:]
        if kind == _PLAIN:
            return loads(payload)
        if kind != _ENCODED:
            raise ValueError(f"a value of the unknown kind {kind!r}")
        return Encoded(payload) if self._copies else self._decode(payload)
