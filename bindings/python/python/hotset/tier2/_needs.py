"""What operations need of their callers: requests, loads and waits; and their outcomes."""

from collections.abc import Callable, Generator
from typing import Any, final

from hotset.tier2._commands import Abilities

Command = Any
"""A command as the server's protocol has it: a tuple for Redis, bytes for memcached."""


@final
class Send:
    """Commands for a server. Answered by `(epoch, replies, abilities)`, or by `Failed`."""

    __slots__ = ("build", "number")

    def __init__(self, number: int, build: Callable[[int, Abilities], list[Command]]) -> None:
        self.number = number
        self.build = build
        """Called with the connection's id and the server's abilities, right before the commands are
        sent.
        """


@final
class Load:
    """A call of the user's loader. Answered by its value, or by `Raised`."""

    __slots__ = ("is_limited", "key")

    def __init__(self, key: bytes, is_limited: bool) -> None:
        self.key = key
        self.is_limited = is_limited


@final
class Wait:
    """A wait until a deadline, or a change of the key."""

    __slots__ = ("key", "until")

    def __init__(self, key: bytes, until: int) -> None:
        self.key = key
        self.until = until


@final
class Probe:
    """A new connection to a server, to learn its identity and abilities."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


@final
class Background:
    """A stale value, which the caller gets now. Answered once the operation continues elsewhere."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


@final
class Raised:
    """An exception of a loader."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


@final
class Outcome:
    """The outcome of an operation.

    Attributes:
        value: The value; MISSING if there is none.
        keep_until: Until when the first tier may store it; 0: not at all.
        is_confirmed: Whether the second tier has the value, or has performed the operation.
        is_answered: Whether the second tier answered; otherwise it is unknown whether it did
            anything.
        is_filled: Whether the server stored the loaded value. (It may be invalid already, because
            of a `clear`, say: then it is not confirmed.)
        error: The exception of the loader, if there is no other value to return.
    """

    __slots__ = ("error", "is_answered", "is_confirmed", "is_filled", "keep_until", "value")

    def __init__(
        self, value: Any, keep_until: int, is_confirmed: bool, error: BaseException | None = None, *, is_answered: bool = True
    ) -> None:
        self.error = error
        self.is_answered = is_answered
        self.is_filled = False
        self.value = value
        self.keep_until = keep_until
        self.is_confirmed = is_confirmed


Need = Send | Load | Wait | Probe | Background
Steps = Generator[Need, Any, Outcome]
