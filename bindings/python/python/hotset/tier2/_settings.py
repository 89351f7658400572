"""Validates the settings of caches on a second tier."""

from typing import Any, Final

from hotset._settings import checked_seconds
from hotset.tier2._operations import NO_END
from hotset.tier2._space import SpaceSettings

WITH_BUS: Final = 60.0
"""Seconds for which a value stays in the first tier without new confirmation, by default, where the
server announces changes.
"""
WITHOUT_BUS: Final = 5.0
"""The same, where it does not."""


def nanoseconds(name: str, value: Any, default: int) -> int:
    """Returns a duration in nanoseconds.

    Args:
        name: The name of the setting, for messages.
        value: Seconds or a timedelta; None for the default.
        default: Nanoseconds.
    """
    given = checked_seconds(name, value)
    return default if given is None else max(1, min(NO_END, int(given * 1e9)))


def grace(name: str, value: Any) -> int:
    """Returns a duration after the expiration of a value, in nanoseconds; 0 for None.

    Args:
        name: The name of the setting, for messages.
        value: Seconds or a timedelta, or None.
    """
    return nanoseconds(name, value, 0)


def core_settings(*, early_reload: Any, lease: Any, lease_wait: Any, load_timeout: Any) -> dict[str, Any]:
    """Returns the settings of the core that all caches on a server share.

    Args:
        early_reload, lease, lease_wait, load_timeout: As of `Redis`.
    """
    if isinstance(early_reload, bool) or not isinstance(early_reload, int | float):
        raise TypeError(f"early_reload must be a number, not {type(early_reload).__name__}")
    if not 0 <= early_reload <= 100:
        raise ValueError(f"early_reload must be from 0 to 100, not {early_reload}")
    return {
        "lease": nanoseconds("lease", lease, 1_500_000_000),
        "lease_wait": grace("lease_wait", lease_wait),
        "load_timeout": nanoseconds("load_timeout", load_timeout, 60_000_000_000),
        "early_reload": float(early_reload),
    }


def space_settings(
    *, defaults: dict[str, Any], has_bus: bool, ttl: Any, local_ttl: Any, stale_while_revalidate: Any, stale_if_error: Any
) -> SpaceSettings:
    """Returns the settings of a cache on a second tier.

    Args:
        defaults: What `core_settings` returned.
        has_bus: Whether the server's announcements are subscribed to.
        ttl, local_ttl: As of `TieredCache`.
        stale_while_revalidate, stale_if_error: As of `TieredCache`.
    """
    lasting = nanoseconds("ttl", ttl, NO_END)
    if ttl is None and (stale_while_revalidate is not None or stale_if_error is not None):
        raise TypeError("stale_while_revalidate and stale_if_error need a ttl: they count from the end of the ttl")
    by_default = WITH_BUS if has_bus else WITHOUT_BUS
    local = min(lasting, nanoseconds("local_ttl", local_ttl, int(by_default * 1e9)))
    # With bus=None, an explicit local_ttl is the user's bound on the age of values.
    unsynced = local if local_ttl is not None and not has_bus else min(local, int(WITHOUT_BUS * 1e9))
    return SpaceSettings(
        ttl=lasting,
        local_ttl=local,
        unsynced_ttl=unsynced,
        stale_while_revalidate=grace("stale_while_revalidate", stale_while_revalidate),
        stale_if_error=grace("stale_if_error", stale_if_error),
        **defaults,
    )


def lifetime(ttl: Any) -> int:
    """Returns the ttl of one value in nanoseconds; 0 for `...`, the ttl of the cache.

    Args:
        ttl: Seconds or a timedelta, None for no expiration, or `...`.

    Raises:
        ValueError: It is 0 or less.
    """
    if ttl is ...:
        return 0
    return nanoseconds("ttl", ttl, NO_END)
