"""Detects which functions under `cached` are methods, and defines the users' methods of bound ones.

A function is a method if it is defined in the body of the class, or if `method` is True. The body
of a class is executed while its functions are decorated, so its frame is then on the stack. A
function that is taken from a finished class, or that the body of a class only names, is an ordinary
argument of `cached`.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from os.path import dirname
from types import FrameType
from typing import Any, NamedTuple, cast

from hotset._hotset import BoundMemo, seal

_PACKAGE = dirname(__file__)


class Place(NamedTuple):
    """Where a function was decorated."""

    method: bool
    """Whether the first argument is a method's instance, as known before the class is finished."""
    scope: str | None
    """The qualified name of the class in whose body it is defined; None for no class."""
    is_explicit: bool
    """Whether the user has decided that by `method`."""


def place_of(function: Callable[..., Any], method: bool | None) -> Place:
    """Returns where `function` is being decorated, and whether that makes it a method.

    A function within another decorator (`property` above all), and an `async def`, is a method if
    its first parameter is named `self` or `cls`. A plain function in the body of a class is a
    method by any name: Python notifies it by `__set_name__` when the class is finished.

    Args:
        function: What is decorated.
        method: What the user passed; None for nothing.

    Returns:
        The place.
    """
    scope = _scope(function)
    if method is not None:
        return Place(bool(method), scope, True)
    return Place(scope is not None and _first_parameter(function) in ("self", "cls", "*"), scope, False)


def _bodies() -> Iterator[tuple[bool, str]]:
    """Yields the classes whose bodies are being executed, innermost first.

    Each is a pair: whether it is the caller's, and its qualified name.
    """
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    is_caller = True
    while frame is not None:
        if dirname(frame.f_code.co_filename) != _PACKAGE:
            if not frame.f_code.co_flags & inspect.CO_OPTIMIZED and "__qualname__" in frame.f_locals:
                yield is_caller, frame.f_locals["__qualname__"]
            is_caller = False
        frame = frame.f_back


def _scope(function: Callable[..., Any]) -> str | None:
    own = getattr(function, "__qualname__", "").rpartition(".")[0]
    for is_caller, body in _bodies():
        if body == own:
            return body
        # A wrapper that a decorator has made without functools.wraps.
        if is_caller and own.endswith("<locals>") and _first_parameter(function) in ("self", "*"):
            return body
    return None


def _first_parameter(function: Callable[..., Any]) -> str | None:
    """Returns the name of the first parameter; "*" if it takes all positional arguments."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    first = next(iter(parameters), None)
    if first is None:
        return None
    return "*" if first.kind is inspect.Parameter.VAR_POSITIONAL else first.name


def is_mixin(owner: type) -> bool:
    """Returns whether a class has no data, so that its subclasses decide what its instances are.

    Args:
        owner: The class.
    """
    return not owner.__itemsize__ and owner.__basicsize__ == object.__basicsize__


def check_instance(function: Any, place: Place, args: tuple[Any, ...], verb: str) -> None:
    """Raises a TypeError if a call such as `Class.method.cache_invalidate(..)` lacks the instance.

    Args:
        function: The cached function.
        place: Where it was decorated.
        args: The positional arguments of the call.
        verb: The name of the called method.

    Raises:
        TypeError: The first argument is no instance of the class.
    """
    if args and (place.scope is None or any(known.__qualname__ == place.scope for known in _classes(args[0]))):
        return
    name = getattr(function, "__qualname__", "the method")
    raise TypeError(f"the instance (of a class method: the class) comes first: {name}.{verb}(instance, ...)")


def _classes(instance: Any) -> tuple[type, ...]:
    classes = type(instance).__mro__
    return (*classes, *instance.__mro__) if isinstance(instance, type) else classes


# The greatest number of defaults of which all combinations are tried.
_MAX_DEFAULTS = 4
Spelling = tuple[tuple[Any, ...], dict[str, Any]]


def spellings(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], least: int) -> list[Spelling]:
    """Returns the calls that mean the same as this one, beginning with it.

    They pass arguments by position or by name, and defaults explicitly or not. Calls with names in
    another order than that of the signature are not among them, unless this one is.

    Args:
        function: What is called.
        args: The positional arguments of the call.
        kwargs: The keyword arguments of the call.
        least: The number of arguments that are positional in any case: 1 for a method's instance.

    Returns:
        Pairs of positional and keyword arguments.
    """
    all_spellings = [(args, kwargs)]
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return all_spellings
    parameters = bound.signature.parameters
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values()):
        return all_spellings
    given = dict(bound.arguments)
    bound.apply_defaults()
    complete = {name: value for name, value in bound.arguments.items() if parameters[name].kind is not inspect.Parameter.VAR_KEYWORD}
    more: dict[str, Any] = {}
    for name in given:
        if parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            more = given[name]
    optional = [name for name, value in complete.items() if _is_default(parameters[name], value)]
    subsets = [given, complete]
    # A parameter at its default may be passed or not: all combinations, if there are few.
    for count in range(len(optional) + 1 if len(optional) <= _MAX_DEFAULTS else 1):
        for names in combinations(optional, count):
            subsets.append({name: value for name, value in complete.items() if name in names or name not in optional})
    for named in subsets:
        named = {name: value for name, value in named.items() if name in complete}
        by_position = [name for name in named if parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY]
        # Positional arguments have no gaps.
        positions = [name for name in parameters][: len(by_position)]
        while by_position != positions:
            by_position, positions = by_position[:-1], positions[:-1]
        only = sum(parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY for name in by_position)
        for count in range(max(only, least), len(by_position) + 1):
            first = tuple(named[name] for name in by_position[:count])
            rest = {name: value for name, value in named.items() if name not in by_position[:count]}
            call = first, {**rest, **more}
            if not any(_is_same_call(call, other) for other in all_spellings):
                all_spellings.append(call)
    return all_spellings


def _is_default(parameter: inspect.Parameter, value: Any) -> bool:
    default = parameter.default
    if value is default:
        return True
    return type(value) is type(default) and isinstance(value, (int, str, float, bytes)) and bool(value == default)


def _is_same_call(one: Spelling, other: Spelling) -> bool:
    """Returns whether two calls are the same by identity: no `__eq__` of an argument is called."""
    (args, kwargs), (other_args, other_kwargs) = one, other
    return (
        len(args) == len(other_args)
        and list(kwargs) == list(other_kwargs)
        and all(a is b for a, b in zip(args, other_args, strict=True))
        and all(kwargs[name] is other_kwargs[name] for name in kwargs)
    )


def _cache_invalidate(self: Any, /, *args: Any, **kwargs: Any) -> bool:
    """Removes the result of this call of the instance's method.

    Args:
        *args: The positional arguments of the call.
        **kwargs: The keyword arguments of the call.

    Returns:
        Whether there was a result.
    """
    return self.__func__.cache_invalidate(self.__self__, *args, **kwargs)  # type: ignore[no-any-return]


def _cache_contains(self: Any, /, *args: Any, **kwargs: Any) -> bool:
    """Returns whether there is a result of this call, without counting a hit or miss."""
    return self.__func__.cache_contains(self.__self__, *args, **kwargs)  # type: ignore[no-any-return]


def _cache_set(self: Any, value: Any, /, *args: Any, **kwargs: Any) -> None:
    """Stores `value` as the result of this call of the instance's method."""
    self.__func__.cache_set(value, self.__self__, *args, **kwargs)


def _cache_refresh(self: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Calls the instance's method and stores its result, joining a call in progress."""
    return self.__func__.cache_refresh(self.__self__, *args, **kwargs)


class CachedClassMethod(classmethod):  # type: ignore[type-arg]
    """A class method under `cached`: its methods for users know the class that it is looked up on.
    """

    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        function: Any = cast(Any, self).__func__
        return BoundMemo(function, cast(Any, type(instance)) if owner is None else owner)


def _signature(self: Any) -> inspect.Signature:
    signature = inspect.signature(self.__func__)
    first = next(iter(signature.parameters.values()), None)
    if first is None or first.kind is inspect.Parameter.VAR_POSITIONAL:
        return signature
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _repr(self: Any) -> str:
    return f"<bound method {getattr(self.__func__, '__qualname__', '?')} of {self.__self__!r}>"


if "cache_invalidate" not in vars(BoundMemo):  # (It is set already if this module is imported again.)
    for _method in (_cache_invalidate, _cache_contains, _cache_set, _cache_refresh):
        _method.__name__ = _method.__name__.removeprefix("_")
        setattr(BoundMemo, _method.__name__, _method)
    for _name, _value in (
        ("__func__", property(BoundMemo.function)),
        ("__self__", property(BoundMemo.instance)),
        ("__signature__", property(_signature)),
        ("__repr__", _repr),
    ):
        setattr(BoundMemo, _name, _value)
    seal(BoundMemo)
