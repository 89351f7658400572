"""One cache on a second tier: its name on the server, its settings, and its first tier."""

import logging
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from hotset._hotset import sync_clock
from hotset.tier2._clock import now
from hotset.tier2._keys import Arguments, KeyTextError, LONGEST, arguments_of, hashed, quote_name, text_of
from hotset.tier2._payload import PayloadCodec

if TYPE_CHECKING:
    from hotset.tier2._server import SecondTier
    from hotset.tier2._session import Session

_log = logging.getLogger("hotset")

# The number of hashed keys whose arguments are recorded, to find them when one is invalidated.
_MOST_HASHED: Final = 100_000
_LONGEST_QUICK: Final = 18


class Mark(Protocol):
    """A load in flight of the first tier, led by this caller.

    `finish` inserts unless the load was invalidated.
    """

    def finish(self, value: Any, ttl: Any = None, /) -> None:
        """Ends the load with a value."""
        ...

    def is_valid(self) -> bool:
        """Returns whether the load has not ended, and was not invalidated."""
        ...

    def abandon(self) -> None:
        """Ends the load without a value."""
        ...


class FirstTier(Protocol):
    """The cache of this process in front of the second tier."""

    def invalidate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Removes the entry of these arguments, in all spellings, and invalidates its load.

        Args:
            args: The positional arguments of the call.
            kwargs: The keyword arguments of the call.
        """

    def mark(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mark:
        """Begins a load of these arguments, in place of any in flight.

        Args:
            args: The positional arguments of the call.
            kwargs: The keyword arguments of the call.

        Returns:
            The load.
        """
        ...

    def clear(self) -> None:
        """Removes all entries, and invalidates all loads."""

    def invalidate_loads(self) -> None:
        """Invalidates all loads in flight: their results are not stored, nor returned later."""

    def set_trust(self, core: Any) -> None:
        """Restricts hits to the time while the second tier's core is trusted.

        Args:
            core: The core.
        """

    def show_tier2(self, namespace: Any) -> None:
        """Has the process's stats file show the counters of the second tier as well.

        Args:
            namespace: The core's `Namespace`.
        """

    def hits(self) -> int:
        """Returns the number of hits."""
        ...

    def entries(self) -> list[tuple[tuple[Any, ...], dict[str, Any], Any]]:
        """Returns the entries: the arguments as the second tier names them, and the value."""
        ...

    def peek(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Returns the value that a caller would get, or MISSING; counts nothing. Possibly O(n).

        Args:
            args: The positional arguments of the call.
            kwargs: The keyword arguments of the call.
        """
        ...


@final
class SpaceSettings:
    """The settings of a cache on a second tier, validated. Durations are in nanoseconds."""

    __slots__ = ("early_reload", "lease", "lease_wait", "load_timeout", "local_ttl", "stale_if_error", "stale_while_revalidate", "ttl", "unsynced_ttl")

    def __init__(
        self,
        *,
        ttl: int,
        local_ttl: int,
        unsynced_ttl: int,
        stale_while_revalidate: int,
        stale_if_error: int,
        lease: int,
        lease_wait: int,
        load_timeout: int,
        early_reload: float,
    ) -> None:
        self.ttl = ttl
        self.local_ttl = local_ttl
        self.unsynced_ttl = unsynced_ttl
        self.stale_while_revalidate = stale_while_revalidate
        self.stale_if_error = stale_if_error
        self.lease = lease
        self.lease_wait = lease_wait
        self.load_timeout = load_timeout
        self.early_reload = early_reload

    def of_core(self) -> dict[str, Any]:
        """Returns the keyword arguments of `Tier2.namespace`."""
        return {name: getattr(self, name) for name in self.__slots__}


@final
class Space:
    """One cache on a second tier. For any thread."""

    def __init__(
        self, server: "SecondTier", name: Any, codec: PayloadCodec, settings: SpaceSettings, first: FirstTier, *, typed: bool = False, owner: object = None
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        if not name:
            raise ValueError("name must not be empty: it distinguishes this cache's keys from those of others")
        self.server: Final = server
        self.name: Final = name
        self.owner: Final = owner
        """The source of the values: equal for caches that may share them."""
        server.claim(self)
        self.codec: Final = codec
        self.settings: Final = settings
        self.first: Final = first
        self._typed = typed
        prefix = quote_name(server.prefix)
        self.kind: Final = b"1" + codec.digest.encode()
        self.quoted_name: Final = quote_name(name)
        self._stem = b"%b:%b:%b:" % (prefix, self.kind, self.quoted_name)
        self._counter_stem = b"%b:n:%b:" % (prefix, self.quoted_name)
        self._native: tuple[Session, Any] | None = None
        self._lock = threading.RLock()
        self._hashed: dict[bytes, str] = {}
        self._has_forgotten = False
        self.not_encodable = 0
        """The number of values that stayed in the first tier: not encodable, or too large."""
        self.verified = 0
        """The number of entries that were compared with the server's values."""
        self.inconsistent = 0
        """The number of these that were returned although the server had another value."""

    def note_not_encodable(self, reason: Exception) -> None:
        """Counts a value that stays in the first tier, and logs the first one.

        Args:
            reason: The error of the codec.
        """
        self.not_encodable += 1
        if self.not_encodable == 1:
            _log.warning("second tier: a value of %r stays in this process: %s", self.name, reason)

    def note_inconsistent(self) -> None:
        """Counts an entry that is returned although the server has another value."""
        self.inconsistent += 1

    # --- The state of this process.

    def native(self) -> "tuple[Session, Any]":
        """Returns this process's session, and the core's `Namespace` in it."""
        native = self._native
        if native is not None and native[0].pid == os.getpid() and not native[0].is_closed:
            return native
        with self._lock:
            native = self._native
            session = self.server.session
            if native is not None and native[0] is session:
                return native
            namespace = session.core.namespace(**self.settings.of_core())
            if native is not None:
                # Entries of the previous session may be out of date: no announcement has arrived in
                # between.
                self.first.clear()
            sync_clock(now())
            self.first.set_trust(session.core)
            self.first.show_tier2(namespace)
            native = session, namespace
            session.add_space(self._stem, self)
            session.topology.on_new_node(lambda _: namespace.set_generations(self.generation_keys(session)))
            self._native = native
        session.start()
        return native

    def siblings(self) -> "list[Space]":
        """Returns the caches of this process with the same keys on the same second tier.

        The cache itself is one of them.
        """
        native = self._native
        found = [] if native is None else native[0].spaces_of(self._stem)
        return found or [self]

    def after_fork(self) -> None:
        """Clears the first tier of a child: the parent's bus does not notify it of changes."""
        self._lock = threading.RLock()
        self.first.clear()

    def generation_keys(self, session: "Session") -> list[bytes]:
        """Returns the keys of this cache's generations.

        One, or in a cluster one per range of slots, whose slot is in that range; for memcached, one
        per server.

        Args:
            session: The session of this process.
        """
        return [b"%b:g%b:%b" % (session.prefix, tag, self.quoted_name) for tag in session.topology.generation_tags()]

    def stats(self, first: dict[str, Any]) -> dict[str, Any]:
        """Returns the counters of the first tier (given), of the second tier, and of the server.

        Args:
            first: The counters of the first tier.
        """
        session, namespace = self.native()
        own = {"not_encodable": self.not_encodable, "verified": self.verified, "inconsistent": self.inconsistent}
        return {"tier1": first, "tier2": {**namespace.stats(), **own}, "server": session.stats()}

    def counters(self) -> dict[str, int]:
        """Returns the second tier's counters of this cache in this process.

        Unlike `stats`, connects to no server: they are empty before the first use in this process.
        """
        native = self._native
        if native is None or native[0].pid != os.getpid():
            return {}
        return {**native[1].stats(), "not_encodable": self.not_encodable}

    # --- Keys.

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, bytes | None]:
        """Returns the key of arguments; and their text, if the key has only a hash of it.

        Args:
            args: The positional arguments of the call.
            kwargs: The keyword arguments of the call.

        Raises:
            TypeError: They cannot be a key.
        """
        text = text_of(args, kwargs, typed=self._typed)
        key = self._stem + text.encode()
        if len(key) <= LONGEST:
            return key, None
        name = hashed(text)
        self._hashed[name] = text
        if len(self._hashed) > _MOST_HASHED:
            with self._lock:
                self._hashed = {name: text}
                self._has_forgotten = True
        return self._stem + name, text.encode()

    def names_of(self, keys: Sequence[Any]) -> list[tuple[bytes, bytes | None]]:
        """Returns `key_of` for each of these keys, which are single arguments.

        Args:
            keys: The keys.
        """
        stem = self._stem
        longest = LONGEST - len(stem) - 4
        return [
            (b'%b["%b"]' % (stem, key.encode()), None)
            if type(key) is str and key.isalnum() and key.isascii() and len(key) <= longest
            else self.key_of((key,), {})
            for key in keys
        ]

    def counter_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Returns the key of a counter.

        Args:
            args: The positional arguments of the call.
            kwargs: The keyword arguments of the call.
        """
        text = text_of(args, kwargs, typed=self._typed)
        if len(text) > LONGEST:
            return self._counter_stem + hashed(text)
        return self._counter_stem + text.encode()

    def changed(self, text: bytes) -> None:
        """Applies an invalidation that arrived by key.

        Args:
            text: The key's part after the cache's name.
        """
        try:
            if text[:1] == b"#":
                known = self._hashed.get(text)
                if known is None:
                    if self._has_forgotten:
                        self.first.clear()
                    return
                args, kwargs = arguments_of(known)
            else:
                args, kwargs = _parse_simple(text) or arguments_of(text.decode("ascii"))
        except (KeyTextError, UnicodeDecodeError):
            # Not an entry's key: one of another program, or of the core beside an entry.
            return
        self.first.invalidate(args, kwargs)


def _parse_simple(text: bytes) -> Arguments | None:
    """Returns the arguments of the simplest texts: a number, or a word."""
    if text[-1:] == b"]":
        inner = text[1:-1]
        if inner.isdigit() and len(inner) < _LONGEST_QUICK:
            return (int(inner),), {}
        if text[:2] == b'["' and inner[-1:] == b'"' and inner[1:-1].isalnum():
            return (inner[1:-1].decode(),), {}
    return None
