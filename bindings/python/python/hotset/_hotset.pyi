"""The native part of the package. Private: the package validates arguments, and is the users' API.

All native methods take their arguments by position. Durations are in seconds (float), and None
stands for no limit.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any, Self, final

__version__: str
build: str
"""What the module was built from: version, profile, target, interpreter."""

MISSING: Any
"""Stands for "no value" where None may be a value."""

@final
class Lifetime:
    """A time to live that is not a number of seconds: KEEP or NEVER."""

KEEP: Lifetime
"""The deadline of the entry that is replaced; the ttl of the cache if there is no such entry."""
NEVER: Lifetime
"""The entry never expires."""

@final
class WithTtl:
    """A value with a time to live of its own, as a cached function or a loader may return it.

    Callers get the value alone.

    Args:
        value: The value.
        ttl: Seconds or a timedelta (0 or less: it is not stored), None for no expiration, `...` for
            the ttl of the cache.

    Example:
        >>> import hotset
        >>> @hotset.cached(ttl=60)
        ... def rate(currency: str) -> float:
        ...     return hotset.WithTtl(1.1, 5)  # expires after 5 s
        >>> rate("EUR")
        1.1
    """

    value: Any
    @property
    def ttl(self) -> Any:
        """Seconds (float), KEEP, NEVER, or None for the ttl of the cache."""

    def __init__(self, value: Any, ttl: Any) -> None: ...

class SnapshotError(Exception):
    """A snapshot cannot be saved, or a file cannot be loaded.

    Attributes:
        reason: "not a file", "not a snapshot", "version", "schema", "corrupt", "too large" or
            "codec".

    Example:
        >>> import hotset, tempfile
        >>> cache: hotset.Cache[str, int] = hotset.Cache(100)
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(bytes(1000))
        ...     file.flush()
        ...     try:
        ...         cache.load(file.name)
        ...     except hotset.SnapshotError as error:
        ...         print(error.reason)
        not a snapshot
    """

    reason: str

def dumps(value: Any, /) -> bytes:
    """Returns a simple value as bytes.

    Args:
        value: An object of a builtin type, Decimal, UUID, or a class of datetime.

    Raises:
        TypeError: `value` is of another type.
    """

def loads(data: bytes, /) -> Any:
    """Returns the value that `dumps` encoded. The bytes may be untrusted.

    Args:
        data: The bytes.

    Raises:
        ValueError, TypeError, ArithmeticError: `data` encodes no value.
    """

@final
class SaveSession:
    """A save in progress: call `batch` and `add` in turns, then `finish`. For one thread at a time.
    """

    def batch(self) -> list[tuple[Any, Any]]:
        """Returns the next keys and values, hottest first; none at the end.

        A Memo's keys are (args, kwargs).
        """

    def add(self, at: int, key: bytes, value: bytes, /) -> None:
        """Adds the encoded form of one entry of the last batch.

        Args:
            at: The index of the entry in the batch; each is added at most once.
            key: The encoded key.
            value: The encoded value.
        """

    def finish(self) -> int:
        """Completes the file, gives it its name, and returns the number of its entries."""

    def abandon(self) -> None:
        """Discards the file if it is not finished."""

@final
class LoadSession:
    """A load in progress: iterate over the encoded entries, call `stage` for each, then `finish`.

    Iteration yields encoded keys and values, hottest first, as long as the cache has room.
    """

    def __iter__(self) -> Self: ...
    def __next__(self) -> tuple[bytes, bytes]: ...
    def stage(self, key: Any, value: Any, /) -> None:
        """Passes the decoded form of the entry that iteration yielded last.

        Args:
            key: The key; (args, kwargs) for a Memo.
            value: The value.
        """

    def finish(self) -> int:
        """Inserts all entries whose keys are absent, and returns their number."""

def after_fork() -> None:
    """Drops the loads of other threads, and has the child make its own stats file. Called by the
    module itself in children after a fork.
    """

def seal(memo: type["Memo"] | type["BoundMemo"], /) -> None:
    """Makes the type immutable, so that the interpreter specializes calls of its methods.

    Args:
        memo: The type, to which the package has added its methods. Called once.
    """

def check_loads(check: Callable[[int, bool], object], /) -> None:
    """Registers what threads call while they wait for a task's load. Called once.

    Args:
        check: Called with the load's number, and whether the thread has waited already.
    """

def describe_process(program: str, clear: Callable[[list[int]], object], /) -> None:
    """Describes the process in its stats file. Called once.

    Args:
        program: The name of the program.
        clear: Called with a list of numbers of caches: clears these.
    """

def enable_stats_file(directory: str | os.PathLike[str], /) -> None:
    """Keeps the stats file of this process in a directory.

    Args:
        directory: The directory, which must exist.

    Raises:
        OSError: The directory does not exist, or cannot be written to.
        ValueError: Other users can replace files in it, or the file is in another one.
    """

def stats_file_path() -> Path | None:
    """Returns the path of this process's stats file, or None."""

def sync_clock(now: int, /) -> None:
    """Compares the caches' clock with that of the second tier.

    Called before `set_trust`, and at least once per second afterwards.

    Args:
        now: The time of the second tier, in nanoseconds.
    """

@final
class Reload:
    """The right and the duty to reload one result. Dropping it before it has run abandons it."""

    @property
    def name(self) -> Any:
        """The name of the function, for messages."""

    def run(self) -> None:
        """Calls the function once and stores its result.

        Raises:
            BaseException: What the function raises; the old result is then due again soon.
        """

    def abandon(self) -> None:
        """Gives the reload up: the next caller gets another one."""

    def forked(self) -> None:
        """Abandons the reload in a child after a fork, even if it is running in the parent."""

    def done(self) -> bool:
        """Returns whether the reload has run or was abandoned."""

class LruFunction:
    """A function under `lru_cache`: exact LRU, with the semantics of functools' _lru_cache_wrapper.

    Has __call__, __get__, __reduce__ (by __qualname__), __copy__, __deepcopy__, __dict__ and weak
    references, and can be subclassed. Attributes such as `__wrapped__` are set by update_wrapper.
    """

    def __init__(
        self, function: Callable[..., Any], maxsize: int | None, typed: bool, cache_info_type: Callable[..., Any], /
    ) -> None: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def cache_info(self) -> Any:
        """Returns cache_info_type(hits, misses, maxsize, currsize)."""

    def cache_clear(self) -> None:
        """Removes all results, and resets hits and misses."""

class Memo:
    """The callable behind `cached`, on the engine.

    Has __dict__, weak references, __get__, copy and pickle as `LruFunction` has, and cannot be
    subclassed. `method=True` makes it a method's: the first argument is compared by identity, need
    not be hashable, and is referenced weakly; one that cannot be referenced weakly is compared by
    type and equality, and held.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        /,
        *,
        maxsize: int | None = ...,  # None: no bound; excludes max_weight
        policy: str = "tinylfu",  # tinylfu, lru, lfu, fifo, random
        ttl: float | None = None,
        tti: float | None = None,
        jitter: float = 0.0,
        typed: bool = False,
        key: Callable[..., Any] | None = None,  # called with the arguments; returns the key
        weigher: Callable[[Any], int] | None = None,  # weigher(value); requires max_weight
        max_weight: int | None = None,
        on_removal: Callable[[tuple[Any, ...], dict[str, Any], Any, str], object] | None = None,
        # on_removal(args, kwargs, value, cause); cause: expired, size, explicit, replaced
        single_flight: bool = True,
        negative_ttl: float | None = None,  # how long exceptions are cached and raised again
        stale_while_revalidate: float | None = None,  # beyond ttl
        stale_if_error: float | None = None,  # beyond ttl
        refresher: Callable[[Reload], object] | None = None,
        # Called with stale_while_revalidate by the hit that finds a value older than its ttl: must
        # have the reload run elsewhere (in a thread, say), or return a false value for the caller
        # to reload.
        timer: Callable[[], float] | None = None,  # instead of the system's monotonic clock
        method: bool = False,
        per_instance: bool = False,  # a method's capacity counts for each instance
    ) -> None: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def set_method(self) -> None:
        """Makes the first argument a method's instance from now on, and removes all results."""

    def is_method(self) -> bool:
        """Returns whether the first argument is a method's instance."""

    def check_instances(self, owner: type, /) -> None:
        """Raises a TypeError if instances can be cached neither weakly nor by equality.

        Args:
            owner: The class of the instances.
        """

    def stats(self) -> dict[str, Any]:
        """Returns the counters by name, after pending maintenance.

        They are hits, misses, stale_hits, insertions, evictions, evicted_weight, expirations,
        rejections, loads, load_failures, waits, load_time, load_buckets, entries, weight and
        capacity. hits, misses and stale_hits count from the last clear, as those of functools do.
        """

    def totals(self) -> dict[str, Any]:
        """Returns the counters by name as `stats` does, but counted since the cache was created."""

    def clear(self) -> None:
        """Removes all entries, and resets hits and misses."""

    def clear_entries(self) -> None:
        """Removes all entries; the counters of hits and misses stay."""

    def invalidate_loads(self) -> None:
        """Invalidates all loads in progress: their results are not stored, nor returned later."""

    def publish(self, name: str, /) -> tuple[int, str | None]:
        """Puts the cache into the process's stats file, under `name`.

        Returns:
            Its number there, and a warning or None.
        """

    def show_tier2(self, namespace: "Namespace", /) -> None:
        """Has the stats file show the counters of the second tier as well."""

    def set_trust(self, tier: "Tier2 | None", /) -> None:
        """Restricts hits, and the joining of loads, to the time while the second tier is trusted.

        For a cache with a time to live.

        Args:
            tier: The second tier; None for no restriction.
        """

    def reset_stats(self) -> None:
        """Resets all counters."""

    def capacity_now(self) -> int:
        """Returns the capacity, in entries or weight: an `autosize` changes it."""

    def advise(self) -> dict[str, Any]:
        """Returns the fields of `hotset.Advice` by name.

        Raises:
            RuntimeError: The cache is not profiled, or has no bound.
        """

    def entries(self) -> list[tuple[tuple[tuple[Any, ...], dict[str, Any]], Any]]:
        """Returns ((args, kwargs), value) of all results, hottest first."""

    def run_pending(self) -> None:
        """Performs pending maintenance."""

    def resize(self, capacity: int, /) -> None:
        """Sets the capacity, in entries or weight."""

    def save_session(self, path: str, schema: int, /) -> SaveSession:
        """Begins a save to `path`."""

    def load_session(self, path: str, schema: int, /) -> LoadSession:
        """Begins a load from `path`."""

    # By (args, kwargs), which are hashed as those of a call are:
    def get(self, args: tuple[Any, ...], kwargs: dict[str, Any], default: Any = None, /) -> Any:
        """Returns the value, or `default` if it is absent; counts as a hit or miss.

        Raises:
            BaseException: The cached exception of this call.
        """

    def contains(self, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> bool:
        """Returns whether there is a result; counts neither as a hit nor as a miss."""

    def set(self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any, ttl: float | None = None, /) -> None:
        """Stores a result."""

    def invalidate(self, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> bool:
        """Removes a result and invalidates a load of it; returns whether there was a result."""

    def refresh(self, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any:
        """Calls the function, stores its result and returns it, joining a load in progress."""

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any], refresh: bool = False, /) -> tuple[int, Any]:
        """Begins a call for `async def`.

        Args:
            args: The positional arguments.
            kwargs: The keyword arguments.
            refresh: Whether a result that is present is not a hit.

        Returns:
            (0, value) for a hit (a cached exception is raised);
            (1, Flight) for the caller that must load, and then call finish, fail or abandon;
            (2, Flight) for a caller that finds a load in progress;
            (3, value, Flight) for a hit on a value past its ttl, which the caller must reload while
            the value may be returned;
            (4, value, Flight) for the same, if the last reload of it was abandoned.
        """

@final
class BoundMemo:
    """`instance.method` of a function under `cached`.

    The package adds __self__, __func__ and the methods for users. Other attributes are those of the
    function. Compared, hashed and pickled as bound methods are.
    """

    def __init__(self, function: Callable[..., Any], instance: object, /) -> None: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def function(self) -> Any:
        """Returns the cached function."""

    def instance(self) -> Any:
        """Returns the instance."""

@final
class AsyncMethod:
    """A coroutine method under `cached`, as it is in the `__dict__` of its class.

    Its attributes are those of the coroutine function.
    """

    def __init__(self, function: Callable[..., Any], /) -> None: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...

@final
class Flight:
    """A load in progress, as Memo.begin and Cache.begin return it.

    There is one kind for its leader, which ends it once, and another for callers that wait.
    """

    @property
    def id(self) -> int:
        """The number of the load in this process, the same for its leader and its waiters."""

    @property
    def of_task(self) -> bool:
        """Whether a task leads the load, rather than a thread."""

    def finish(self, value: Any, ttl: Any = None, /) -> None:
        """Stores the loaded value, unless the load was invalidated, and passes it to all waiters.

        Called by the leader.

        Args:
            value: The value.
            ttl: Seconds, KEEP, NEVER, or None for the ttl of the cache.
        """

    def fail(self, error: BaseException, /) -> None:
        """Raises `error` in all waiters, and caches an `Exception` for negative_ttl.

        Called by the leader.

        Args:
            error: The exception.
        """

    def log_stale(self, error: BaseException, /) -> None:
        """Logs, once per series of failures, that the load failed and the old value is returned.

        Args:
            error: The exception of the load.
        """

    def is_valid(self) -> bool:
        """Returns whether the load that the caller leads has not ended, and was not invalidated."""

    def abandon(self) -> None:
        """Gives the load up (because its task was cancelled, say): waiters try again.

        Dropping a leader's Flight does the same.
        """

    def done(self) -> bool:
        """Returns whether the load has ended."""

    def result(self) -> Any:
        """Returns the value of a load that is done; MISSING if it was abandoned.

        Raises:
            BaseException: The exception of the load.
        """

    def wait(self) -> Any:
        """Blocks until the load is done, without holding the GIL; returns as `result` does."""

    def add_done_callback(self, callback: Callable[[], object], /) -> None:
        """Has `callback` called once when the load is done; immediately if it is done already.

        It is called without a lock, by the thread that ends the load.

        Args:
            callback: The function.
        """

class Cache:
    """A cache as a mapping, on the engine. May be subclassed.

    Has weak references; subclasses have a __dict__. c[k] raises KeyError; c[k] = v, del c[k], k in
    c, len(c), and iteration over the keys, hottest first, as of its start.
    """

    def __new__(
        cls,
        *,
        maxsize: int | None = ...,
        policy: str = "tinylfu",
        ttl: float | None = None,
        tti: float | None = None,
        jitter: float = 0.0,
        weigher: Callable[[Any, Any], int] | None = None,  # weigher(key, value)
        max_weight: int | None = None,
        on_removal: Callable[[Any, Any, str], object] | None = None,  # on_removal(key, value, cause)
        negative_ttl: float | None = None,
        profile: bool = False,
        timer: Callable[[], float] | None = None,
    ) -> Self: ...
    def __getitem__(self, key: Any, /) -> Any: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def __delitem__(self, key: Any, /) -> None: ...
    def __contains__(self, key: Any, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def get(self, key: Any, default: Any = None, /) -> Any:
        """Returns the value, or `default` if the key is absent; counts as a hit or miss."""

    # A `ttl` is seconds (0.0: expired immediately), KEEP, NEVER, or None for the ttl of the cache.
    def set(self, key: Any, value: Any, ttl: Any = None, /) -> None:
        """Sets the value for `key`."""

    def set_with_ttl(self, key: Any, value: Any, ttl: Any, /) -> None:
        """Sets the value for `key`; a `ttl` of None stands for no expiration."""

    def delete(self, key: Any, /) -> bool:
        """Removes `key` and invalidates a load of it in progress; returns whether it was present.
        """

    def add(self, key: Any, value: Any, ttl: Any = None, /) -> bool:
        """Inserts `value` if `key` is absent; returns whether it was."""

    def touch(self, key: Any, ttl: Any = None, /) -> bool:
        """Sets the time to live of the entry, counted from now; returns whether it is present."""

    def peek(self, key: Any, default: Any = None) -> Any:
        """Returns the value, or `default`, without counting or affecting eviction."""

    def pop_coldest(self) -> tuple[Any, Any] | None:
        """Removes and returns the coldest entry; None if the cache is empty."""

    def take_expired(self) -> list[tuple[Any, Any]]:
        """Removes and returns all expired entries that are still held."""

    def reset_stats(self) -> None:
        """Resets all counters."""

    def capacity_now(self) -> int:
        """Returns the capacity, in entries or weight: an `autosize` changes it."""

    def advise(self) -> dict[str, Any]:
        """Returns the fields of `hotset.Advice` by name.

        Raises:
            RuntimeError: The cache is not profiled, or has no bound.
        """

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        """Removes `key` and returns its value, or `default`.

        Raises:
            KeyError: The key is absent, and `default` is MISSING.
        """

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Returns the value for `key`, after inserting `default` if it is absent."""

    def compute(self, key: Any, change: Callable[[Any], Any], default: Any = None, ttl: Any = ..., /) -> Any:
        """Replaces the value by change(value), atomically.

        Args:
            key: The key.
            change: Called with the value, or with `default` if the key is absent; called again if
                another thread changed the value first. MISSING removes the entry, as does None
                where that is the default.
            default: What `change` is called with for an absent key.
            ttl: The time to live of the new value.

        Returns:
            The value that the cache then holds, or `default`.
        """

    def get_or_load(self, key: Any, loader: Callable[[Any], Any], ttl: Any = ..., /) -> Any:
        """Returns the value, calling loader(key) if it is absent.

        Concurrent callers wait for that one load.

        Args:
            key: The key.
            loader: Called with the key.
            ttl: The time to live of the loaded value.
        """

    def begin(self, key: Any, /) -> tuple[int, Any]:
        """Begins a load; returns what `Memo.begin` returns."""

    def count_repeat(self) -> None:
        """Has the next lookup not count as a miss: it repeats one that did."""

    def get_many(self, keys: Iterable[Any], default: Any = None, /) -> list[Any]:
        """Returns the values in the order of `keys`, `default` for each absent key."""

    def peek_with_remaining(self, key: Any, /) -> tuple[Any, float | None] | None:
        """Returns the value and the seconds until it expires (None: never); None if it is absent.
        """

    def entries_with_remaining(self, at_most: bool, /) -> list[tuple[Any, Any, float | None]]:
        """Returns (key, value, seconds until it expires) of all entries, hottest first.

        Args:
            at_most: Whether the seconds of an entry that may idle are those of its ttl alone.
        """

    def items_hottest(self) -> list[tuple[Any, Any]]:
        """Returns all entries as (key, value), hottest first, counting no hits."""

    def remaining(self, key: Any) -> float | None:
        """Returns the seconds until the entry expires, None if it never does.

        Raises:
            KeyError: The key is absent.
        """

    def stats(self) -> dict[str, Any]:
        """Returns the counters by name, after pending maintenance.

        They are hits, misses, stale_hits, insertions, evictions, evicted_weight, expirations,
        rejections, loads, load_failures, waits, load_time, load_buckets, entries, weight and
        capacity. hits, misses and stale_hits count from the last clear, as those of functools do.
        """

    def totals(self) -> dict[str, Any]:
        """Returns the counters by name as `stats` does, but counted since the cache was created."""

    def clear(self) -> None:
        """Removes all entries, and resets hits and misses."""

    def clear_entries(self) -> None:
        """Removes all entries; the counters of hits and misses stay."""

    def invalidate_loads(self) -> None:
        """Invalidates all loads in progress: their results are not stored, nor returned later."""

    def publish(self, name: str, /) -> tuple[int, str | None]:
        """Puts the cache into the process's stats file, under `name`.

        Returns:
            Its number there, and a warning or None.
        """

    def show_tier2(self, namespace: "Namespace", /) -> None:
        """Has the stats file show the counters of the second tier as well."""

    def set_trust(self, tier: "Tier2 | None", /) -> None:
        """Restricts hits, and the joining of loads, to the time while the second tier is trusted.

        For a cache with a time to live.

        Args:
            tier: The second tier; None for no restriction.
        """

    def run_pending(self) -> None:
        """Performs pending maintenance."""

    def resize(self, capacity: int, /) -> None:
        """Sets the capacity, in entries or weight."""

    def save_session(self, path: str, schema: int, /) -> SaveSession:
        """Begins a save to `path`."""

    def load_session(self, path: str, schema: int, /) -> LoadSession:
        """Begins a load from `path`."""

def bulk_strings(data: bytes, /) -> list[bytes | None] | None:
    """Returns the reply in these bytes if it is a whole array of bulk strings; else None."""

def memcached_replies(data: bytes, /) -> tuple[list[bytes], int]:
    """Splits received bytes into whole replies.

    Returns:
        The replies, and how many bytes they have.

    Raises:
        ValueError: The bytes are no replies, or the server lacks a command.
    """

def memcached_value(reply: bytes, /) -> bytes | None:
    """Returns the value in a whole reply to a read; None if there is no item.

    Raises:
        RuntimeError: It is an error reply.
    """

def memcached_quick_value(other: object, data: bytes, /) -> object:
    """Returns the value in these bytes if they are one whole reply to a read, None if that has no
    item; anything else: `other`.
    """

def memcached_expiration(px: int, server_ms: int, /) -> int:
    """Returns the expiration time of an item that must live for `px` milliseconds."""

@final
class Memcached:
    """The servers of a tier, and the CAS numbers that this process knows. For any thread."""

    def __new__(cls, names: list[bytes], /) -> Self: ...
    def node_of(self, key: bytes, /) -> int:
        """Returns the place of the server that has `key`, by pymemcache's rendezvous hashing."""

@final
class MemcachedExchange:
    """One action of an operation on memcached, from its first request to its outcome."""

    VALUE: int
    FLAG: int
    CLAIM: int
    FAILED: int

    def __new__(cls, operation: Operation, target: bytes, key: bytes, value: bytes | None = None, /) -> Self: ...
    @staticmethod
    def replace(target: bytes, expected: bytes, frame: bytes, expires: int, /) -> MemcachedExchange:
        """Returns an exchange that replaces a frame by another one, if it has not changed since.

        Args:
            target: The key as it is sent.
            expected: The head of the frame.
            frame: The whole new frame.
            expires: Its expiration time, by `memcached_expiration`.
        """

    def requests(self, memcached: Memcached, serial: int, meta: bool, /) -> list[bytes]:
        """Returns the next commands, each of which has one reply.

        Args:
            memcached: The servers.
            serial: The number of the connection: the connections of a server are numbered in the
                order in which they were opened.
            meta: Whether the server has meta commands.
        """

    def replies(self, memcached: Memcached, replies: list[bytes], /) -> tuple[int, Any] | tuple[int, bool, bytes | None] | None:
        """Takes the replies to the last commands.

        Returns:
            None: `requests` must be sent again. Otherwise the outcome: VALUE and the value, FLAG
            and a bool, CLAIM, a bool and the value, or FAILED and the kind of the failure.
        """

# The second tier: the protocol without I/O. Times are int nanoseconds of one clock
# (CLOCK_BOOTTIME), passed in; `px` is milliseconds.

@final
class Tier2:
    """One server (or cluster) and prefix in one process. For any thread.

    Has the state of nodes, journal, bus, generations and leases, and the counters. Belongs to a
    pid: a child process creates its own. Nothing here sends, waits, or calls Python code.
    """

    def __new__(
        cls,
        seed: int,  # 64 random bits, drawn in this pid
        *,
        bus: bool = True,  # False: no server push; `local_ttl` alone bounds staleness
        max_lag: int = 2_500_000_000,
        canary_interval: int = 1_000_000_000,
        journal: int = 10_000,  # keys; an overflow bumps the namespaces instead
        write_window: int = 200_000_000,  # how late a PUT that cannot be fenced may be executed
        generation_per_node: bool = False,  # each server has its own copy: memcached
        clock_resolution: int = 1,  # milliseconds
    ) -> Self: ...
    @property
    def trusted_until(self) -> int:
        """Tier 1 may serve a hit only while now <= trusted_until. One atomic, read each time."""

    @property
    def join_until(self) -> int:
        """A caller may join a load in flight only while now <= join_until.

        Otherwise it invalidates the key's loads and reads for itself.
        """

    def namespace(
        self,
        *,
        ttl: int,  # logical lifetime
        local_ttl: int,
        unsynced_ttl: int,  # bound in tier 1 while there is no bus
        stale_while_revalidate: int = 0,
        stale_if_error: int = 0,
        lease: int = 1_500_000_000,
        lease_wait: int = 0,  # 0: without bound
        load_timeout: int = 60_000_000_000,
        early_reload: float = 0.0,  # XFetch's beta; 0: never before the soft end
    ) -> Namespace:
        """Returns a new cache on this tier. Durations are in nanoseconds."""

    # Nodes: 0 for a single server; a number per master of a cluster, chosen by the caller.
    def probed(
        self, node: int, identity: bytes, server_ms: int, sent: int, now: int, fence: bool, canary_prefix: bytes, /
    ) -> int:
        """Reports that a new connection of `node` answered INFO and TIME.

        Args:
            node: The number of the server.
            identity: run_id + master_replid.
            server_ms: The server's time in milliseconds.
            sent: When the commands were sent.
            now: The current time.
            fence: Whether CLIENT KILL ID is allowed and reaches the server itself.
            canary_prefix: The prefix of this process's canaries on that node, outside the prefix of
                the entries.

        Returns:
            The epoch, which the connection keeps and passes with its replies.
        """

    def probe_failed(self, node: int, kind: int, now: int, /) -> None:
        """Reports that `node` could not be probed."""

    def epoch(self, node: int, /) -> int:
        """Returns the node's current epoch (0: not probed).

        A connection of another epoch must be closed, not used.
        """

    def joined(self, node: int, now: int, /) -> None:
        """Reports that `node` joined the cluster after the others were known."""

    def set_serving(self, node: int, serving: bool, now: int, /) -> None:
        """Reports whether `node` serves slots of the cluster."""

    def server_ms(self, node: int, now: int, /) -> int:
        """Returns the server's time in milliseconds, at least."""

    def is_up(self, node: int, /) -> bool:
        """Returns whether the node answers."""

    # The background thread (one per server; no user call waits for it):
    def background(self, node: int, now: int, /) -> int:
        """Returns the next action for `node`, whose operands are below.

        It is one of Tier2.SLEEP, PROBE, CONNECT, CLOSE, CANARY, PING, CLEAR, DROP_LOADS and
        OPERATE.
        """

    def background_until(self, node: int, /) -> int:
        """Returns, for SLEEP, until when to sleep unless the tracking connection has a message."""

    def background_number(self, node: int, /) -> int:
        """Returns, for CANARY and PING, the number."""

    def canary_key(self, node: int, /) -> bytes:
        """Returns the key of the canary."""

    def background_operation(self, node: int, now: int, /) -> Operation | None:
        """Returns, for OPERATE, the operation to drive; None if it is no longer due.

        It is a renewal of a lease, or a replay of the journal.
        """

    def connected(self, node: int, now: int, /) -> None:
        """Reports, for CONNECT, that the tracking connection is subscribed."""

    def disconnected(self, node: int, now: int, /) -> None:
        """Reports that CONNECT failed, or that the tracking connection ended."""

    def canary_written(self, node: int, number: int, epoch: int, now: int, /) -> None:
        """Reports that a canary was written."""

    def canary_failed(self, node: int, number: int, kind: int, now: int, /) -> None:
        """Reports that a canary could not be written."""

    def pong(self, node: int, number: int, now: int, /) -> None:
        """Reports that the tracking connection answered PING, after all earlier messages."""

    def cleared(self, node: int, now: int, /) -> None:
        """Reports, for CLEAR, that tier 1 is empty and all its loads in flight are invalidated."""

    def loads_dropped(self, node: int, now: int, /) -> None:
        """Reports, for DROP_LOADS, that all loads in flight are invalidated; entries stay."""

    def messages(self, node: int, keys: list[bytes], now: int, /) -> list[bytes]:
        """Applies invalidations, in their order; returns those that tier 1 must act on.

        Tier 1 removes each returned key, invalidates its loads and wakes its waiters. For a
        generation key it clears what belongs to it (for a tag: at least the entries with that tag).
        Canaries are consumed. Call `background` afterwards.
        """

    def flushed(self, node: int, now: int, /) -> None:
        """Reports the null message of FLUSHALL or FLUSHDB."""

    def stats(self, now: int, /) -> dict[str, Any]:
        """Returns the state and the counters by name."""

    SLEEP: int
    PROBE: int
    """Connect, or take a connection, send INFO and TIME, call `probed` or `probe_failed`."""
    CONNECT: int
    """Open the tracking connection; `connected` or `disconnected`."""
    CLOSE: int
    """Close the tracking connection; `disconnected`."""
    CANARY: int
    """SET canary_key '' PX 30000 on a data connection; `canary_written` or `canary_failed`."""
    PING: int
    """PING on the tracking connection; `pong` when it is answered, `disconnected` when it fails.
    The answer arrives among the messages."""
    CLEAR: int
    """Empty tier 1 of all namespaces, and invalidate all loads in flight; `cleared`."""
    DROP_LOADS: int
    """Invalidate all loads in flight; `loads_dropped`."""
    OPERATE: int
    # Kinds of errors, for `failed`, `probe_failed` and `canary_failed`:
    TIMEOUT: int
    """After the first byte was sent, or with that unknown: the outcome is unknown. Also a cancelled
    call, and a connection that broke."""
    NOT_SENT: int
    REFUSED: int
    """The connection could not be opened, or was reset before anything was sent."""
    OOM: int
    READONLY: int
    NOSCRIPT: int
    NOPERM: int
    LOADING: int
    CLUSTERDOWN: int
    MOVED: int
    OTHER: int
    """Any other error reply: the server refused the command."""

@final
class Namespace:
    """One cache on a Tier2: its settings, its generations and its counters."""

    def set_generations(self, keys: list[bytes], /) -> None:
        """Sets the keys of the namespace's generations: one, or in a cluster one per range of
        slots.

        The generation key of a tag is this key + b":" + the tag. Called before the first operation.
        """

    # `tags` are at most 16 names of at most 255 bytes each. The frame has them: a reader need not
    # know them.
    def read(self, key: bytes, node: int, now: int, load: bool, tags: tuple[bytes, ...] = (), /) -> Operation:
        """Returns a started read: get (load=False) or get_or_load (load=True). See its `action`."""

    def read_many(
        self, keys: list[bytes], node: int, now: int, load: bool, tags: tuple[bytes, ...] = (), /
    ) -> Reads:
        """Returns started reads of many keys on one node."""

    def write(self, key: bytes, node: int, now: int, ttl: int, tags: tuple[bytes, ...] = (), /) -> Operation:
        """Returns a started set."""

    def remove(self, key: bytes, node: int, now: int, /) -> Operation:
        """Returns a started delete."""

    def expire(self, key: bytes, node: int, now: int, /) -> Operation:
        """Returns a started soft invalidation: the old value may be returned while one caller
        reloads.
        """

    def touch(self, key: bytes, node: int, now: int, ttl: int, /) -> Operation:
        """Returns a started touch. At DONE, `stored` is whether there was a live value."""

    def bump(self, tag: bytes | None, node: int, now: int, /) -> Operation:
        """Returns a started clear() (tag None) or invalidate_tag(), on one node of a cluster."""

    def direct(self, key: bytes, node: int, now: int, /) -> Operation:
        """Returns a started command of the caller's own on tier 2 alone (a counter).

        Its actions are DIRECT, then DONE, or UNCONFIRMED where its outcome is unknown.
        """

    def stats(self) -> dict[str, Any]:
        """Returns the counters by name."""

@final
class Reads:
    """Started reads of many keys on one node, which one MGET may answer."""

    def are_gets(self) -> bool:
        """Returns whether GET is the action of all reads."""

    def replies(self, now: int, epoch: int, replies: list[Any], /) -> list[Any]:
        """Reports the replies of an MGET.

        Returns:
            For each key (payload, flags, codec, keep_until) of a hit, None if the key is absent,
            and False for a read that must be taken and driven by itself.
        """

    def take(self, at: int, /) -> Operation:
        """Returns the read of the key with this index, to be driven by itself."""

@final
class Operation:
    """One operation, owned by its caller: perform `action`, report, perform the next one.

    Not for two threads at a time. Dropping it before its end is safe: what was sent without an
    answer counts as unknown.
    """

    @property
    def action(self) -> int: ...
    def step(self, now: int, /) -> int:
        """Reports that the local action (DROP_LOCAL, WAIT, PROBE) is done; returns the next action.

        The other reports return the next action, too.
        """

    def sending(self, connection: int, /) -> None:
        """Reports, before the bytes of PUT are sent, the CLIENT ID of the connection (0: unknown).
        """

    def reply(self, now: int, epoch: int, data: bytes | bool | None, /) -> int:
        """Reports the server's answer, and the epoch of the connection that received it."""

    def reply_claim(self, now: int, epoch: int, won: bool, data: bytes | None, /) -> int:
        """Reports the answers to CLAIM."""

    def failed(self, now: int, kind: int, /) -> int:
        """Reports that a command failed."""

    def loaded(self, now: int, ttl: int, kind: int = 1, /) -> int:
        """Reports, for LOAD, that the loader returned.

        Args:
            now: The current time.
            ttl: The value's ttl; 0 for that of the namespace.
            kind: VALUE, NEGATIVE ("there is none") or LOCAL (too large or not encodable).
        """

    def load_failed(self, now: int, /) -> int:
        """Reports, for LOAD, that the loader raised."""

    def reject(self, now: int, /) -> int:
        """Reports that the payload of HIT, NEGATIVE_HIT or STALE cannot be used: counted, a miss.
        """

    def head(self, flags: int, codec: int, /) -> bytes:
        """Returns, for FILL and PUT, the head of the frame: head + payload (+ MAC).

        Args:
            flags: 16 bits of the caller's.
            codec: The number of the codec.
        """

    # Operands of the action:
    @property
    def key(self) -> bytes: ...
    @property
    def node(self) -> int: ...
    @node.setter
    def node(self, node: int, /) -> None:
        """After MOVED: the node that has the key now; before the next send."""

    @property
    def target(self) -> bytes:
        """The key that the command names; usually `key`."""

    @property
    def expected(self) -> bytes: ...
    @property
    def frame(self) -> bytes:
        """ACQUIRE, SWAP, CLAIM: the new value. BUMP, READ_GENERATION, EXPIRE, TOUCH: 16 bytes of
        stamp.
        """

    @property
    def px(self) -> int: ...
    @property
    def not_after(self) -> int:
        """PUT: server time in ms after which the server must refuse it (a script); 0: plain SET."""

    @property
    def soft_end(self) -> int:
        """TOUCH, EXPIRE: the new soft deadline in server ms.

        8 bytes, little endian, at offset 24 of the frame (the stamp: 16 bytes at offset 4).
        """

    @property
    def connection(self) -> int:
        """FENCE: the CLIENT ID to kill."""

    @property
    def until(self) -> int:
        """WAIT: until when."""

    @property
    def limited(self) -> bool:
        """LOAD: without a lease (tier 2 is down, or the key is journalled): at most `max_loads`
        concurrently."""

    # Results:
    @property
    def offset(self) -> int:
        """HIT, STALE: where the payload (and a MAC after it) begins in the reply."""

    @property
    def flags(self) -> int: ...
    @property
    def codec(self) -> int: ...
    @property
    def keep_until(self) -> int:
        """HIT, NEGATIVE_HIT, DELIVER, DONE: until when tier 1 may store the value, if its load was
        not invalidated; 0: not at all."""

    @property
    def stored(self) -> bool:
        """DELIVER, DONE: tier 2 confirmed it, and the generations are the current ones as far as
        known.

        Only then callers that joined a mark of FILL or PUT get the value; otherwise they try again.
        """

    @property
    def stale(self) -> bool:
        """LOAD: the payload of the last reply may be served while this load runs (`offset`,
        `flags`, `codec`)."""

    VALUE: int
    NEGATIVE: int
    LOCAL: int
    # Commands, one key each. (*): begin a new load (mark) in tier 1 first.
    GET: int
    """(*) GET target -> bytes | None."""
    ACQUIRE: int
    """SET target frame NX GET PX px -> the old value: bytes | None."""
    SWAP: int
    """Script: if the first 24 bytes of target (all of a shorter value) are `expected`:
    SET target frame PX px -> bool."""
    FILL: int
    """(*) The same with head() + payload as the new value -> bool."""
    PUT: int
    """(*) SET target head() + payload PX px -> True; with `not_after` a script -> bool.
    Call `sending` first."""
    RELEASE: int
    """Script: if target is `expected`: UNLINK -> bool."""
    REMOVE: int
    """Script: if UNLINK target == 0: SET target ''; UNLINK target -> True."""
    EXPIRE: int
    """Script: of a value frame, overwrite stamp and soft deadline and keep the TTL; else as REMOVE
    -> True."""
    TOUCH: int
    """Script: if the first 24 bytes are `expected`: overwrite stamp and soft deadline, PEXPIRE px
    -> bool."""
    BUMP: int
    """SET target frame -> True."""
    READ_GENERATION: int
    """SET target frame NX GET -> bytes | None."""
    CLAIM: int
    """(*) Pipeline: SET target frame NX PX px; GET key -> reply_claim(bool, bytes | None)."""
    FENCE: int
    """CLIENT KILL ID connection, through another connection to the same node -> True (also if it
    killed none)."""
    DIRECT: int
    # Local actions.
    PROBE: int
    """The node is not known yet: connect to it (`Tier2.probed` or `probe_failed`), then step."""
    LOAD: int
    """Call the loader, then `loaded` or `load_failed`."""
    WAIT: int
    """Wait until `until`, a message for the key, or the end of another operation of this process on
    it; then step. Never while this caller leads another key (an operation at LOAD or FILL): finish
    those first."""
    DROP_LOCAL: int
    """Remove the key from tier 1 and invalidate its loads in flight (of a bump: all entries and
    loads of the generation); then step."""
    # Ends.
    HIT: int
    NEGATIVE_HIT: int
    STALE: int
    """Serve the payload of the reply, and store it nowhere."""
    MISS: int
    DELIVER: int
    """The waiters get the loaded value, and tier 1 stores it until keep_until."""
    FAILED: int
    """The loader raised."""
    DONE: int
    """Confirmed. Of a set: remove the key and invalidate every load but the own mark, then insert
    by that mark until keep_until."""
    UNCONFIRMED: int
    """Journalled (DIRECT: unknown). `strict` raises."""

@final
class CallSampler:
    """Counts the calls of functions, and passes some of them to Python. One at a time is active.

    Args:
        decide: Called with a code object; returns (kind, bytecode, keep): 0 for a plain function,
            1 for a generator, 2 for a coroutine, -1 for code that is not counted; and whether to
            keep that answer.
        plan: Called with the index of a function; returns the number of calls to observe, or minus
            the number of calls to count only.
        begin: Called with the index of a function at the beginning of an observed call; returns
            whether to call `end` for it.
        end: Called with the index, whether the call raised, and its result; returns whether the
            frame is that of an observed call.
        disable: What a callback returns to turn off its event.
    """

    def __new__(
        cls,
        decide: Callable[[CodeType], tuple[int, bytes, bool]],
        plan: Callable[[int], int],
        begin: Callable[[int], bool],
        end: Callable[[int, bool, Any], bool],
        disable: object,
    ) -> Self: ...
    def start(self) -> list[Callable[..., Any]]:
        """Starts the recording, and returns the callbacks for PY_START, PY_RETURN and PY_UNWIND."""

    def stop(self) -> None:
        """Stops the recording."""

    def attach(self) -> None:
        """Sets the profile function of the calling thread (Python 3.11 only)."""

    def detach(self) -> None:
        """Removes the profile function of the calling thread."""

    def codes(self) -> list[CodeType]:
        """Returns the code objects of all counted functions, by index."""

    def calls(self) -> list[int]:
        """Returns the number of calls of each function, by index."""

    def in_progress(self, index: int) -> int:
        """Returns how many observed calls of a function are in progress.

        Args:
            index: The index of the function.
        """

    def set_returns(self, index: int, on: bool) -> None:
        """Declares whether the interpreter reports returns of a function.

        Args:
            index: The index of the function.
            on: Whether it does.
        """

    def set_own(self, index: int, nanoseconds: int) -> None:
        """Sets the mean time of a call of a function without its callees.

        Args:
            index: The index of the function.
            nanoseconds: The time.
        """

    def skipped(self) -> int:
        """Returns the nanoseconds of the calls on this thread that were counted only, estimated."""

    def find_by_frame(self) -> None:
        """Has Python find observed calls by their frames, as greenlets require."""
