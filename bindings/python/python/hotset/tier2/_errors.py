"""Errors of the second tier."""

from typing import Final, Literal, final

Kind = Literal["refused", "timeout", "reset", "protocol", "auth", "unresolved", "loading", "closed"]


@final
class Unavailable(Exception):
    """The second tier cannot be reached, or did not confirm an operation that must not be lost.

    Raised only where an answer without the second tier would be wrong (`add`, `incr`, `touch`, `strict=True`, `on_down="raise"`).
    """


@final
class Failed(Exception):
    """A request that got no whole reply.

    Attributes:
        kind: Why.
        sent: Whether the server may have executed it: False only if no byte of it was sent.
    """

    def __init__(self, kind: Kind, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.kind: Final[Kind] = kind
        self.sent: Final = sent
