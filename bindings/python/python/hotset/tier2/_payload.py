"""The part of a frame after its head: an encoded value, possibly compressed, named and signed.

The layout, after the head that the native part writes:

    [length of the full key: 4 bytes, the full key]  value  [MAC: 16 bytes]

Three of the head's flags state which parts are present. The full key precedes the value if the name
of the key is a hash. A MAC is keyed BLAKE2b over key, flags, codec, whether there is a value at
all, and everything between head and MAC. It does not cover the head's stamp and deadline, which the
server's scripts rewrite when an entry is expired or touched, nor generations: a writer to the
server can restore a value that was once signed for a key, at any later time.
"""

import hmac
import zlib
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, final

from hotset._codecs import PICKLE, Codec, CodecName, Schema, Serializer, checked_schema, codec_of

COMPRESSED: Final = 1
SIGNED: Final = 2
NAMED: Final = 4
"""The full key precedes the value."""
_KNOWN: Final = COMPRESSED | SIGNED | NAMED
_MAC: Final = 16
_NUMBERS: Final = {"values": 1, "bytes": 2, "json": 3, "pickle": 4}
_OWN: Final = 5


class PayloadError(ValueError):
    """A payload cannot be used: it is a miss, and counted."""


class NotEncodable(Exception):
    """A value cannot be encoded, or is too large: it stays in the first tier."""


@final
class PayloadCodec:
    """Encodes values as payloads, and decodes them.

    Args:
        codec: A codec's name, or a serializer.
        schema: The user's schema.
        compress_over: The size in bytes above which a value is compressed; None for no compression.
        sign: The key of the MAC, 16 to 64 bytes; None for no signatures.
        max_value: The greatest size of an encoded value in bytes.

    Raises:
        TypeError: A setting is of the wrong type.
        ValueError: A setting is out of its range, or the codec is "pickle" without `sign`.
    """

    __slots__ = ("_codec", "_compress_over", "_decode", "_encode", "_largest", "_plain_flags", "_sign", "digest", "number")

    def __init__(
        self,
        codec: CodecName | Serializer = "values",
        *,
        schema: Schema = None,
        compress_over: Any = None,
        sign: Any = None,
        max_value: Any = 16 << 20,
    ) -> None:
        self._codec: Codec = codec_of(codec)
        if self._codec is PICKLE and sign is None:
            raise ValueError(
                "codec='pickle' needs sign=: a pickle runs code of its writer's choice, so one from a shared server is loaded only if a key proves that "
                "your own program wrote it"
            )
        if sign is not None and not isinstance(sign, bytes):
            raise TypeError(f"sign must be bytes, not {type(sign).__name__}")
        if sign is not None and not 16 <= len(sign) <= 64:
            raise ValueError(f"sign must have from 16 to 64 bytes, not {len(sign)}")
        if compress_over is not None and (isinstance(compress_over, bool) or not isinstance(compress_over, int) or compress_over < 0):
            raise ValueError(f"compress_over must be a number of bytes or None, not {compress_over!r}")
        if isinstance(max_value, bool) or not isinstance(max_value, int) or max_value < 1:
            raise ValueError(f"max_value must be a number of bytes, not {max_value!r}")
        self._encode: Callable[[Any], Any] = self._codec.dumps
        self._decode: Callable[[bytes], Any] = self._codec.loads
        self._compress_over: int | None = compress_over
        self._sign: bytes | None = sign
        self._largest: int = max_value
        self._plain_flags = 0 if sign is None else SIGNED
        self.number: Final = _NUMBERS.get(self._codec.name, _OWN)
        text = repr((self._codec.name, checked_schema(schema)))
        self.digest: Final = blake2b(text.encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()
        """8 hex digits of codec and schema, for the keys: programs that differ in them do not share
        values.
        """

    @property
    def decode_plain(self) -> Callable[[bytes], Any] | None:
        """Decodes a payload without flags and full key; None if payloads are signed: none is plain.
        """
        return None if self._sign is not None else self._decode

    def encode(self, value: Any) -> tuple[int, bytes]:
        """Returns the flags and the bytes of a value.

        Args:
            value: The value.

        Raises:
            NotEncodable: The codec does not take it, or it is larger than `max_value`.
        """
        try:
            encoded = self._encode(value)
            data = encoded if isinstance(encoded, bytes) else bytes(encoded)
        except RecursionError as error:
            raise NotEncodable(f"value is nested too deeply: {error}") from error
        except Exception as error:
            raise NotEncodable(f"codec refused the value: {error}") from error
        flags = 0
        if self._compress_over is not None and len(data) > self._compress_over:
            smaller = zlib.compress(data, 1)
            if len(smaller) < len(data):
                # The length bounds the decompression later.
                data, flags = len(data).to_bytes(4, "big") + smaller, COMPRESSED
        if len(data) > self._largest:
            raise NotEncodable(f"value has {len(data)} bytes, and max_value is {self._largest}")
        return flags, data

    def seal(self, key: bytes, full_key: bytes | None, flags: int, data: bytes, *, negative: bool = False) -> tuple[int, bytes]:
        """Returns the flags and the payload of an encoded value.

        Args:
            key: The name of the key.
            full_key: The full key, if `key` has only its hash; else None.
            flags: The flags of `encode`.
            data: The bytes of `encode`.
            negative: Whether the payload states that there is no value.
        """
        flags |= self._plain_flags
        if full_key is not None:
            flags |= NAMED
            data = len(full_key).to_bytes(4, "big") + full_key + data
        if self._sign is not None:
            data += self._mac(key, flags, data, negative)
        return flags, data

    def _mac(self, key: bytes, flags: int, data: bytes, negative: bool) -> bytes:
        mac = blake2b(key=self._sign or b"", digest_size=_MAC)
        if negative:
            mac.update(b"-")
        mac.update(b"%d %d %d:" % (flags, self.number, len(key)) + key)
        mac.update(data)
        return mac.digest()

    def open(self, key: bytes, full_key: bytes | None, flags: int, codec: int, data: bytes) -> Any:
        """Returns the value of a payload.

        Args:
            key: The name of the key.
            full_key: The full key, if `key` has only its hash; else None.
            flags: The flags of the frame.
            codec: The number of the codec of the frame.
            data: The payload.

        Raises:
            PayloadError: This codec did not write it for this key. Nothing of it was decoded,
                except if the value alone is corrupt.
        """
        if codec != self.number or flags & ~_KNOWN or bool(flags & SIGNED) != (self._sign is not None):
            raise PayloadError("payload is of another codec, or not signed")
        data = self._checked(key, full_key, flags, data, negative=False)
        if flags & COMPRESSED:
            data = _inflate(data)
        try:
            return self._decode(data)
        except Exception as error:
            raise PayloadError(f"payload cannot be decoded: {error}") from error


    def check_negative(self, key: bytes, full_key: bytes | None, flags: int, data: bytes) -> None:
        """Checks the payload of a frame that states that there is no value.

        Args:
            key: The name of the key.
            full_key: The full key, if `key` has only its hash; else None.
            flags: The flags of the frame.
            data: The payload.

        Raises:
            PayloadError: It was not written for this key.
        """
        if flags & ~_KNOWN or bool(flags & SIGNED) != (self._sign is not None):
            raise PayloadError("payload is not signed")
        self._checked(key, full_key, flags, data, negative=True)

    def _checked(self, key: bytes, full_key: bytes | None, flags: int, data: bytes, *, negative: bool) -> bytes:
        """Returns the encoded value of a payload whose signature and full key are right."""
        if flags & SIGNED:
            if not hmac.compare_digest(self._mac(key, flags, data[:-_MAC], negative), data[-_MAC:]):
                raise PayloadError("payload has a wrong signature")
            data = data[:-_MAC]
        if bool(flags & NAMED) != (full_key is not None):
            raise PayloadError("payload has no full key, or an unexpected one")
        if full_key is not None:
            length = int.from_bytes(data[:4], "big")
            if data[4 : 4 + length] != full_key:
                raise PayloadError("payload belongs to another key")
            data = data[4 + length :]
        return data

def _inflate(data: bytes) -> bytes:
    length = int.from_bytes(data[:4], "big")
    # zlib compresses at most 1,032 bytes to one.
    if length > min(1032 * len(data), 1 << 30):
        raise PayloadError("payload has an impossible length")
    inflater = zlib.decompressobj()
    try:
        value = inflater.decompress(data[4:], length + 1)
    except zlib.error as error:
        raise PayloadError(f"payload cannot be decompressed: {error}") from error
    if len(value) != length or not inflater.eof:
        raise PayloadError("payload is truncated")
    return value
