"""What hotset's backends share: keys as Django makes them, in one step where that is possible."""

from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.core.cache.backends.base import DEFAULT_TIMEOUT, MEMCACHE_MAX_KEY_LENGTH, BaseCache, default_key_func
from django.core.exceptions import ImproperlyConfigured

# The methods that make keys, which a subclass may override.
_KEY_METHODS = ("make_key", "validate_key", "make_and_validate_key")


def describe_alias(location: Any, params: Mapping[str, Any]) -> str:
    """Returns the name of these settings for an error message: the alias that has them.

    Args:
        location: LOCATION of the alias.
        params: The other settings of the alias.
    """
    for alias, given in settings.CACHES.items():
        others = {name: value for name, value in given.items() if name not in ("BACKEND", "LOCATION")}
        if others == params and given.get("LOCATION", "") == location:
            return f"CACHES[{alias!r}]"
    return f"a hotset backend at LOCATION {location!r}"


class Backend(BaseCache):
    """The base of hotset's backends.

    Args:
        location: LOCATION of the alias.
        params: The other settings of the alias.

    Raises:
        ImproperlyConfigured: A setting is unknown, or has a value of the wrong type.
    """

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        found = self.setting_errors(location, params)
        if found:
            raise ImproperlyConfigured(f"{describe_alias(location, params)}: {'; '.join(found)}")
        # Set first: `_set_head` reads these before `BaseCache` has set all three.
        self._key_prefix: Any = ""
        self._version: Any = 1
        self._key_func: Callable[..., str] = default_key_func
        # A subclass that overrides the making of keys has no fast path.
        self._own_keys = any(getattr(type(self), name) is not getattr(BaseCache, name) for name in _KEY_METHODS)
        super().__init__(params)

    @classmethod
    def setting_errors(cls, location: Any, params: Mapping[str, Any]) -> list[str]:
        """Returns the errors in the settings of an alias, a sentence each.

        Args:
            location: LOCATION of the alias.
            params: The other settings of the alias.
        """
        raise NotImplementedError

    @classmethod
    def setting_warnings(cls, params: Mapping[str, Any]) -> list[str]:
        """Returns the settings of an alias that have no effect, a sentence each.

        Args:
            params: The other settings of the alias.
        """
        raise NotImplementedError

    def top_keys(self, limit: int = 10) -> list[str]:
        """Returns the hottest keys of this process, with prefix and version.

        Args:
            limit: The greatest number of keys.
        """
        raise NotImplementedError

    # --- Numbers and versions.

    def decr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """Subtracts `delta` from the value for `key`, as `incr` adds it. The timeout stays.

        Args:
            key: The key.
            delta: The number to subtract.
            version: The version of the key; None for that of the alias.

        Returns:
            The difference.

        Raises:
            ValueError: The key is absent.
            Unavailable: Of a `TieredCache`: the server did not answer; it may have counted, or not.
        """
        return self.incr(key, -delta, version)

    def decr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Moves the value for `key` to the version `version - delta`, as `incr_version` does.

        Args:
            key: The key.
            delta: The number to subtract from the version.
            version: The version of the key; None for that of the alias.

        Returns:
            The new version.

        Raises:
            ValueError: The key is absent.
            Unavailable: Of a `TieredCache`: the server did not answer.
        """
        return self.incr_version(key, -delta, version)

    # --- Keys: those of `make_and_validate_key`, built in one step if the key function is Django's.

    def _set_head(self) -> None:
        fast = self._key_func is default_key_func and not self._own_keys
        self._head: str | None = f"{self._key_prefix!s}:{self._version!s}:" if fast else None

    @property
    def key_prefix(self) -> Any:
        """The setting KEY_PREFIX."""
        return self._key_prefix

    @key_prefix.setter
    def key_prefix(self, value: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._key_prefix = value
        self._set_head()

    @property
    def version(self) -> Any:
        """The setting VERSION."""
        return self._version

    @version.setter
    def version(self, value: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._version = value
        self._set_head()

    @property
    def key_func(self) -> Callable[..., str]:
        """The setting KEY_FUNCTION."""
        return self._key_func

    @key_func.setter
    def key_func(self, value: Callable[..., str]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._key_func = value
        self._set_head()

    def _key(self, key: Any, version: Any) -> str:
        head = self._head
        if head is None:
            return self.make_and_validate_key(key, version=version)
        made = f"{head}{key!s}" if version is None else f"{self._key_prefix!s}:{version!s}:{key!s}"
        # A printable string has no control characters, but may have spaces.
        if len(made) > MEMCACHE_MAX_KEY_LENGTH or " " in made or not made.isprintable():
            self.validate_key(made)
        return made

    def _lifetime(self, timeout: Any) -> Any:
        return self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
