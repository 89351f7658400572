"""How `TieredCache` stores values: immutable ones as they are, all others encoded.

This holds for this process and for the server.
"""

from collections.abc import Callable
from typing import Any, Final, final

from hotset._codecs import PICKLE, Codec
from hotset._hotset import dumps, loads
from hotset._values import Copy, is_immutable

_PLAIN: Final = b"\0"
_ENCODED: Final = b"\1"


class Encoded(bytes):
    """An encoded value. The type distinguishes it from a bytes value."""

    __slots__ = ()


@final
class Format:
    """Makes the stored form of values, and the bytes of that for the server.

    With `copy="pickle"`, the first tier stores values that are not immutable in encoded form, and
    each caller gets them decoded anew. With `copy="none"`, it stores the object.

    Args:
        codec: Encodes and decodes values.
        copy: "pickle" or "none".
    """

    def __init__(self, codec: Codec, copy: Copy) -> None:
        # A part of the keys' names on the server: values of another format have other keys.
        self.__name__: Final = f"django {codec.name}"
        self._encode = codec.dumps
        self._decode: Callable[[bytes], Any] = codec.loads
        # pickle takes a subclass of bytes as it is.
        self._decode_held: Callable[[bytes], Any] = codec.loads if codec is PICKLE else lambda held: codec.loads(bytes(held))
        self._copies = copy == "pickle"

    # --- Values and their stored form.

    def freeze(self, value: Any) -> Any:
        """Returns the stored form of a value in the first tier.

        Args:
            value: The value.
        """
        return Encoded(self._encode(value)) if self._copies and not is_immutable(value) else value

    def thaw(self, stored: Any) -> Any:
        """Returns the value of a stored form: a copy, unless it is immutable.

        Args:
            stored: What `freeze` returned.
        """
        return self._decode_held(stored) if type(stored) is Encoded else stored

    # --- Called by `hotset.TieredCache`, as those of a codec.

    def dumps(self, stored: Any, /) -> bytes:
        """Returns the bytes of a stored form.

        Args:
            stored: What `freeze` returned.
        """
        if type(stored) is Encoded:
            return _ENCODED + stored
        if is_immutable(stored):
            try:
                return _PLAIN + dumps(stored)
            except TypeError:
                # The native codec has no complex numbers.
                pass
        return _ENCODED + self._encode(stored)

    def loads(self, data: bytes, /) -> Any:
        """Returns the stored form that `dumps` encoded.

        Args:
            data: The bytes.

        Raises:
            ValueError: The bytes are of an unknown kind.
        """
        kind, payload = data[:1], data[1:]
        if kind == _PLAIN:
            return loads(payload)
        if kind != _ENCODED:
            raise ValueError(f"value is of the unknown kind {kind!r}")
        return Encoded(payload) if self._copies else self._decode(payload)
