"""Describes objects of a program without running its code: digests, sizes, what can change.

No `__hash__`, `__eq__`, `__sizeof__` or property of a user's class is called. Objects of builtin
types are described by their content, and instances of other classes by their attributes, or by
their identity where their class compares by identity. Nothing keeps an object alive.
"""

import ipaddress
import pathlib
import types
import weakref
from array import array
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import count
from re import Pattern
from typing import Any
from uuid import UUID

# How much of an object is described; the rest is ignored, and `is_partial` is set.
MAX_NODES = 500
_MAX_DEPTH = 12
# The digest of -2, which has the hash of -1.
_MINUS_TWO = 0x5DEECE66D1234567

# Types of the standard library whose hashes are of their values and run no code of the program.
_VALUES: tuple[type, ...] = (
    date,
    datetime,
    time,
    timedelta,
    Decimal,
    Fraction,
    UUID,
    Pattern,
    pathlib.PurePosixPath,
    pathlib.PosixPath,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    range,
    complex,
)
_CALLABLES = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type)
# Flags of classes: made at run time, and not to be called.
_HEAP_TYPE, _NO_NEW = 1 << 9, 1 << 7
_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_flags: Callable[[type], int] = type.__dict__["__flags__"].__get__
_basicsize: Callable[[type], int] = type.__dict__["__basicsize__"].__get__
_qualname: Callable[[type], str] = type.__dict__["__qualname__"].__get__
name_of: Callable[[type], str] = type.__dict__["__name__"].__get__
"""Returns the name of a class without calling its metaclass."""
_class_dict: Callable[[type], types.MappingProxyType[str, Any]] = type.__dict__["__dict__"].__get__
_BUFFERS = {("builtins", "bytearray"), ("builtins", "memoryview"), ("array", "array"), ("numpy", "ndarray")}
# The methods of builtin classes, for objects of their subclasses.
_tuple: Any = tuple
_list: Any = list
_deque: Any = deque
_dict: Any = dict
_set: Any = set
_frozenset: Any = frozenset
class_of: Callable[[Any], type[Any]] = type
"""Returns the class of an object, not what it claims by `__class__`."""
_MISSING = object()


class Kind:
    """How the objects of a class are described."""

    __slots__ = ("describe", "own_hash", "reference", "unhashable")

    def __init__(self, kind: type) -> None:
        self.reference = weakref.ref(kind)
        self.own_hash = False
        """Whether the class has a `__hash__` written in Python, which was not called."""
        self.unhashable = False
        self.describe = self._describer(kind)

    def _describer(self, kind: type) -> "Callable[[Description, Any, int], int]":
        bases = _mro(kind)
        # (`in` would call the `__eq__` of a metaclass.)
        if _is_among(kind, _VALUES):
            return Description.value
        if any(_is_among(each, bases) for each in _CALLABLES):
            return Description.callable
        if _is_among(Enum, bases):
            return Description.member
        frozen: tuple[tuple[type[Any], Callable[[Description, Any, int], int]], ...] = (
            (str, Description.string),
            (bytes, Description.bytes),
            (int, Description.integer),
            (float, Description.float),
            (tuple, Description.tuple),
            (frozenset, Description.frozenset),
        )
        for builtin, describe in frozen:
            if _is_among(builtin, bases):
                if kind is not builtin and self._hash_of(bases) is not builtin:
                    self.own_hash = True
                return describe
        changeable: tuple[tuple[type[Any], Callable[[Description, Any, int], int]], ...] = (
            (list, Description.list),
            (deque, Description.deque),
            (dict, Description.dict),
            (set, Description.set),
        )
        for builtin, describe in changeable:
            if _is_among(builtin, bases):
                self.unhashable = self._hash_of(bases) is None
                return describe
        if (_class_dict(kind).get("__module__", "builtins"), name_of(kind)) in _BUFFERS:
            self.unhashable = True
            return Description.buffer
        owner = self._hash_of(bases)
        self.unhashable = owner is None
        self.own_hash = owner is not None and type(_class_dict(owner).get("__hash__")) is types.FunctionType
        return Description.instance_by_identity if owner is object else Description.instance

    @staticmethod
    def _hash_of(bases: tuple[type, ...]) -> type | None:
        """Returns the class that defines `__hash__`; None if it makes its objects unhashable."""
        for base in bases:
            found = _class_dict(base).get("__hash__", _MISSING)
            if found is not _MISSING:
                return None if found is None else base
        return None


def _is_among(kind: type, kinds: tuple[type, ...]) -> bool:
    return any(kind is each for each in kinds)


_kinds: dict[int, Kind] = {}


def kind_of(kind: type) -> Kind:
    """Returns how objects of a class are described.

    Args:
        kind: The class. Its metaclass may define `__hash__`, so it is found by its address.
    """
    found = _kinds.get(id(kind))
    if found is None or found.reference() is not kind:
        found = _kinds[id(kind)] = Kind(kind)
    return found


# Numbers of objects by address. Without callbacks: the handler of a signal could run, and raise, in
# them, and the exception would be lost.
_tokens: dict[int, tuple[weakref.ref[Any], int]] = {}
_next_token = count(1)
_sweep_at = 10_000


def token_of(value: Any) -> int | None:
    """Returns a number that identifies an object while it lives; None if it has no weak references.

    Args:
        value: The object.
    """
    global _sweep_at
    address = id(value)
    found = _tokens.get(address)
    if found is not None and found[0]() is value:
        return found[1]
    number = next(_next_token)
    try:
        _tokens[address] = weakref.ref(value), number
    except TypeError:
        return None
    if len(_tokens) > _sweep_at:
        for dead in [address for address, (reference, _) in list(_tokens.items()) if reference() is None]:
            _tokens.pop(dead, None)
        _sweep_at = max(10_000, 2 * len(_tokens))
    return number


def living_tokens() -> set[int]:
    """Returns the tokens of all objects that live."""
    return {number for reference, number in list(_tokens.values()) if reference() is not None}


def forget_tokens() -> None:
    """Drops the weak references to all objects."""
    _tokens.clear()


class Description:
    """What was found out about the objects that it was called with.

    Attributes:
        nodes: The number of objects that were seen.
        size: Their bytes, estimated.
        changeable: Whether one of them can be changed.
        unhashable: The name of the outermost class whose objects have no hash; "" for none.
        own_hash: The name of a class whose `__hash__` was not called; "" for none.
        by_address: Whether one was recognized by its address only, which another may get later.
        is_opaque: Whether the content of one is unknown: only its identity was used.
        is_partial: Whether there was more than was looked at.
        is_plain: Whether all are of builtin types, so that keeping them alive has no effect.
    """

    __slots__ = ("nodes", "size", "changeable", "unhashable", "own_hash", "by_address", "is_opaque", "is_partial", "is_plain", "by_value")

    def __init__(self, by_value: bool = False) -> None:
        self.by_value = by_value
        self.nodes = self.size = 0
        self.unhashable = self.own_hash = ""
        self.changeable = self.by_address = self.is_opaque = self.is_partial = False
        self.is_plain = True

    def __call__(self, value: Any, depth: int = 0) -> int:
        """Returns a digest of `value`: equal for objects that are equal, as far as is known.

        Args:
            value: The object.
            depth: How deep it is within another.
        """
        kind = class_of(value)
        self.nodes += 1
        if kind is int:
            self.size += 32
            return hash(value) if value != -2 else _MINUS_TWO
        if kind is str:
            self.size += 49 + len(value)
            return hash(value)
        if value is None:
            return 0x7A11
        if kind is bool:
            return int(value)
        if self.nodes > MAX_NODES or depth > _MAX_DEPTH:
            self.is_partial = True
            return 0
        found = kind_of(kind)
        if found.unhashable and not self.unhashable:
            self.unhashable = name_of(kind)
        if found.own_hash and not self.own_hash:
            self.own_hash = name_of(kind)
        return found.describe(self, value, depth + 1)

    def value(self, value: Any, depth: int) -> int:
        self.size += 64
        return hash(("value", name_of(class_of(value)), hash(value)))

    def string(self, value: Any, depth: int) -> int:
        self.is_plain &= type(value) is str
        text = str.__str__(value)
        self.size += 49 + len(text)
        return hash(text)

    def bytes(self, value: Any, depth: int) -> int:
        self.is_plain &= type(value) is bytes
        self.size += 33 + bytes.__len__(value)
        return hash((b"bytes", bytes.__hash__(value)))

    def integer(self, value: Any, depth: int) -> int:
        self.is_plain &= type(value) is int
        self.size += 32
        number = int.__int__(value)
        return hash(number) if number != -2 else _MINUS_TWO

    def float(self, value: Any, depth: int) -> int:
        self.is_plain &= type(value) is float
        self.size += 24
        number = float.__float__(value)
        # Not `hash(nan)`, which is of its address.
        return hash(number) if number != -2.0 and number == number else (_MINUS_TWO if number == -2.0 else 0x9A9)

    def tuple(self, value: Any, depth: int) -> int:
        self.is_plain &= type(value) is tuple
        self.size += 40 + 8 * _tuple.__len__(value)
        return hash(("tuple", *[self(each, depth) for each in self._first(_tuple.__iter__(value))]))

    def list(self, value: Any, depth: int) -> int:
        self.changeable = True
        self.is_plain &= type(value) is list
        self.size += 56 + 8 * _list.__len__(value)
        return hash(("list", *[self(each, depth) for each in self._first(_list.__iter__(value))]))

    def deque(self, value: Any, depth: int) -> int:
        self.changeable = True
        self.is_plain &= type(value) is deque
        self.size += 600 + 8 * _deque.__len__(value)
        return hash(("deque", *[self(each, depth) for each in self._first(_deque.__iter__(value))]))

    def dict(self, value: Any, depth: int) -> int:
        self.changeable = True
        self.is_plain &= type(value) is dict
        self.size += 64 + 100 * _dict.__len__(value)
        items = [(self(key, depth), self(each, depth)) for key, each in self._first(iter(_dict.items(value)))]
        # Equal dicts may have their keys in another order.
        return hash(("dict", *sorted(items)))

    def set(self, value: Any, depth: int) -> int:
        self.changeable = True
        self.is_plain &= type(value) is set
        self.size += 200 + 32 * _set.__len__(value)
        return hash(("set", *sorted(self(each, depth) for each in self._first(_set.__iter__(value)))))

    def frozenset(self, value: Any, depth: int) -> int:
        self.is_plain &= type(value) is frozenset
        self.size += 200 + 32 * _frozenset.__len__(value)
        # Equal to a set of the same values.
        return hash(("set", *sorted(self(each, depth) for each in self._first(_frozenset.__iter__(value)))))

    def _first(self, values: Any) -> Any:
        """Yields values, as many as may still be seen."""
        for each in values:
            if self.nodes >= MAX_NODES:
                self.is_partial = True
                return
            yield each

    def buffer(self, value: Any, depth: int) -> int:
        self.changeable = True
        self.is_plain &= class_of(value) is bytearray or class_of(value) is array
        try:
            with memoryview(value) as view:
                self.size += 80 + view.nbytes
                if view.nbytes > 1 << 20 or not view.contiguous:
                    self.is_partial = True
                    return hash(("buffer", view.nbytes))
                return hash(("buffer", view.format, view.shape, view.tobytes()))
        except (TypeError, ValueError, NotImplementedError):
            # numpy's arrays of objects.
            return self.opaque(value, depth)

    def member(self, value: Any, depth: int) -> int:
        self.is_plain = False
        return hash(("member", id(value)))

    def callable(self, value: Any, depth: int) -> int:
        self.is_plain = False
        if type(value) is types.BuiltinFunctionType or type(value) is type:
            return hash(("named", id(value)))
        if type(value) is types.MethodType:
            return hash(("method", self(value.__func__, depth), self(value.__self__, depth)))
        return self.identity(value, depth)

    def identity(self, value: Any, depth: int) -> int:
        self.is_plain = False
        self.size += 16
        number = token_of(value)
        if number is None:
            self.by_address = True
            return hash(("address", id(value)))
        return hash(("token", number))

    def opaque(self, value: Any, depth: int) -> int:
        self.is_opaque = self.changeable = True
        return self.identity(value, depth)

    def instance_by_identity(self, value: Any, depth: int) -> int:
        if self.by_value:
            return self.instance(value, depth)
        self.changeable = True
        return self.identity(value, depth)

    def instance(self, value: Any, depth: int) -> int:
        """Describes an object by its attributes."""
        self.is_plain = False
        kind = class_of(value)
        attributes = attributes_of(value, kind)
        if attributes is None:
            return self.opaque(value, depth)
        parameters: Any = _class_dict(kind).get("__dataclass_params__")
        is_frozen = name_of(class_of(parameters)) == "_DataclassParams" and bool(parameters.frozen)
        self.changeable |= not is_frozen
        self.size += 56 + 32 * len(attributes)
        described = [(hash(name), self(each, depth)) for name, each in self._first(iter(sorted(attributes.items())))]
        return hash(("instance", _qualname(kind), *described))


def attributes_of(value: Any, kind: type) -> dict[str, Any] | None:
    """Returns the attributes of an object; None if it may have others, or code would run.

    Args:
        value: The object.
        kind: Its class.
    """
    found: dict[str, Any] = {}
    if kind is object:
        return None
    for base in _mro(kind):
        members = _class_dict(base)
        if base is object:
            continue
        # A class of C, whose data is not in attributes.
        if not _flags(base) & _HEAP_TYPE or _flags(base) & _NO_NEW or type(members.get("__new__")) is types.BuiltinFunctionType:
            return None
        for name, member in members.items():
            if type(member) is types.MemberDescriptorType:
                try:
                    found.setdefault(name, member.__get__(value, kind))
                except AttributeError:
                    continue
        getter = members.get("__dict__")
        if type(getter) is types.GetSetDescriptorType:
            content: Any = getter.__get__(value, kind)
            if class_of(content) is dict:
                # A copy in one step, since other threads may change it.
                found.update({name: each for name, each in content.copy().items() if type(name) is str})
    return None if not found and _basicsize(kind) > object.__basicsize__ + 16 else found
