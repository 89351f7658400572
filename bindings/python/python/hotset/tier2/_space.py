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
from hotset.tier2._session import SLOTS, tag_of

if TYPE_CHECKING:
    from hotset.tier2._server import Redis
    from hotset.tier2._session import Session

_log = logging.getLogger("hotset")

# Names of long keys that are remembered, to find the arguments again when one is invalidated.
_MOST_HASHED: Final = 100_000
_LONGEST_QUICK: Final = 18
# Ranges of a cluster's slots, each with a generation of its own.
_GROUPS: Final = 16


class Mark(Protocol):
    """A load in flight of the first tier, led by this caller: `finish` inserts unless the key was changed since it began."""

    def finish(self, value: Any, ttl: Any = None, /) -> None: ...
    def abandon(self) -> None: ...


class FirstTier(Protocol):
    """The cache of this process in front of the second tier."""

    def invalidate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Removes what is held for these arguments, however they are spelled; what is being loaded for them is not kept."""

    def mark(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mark:
        """Begins a load of these arguments, in place of any in flight."""
        ...

    def clear(self) -> None:
        """Removes all entries; what is being loaded is not kept."""

    def supersede_loads(self) -> None:
        """What is being loaded is not kept, and serves no later caller."""

    def set_trust(self, core: Any) -> None:
        """Has entries found only while the second tier's core trusts them."""

    def hits(self) -> int:
        """Returns how many hits were counted."""
        ...

    def entries(self) -> list[tuple[tuple[Any, ...], dict[str, Any], Any]]:
        """Returns what is held: the arguments as the second tier names them, and the value."""
        ...

    def peek(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Returns the value that a caller would be served, MISSING if there is none; counts nothing. May look through all entries."""
        ...


@final
class SpaceSettings:
    """What a user said of a cache on a second tier, checked. Times are in nanoseconds."""

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
        """The keyword arguments of `Tier2.namespace`."""
        return {name: getattr(self, name) for name in self.__slots__}


@final
class Space:
    """One cache on a second tier."""

    def __init__(
        self, server: "Redis", name: Any, codec: PayloadCodec, settings: SpaceSettings, first: FirstTier, *, typed: bool = False, owner: object = None
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        if not name:
            raise ValueError("name must not be empty: it tells this cache's keys from those of others")
        self.server: Final = server
        self.name: Final = name
        self.owner: Final = owner
        """What makes the values: equal for caches that may share them."""
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
        """How many values stayed in the first tier, since the codec refused them or they were too large."""
        self.verified = 0
        """How many entries were compared with the server's values."""
        self.inconsistent = 0
        """How many of these were served although the server had another value."""

    def note_not_encodable(self, reason: Exception) -> None:
        """Counts a value that stays in the first tier; logs the first one."""
        self.not_encodable += 1
        if self.not_encodable == 1:
            _log.warning("second tier: a value of %r stays in this process: %s", self.name, reason)

    def note_inconsistent(self) -> None:
        """Counts an entry that is served although the server has another value."""
        self.inconsistent += 1

    # --- The process's part.

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
                # What was held before may be out of date: nothing has told this process what was invalidated in between.
                self.first.clear()
            sync_clock(now())
            self.first.set_trust(session.core)
            native = session, namespace
            session.add_space(self._stem, self)
            session.on_new_node(lambda _: namespace.set_generations(self.generation_keys(session)))
            self._native = native
        session.start()
        return native

    def siblings(self) -> "list[Space]":
        """Returns the caches of this process that have the same keys on the same second tier: this one, at least."""
        native = self._native
        found = [] if native is None else native[0].spaces_of(self._stem)
        return found or [self]

    def after_fork(self) -> None:
        """Empties the first tier of a child: the parent's bus does not tell it what changes."""
        self._lock = threading.RLock()
        self.first.clear()

    def generation_keys(self, session: "Session") -> list[bytes]:
        """Returns the keys of this cache's generations: one, or in a cluster one for each range of slots, which is in the range."""
        tags = [tag_of(slot) for slot in range(0, SLOTS, SLOTS // _GROUPS)] if session.is_cluster else [b""]
        return [b"%b:g%b:%b" % (session.prefix, tag, self.quoted_name) for tag in tags]

    def stats(self, first: dict[str, Any]) -> dict[str, Any]:
        """Returns what was counted: of the first tier (given), of the second, and of the server."""
        session, namespace = self.native()
        own = {"not_encodable": self.not_encodable, "verified": self.verified, "inconsistent": self.inconsistent}
        return {"tier1": first, "tier2": {**namespace.stats(), **own}, "server": session.stats()}

    # --- Keys.

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, bytes | None]:
        """Returns the key of arguments; and their text where the key has but a hash of it.

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
        """As `key_of` for each of these, which are single arguments."""
        stem = self._stem
        longest = LONGEST - len(stem) - 4
        return [
            (b'%b["%b"]' % (stem, key.encode()), None)
            if type(key) is str and key.isalnum() and key.isascii() and len(key) <= longest
            else self.key_of((key,), {})
            for key in keys
        ]

    def counter_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Returns the key of a counter."""
        text = text_of(args, kwargs, typed=self._typed)
        if len(text) > LONGEST:
            return self._counter_stem + hashed(text)
        return self._counter_stem + text.encode()

    def changed(self, text: bytes) -> None:
        """Applies an invalidation that arrived by key; `text` is the key's part behind the cache's name."""
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
            # Not an entry's key: another program's, or what the core keeps beside an entry.
            return
        self.first.invalidate(args, kwargs)


def _parse_simple(text: bytes) -> Arguments | None:
    """The arguments of the simplest texts: a number, or a word."""
    if text[-1:] == b"]":
        inner = text[1:-1]
        if inner.isdigit() and len(inner) < _LONGEST_QUICK:
            return (int(inner),), {}
        if text[:2] == b'["' and inner[-1:] == b'"' and inner[1:-1].isalnum():
            return (inner[1:-1].decode(),), {}
    return None
