"""Reads the outcomes of operations for the callers of a `TieredCache`."""

from hotset.tier2._errors import Unavailable
from hotset.tier2._needs import Outcome
from hotset.tier2._resp import ServerError


def confirmed(is_confirmed: bool, strict: bool) -> bool:
    """Returns whether an invalidation was confirmed.

    Args:
        is_confirmed: Whether it was.
        strict: Whether it must be.

    Raises:
        Unavailable: It was not, and must be.
    """
    if strict and not is_confirmed:
        raise Unavailable("the second tier did not confirm the invalidation, which is repeated when it answers")
    return is_confirmed


def answered(outcome: Outcome) -> bool:
    """Returns whether a change was confirmed.

    Raises:
        Unavailable: The server did not answer.
    """
    if not outcome.is_answered:
        raise Unavailable("the second tier did not answer")
    return outcome.is_confirmed


def counted(outcome: Outcome) -> int:
    """Returns the sum that a counter has reached.

    Raises:
        Unavailable: The server did not count, or did not answer.
    """
    reply = outcome.value
    if isinstance(reply, ServerError):
        raise Unavailable(f"the second tier did not count: {reply}")
    if not outcome.is_answered or not isinstance(reply, int):
        raise Unavailable("the second tier did not answer: it may have counted, or not")
    return reply
