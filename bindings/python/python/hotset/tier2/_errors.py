"""Errors of the second tier."""

from typing import Final, Literal, final

Kind = Literal["refused", "timeout", "reset", "protocol", "auth", "unresolved", "loading", "closed"]


@final
class Unavailable(Exception):
    """The second tier cannot be reached, or did not confirm an operation that must not be lost.

    Raised only where an answer without the second tier would be wrong: by `add`, `incr` and
    `touch`, with `strict=True`, and with `on_down="raise"`.

    Example:
        >>> import hotset
        >>> from hotset.tier2 import Redis, Unavailable
        >>> server = Redis("redis://127.0.0.1:1/0", prefix="shop")  # where no server listens
        >>> visits: hotset.TieredCache[str, int] = hotset.TieredCache(server, "visits")
        >>> try:
        ...     visits.incr("home")
        ... except Unavailable:
        ...     print("not counted")
        not counted
        >>> server.close()
    """


@final
class Failed(Exception):
    """A request without a whole reply.

    Attributes:
        kind: The reason.
        sent: Whether the server may have executed it: False only if no byte of it was sent.
    """

    def __init__(self, kind: Kind, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.kind: Final[Kind] = kind
        self.sent: Final = sent
