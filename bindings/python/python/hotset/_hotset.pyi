"""The native part. Private: the package above it checks arguments, and is what users see.

All native methods take their arguments by position. Times are in seconds (float), `None` for none.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, final

__version__: str
build: str
"""Of what the module was made: version, profile, target, interpreter."""

MISSING: Any
"""What stands for "no value" where None may be one."""

@final
class Lifetime:
    """A time to live that is no number of seconds."""

KEEP: Lifetime
"""That of the entry that is replaced; the cache's own if there is none."""
NEVER: Lifetime
"""None: the entry does not expire."""

@final
class WithTtl:
    """What a function under `cached`, or a loader, may return instead of a value: the value, and how long it is good.

    Callers get the value alone.

    Args:
        value: The value.
        ttl: Seconds or a timedelta (0 or less: it is not kept), None for no end, `...` for what the settings say.
    """

    value: Any
    def __init__(self, value: Any, ttl: Any) -> None: ...

class SnapshotError(Exception):
    """A snapshot cannot be saved, or a file cannot be loaded; the text says why."""

    reason: str
    """One of "not a file", "not a snapshot", "version", "schema", "damaged", "too large" and "codec"."""

def dumps(value: Any, /) -> bytes:
    """A simple value as bytes: of the builtin types, Decimal, UUID, the classes of datetime. TypeError for all else."""

def loads(data: bytes, /) -> Any:
    """The value that these bytes are, which may be anybody's: ValueError, TypeError or ArithmeticError if they are none."""

@final
class Saving:
    """A save that is going on: batch and add in turns, then finish. For one thread at a time."""

    def batch(self) -> list[tuple[Any, Any]]:
        """The next keys and values, hottest first; none at the end. A Memo's keys are (args, kwargs)."""

    def add(self, at: int, key: bytes, value: bytes, /) -> None:
        """The bytes of this entry of the last batch, once."""

    def finish(self) -> int:
        """The file takes its name. How many entries it has."""

    def abandon(self) -> None:
        """The file is given up, if it is not finished."""

@final
class Loading:
    """A load that is going on: goes through the bytes of keys and values, hottest first, as long as there is room; then finish."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> tuple[bytes, bytes]: ...
    def keep(self, key: Any, value: Any, /) -> None:
        """What the last bytes are. A Memo's key is (args, kwargs)."""

    def finish(self) -> int:
        """All that was kept comes in, unless its key is there. How many did."""

def after_fork() -> None:
    """Forgets the loads that other threads were at. Called in children after a fork: the module sees to that itself."""

def seal(memo: type["Memo"] | type["BoundMemo"], /) -> None:
    """Makes the type immutable, which calls of methods are specialised for. Called once, when the package has added its methods."""

def check_loads(check: Callable[[int, bool], object], /) -> None:
    """Has threads that wait for a task's load call this with the load's number, and whether they have waited already. Called once."""

@final
class Reload:
    """The right and the duty to reload one result. Dropped before it has run, it is abandoned."""

    @property
    def name(self) -> Any:
        """The function's, for messages."""

    def run(self) -> None:
        """Calls the function and stores its result, once. Raises what it raises; the old result is then soon due again."""

    def abandon(self) -> None:
        """It will not run: the next caller gets another."""

    def forked(self) -> None:
        """As abandon, in a child after a fork, also if it is running (in the parent)."""

    def done(self) -> bool: ...

@final
class Failure:
    """Makes copies of an exception. Private to the native part."""

class LruFunction:
    """What functools calls _lru_cache_wrapper: exact LRU, exact semantics. Set `__wrapped__` etc. with update_wrapper.

    Has __call__, __get__, __reduce__ (by __qualname__), __copy__, __deepcopy__, __dict__, weakrefs, and can be subclassed.
    """

    def __init__(
        self, function: Callable[..., Any], maxsize: int | None, typed: bool, cache_info_type: Callable[..., Any], /
    ) -> None: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def cache_info(self) -> Any:
        """cache_info_type(hits, misses, maxsize, currsize)."""

    def cache_clear(self) -> None: ...

class Memo:
    """The callable behind `cached`, on the engine. __dict__, weakrefs, __get__, copy and pickle as LruFunction; not subclassed.

    `method=True` makes it a method's: the first argument is compared by identity, need not be hashable, and is held by a weak reference
    only; one that has no weak references is compared by type and equality, and held.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        /,
        *,
        maxsize: int | None = ...,  # None: no bound; not together with max_weight
        policy: str = "tinylfu",  # tinylfu, lru, lfu, fifo, random
        ttl: float | None = None,
        tti: float | None = None,
        jitter: float = 0.0,
        typed: bool = False,
        key: Callable[..., Any] | None = None,  # called with the arguments; its result is the key
        weigher: Callable[[Any], int] | None = None,  # weigher(value); together with max_weight
        max_weight: int | None = None,
        on_removal: Callable[[tuple[Any, ...], dict[str, Any], Any, str], object] | None = None,
        # on_removal(args, kwargs, value, cause); cause: expired, size, explicit, replaced
        single_flight: bool = True,
        negative_ttl: float | None = None,  # exceptions (class Exception) are kept so long, and raised again
        stale_while_revalidate: float | None = None,  # beyond ttl
        stale_if_error: float | None = None,  # beyond ttl
        refresher: Callable[[Reload], object] | None = None,
        # called by the hit that finds a value older than its ttl, with stale_while_revalidate: must have the reload run elsewhere, in a
        # thread say; or returns a false value, and the caller reloads
        timer: Callable[[], float] | None = None,  # instead of the system's monotonic clock
        method: bool = False,
        per_instance: bool = False,  # the bound of a method is for each instance, not for all together
    ) -> None: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def set_method(self) -> None:
        """The first argument is a method's instance from now on; forgets all results."""

    def is_method(self) -> bool: ...
    def check_instances(self, owner: type, /) -> None:
        """TypeError if instances of this class can be kept neither weakly nor by equality."""

    def stats(self) -> dict[str, int]:
        """hits, misses, insertions, evictions, expirations, rejections, loads, load_failures, waits, load_time, entries, weight, capacity.

        hits and misses count from the last clear, as functools' do. Does pending housekeeping first.
        """

    def clear(self) -> None: ...
    def reset_stats(self) -> None: ...
    def entries(self) -> list[tuple[tuple[tuple[Any, ...], dict[str, Any]], Any]]:
        """((args, kwargs), value) of all results, hottest first."""

    def run_pending(self) -> None: ...
    def resize(self, capacity: int, /) -> None: ...
    def saving(self, path: str, schema: int, /) -> Saving: ...
    def loading(self, path: str, schema: int, /) -> Loading: ...
    # By (args, kwargs), which are hashed as a call's would be:
    def get(self, args: tuple[Any, ...], kwargs: dict[str, Any], default: Any = None, /) -> Any:
        """The value if it is there; counts as a hit or miss. A remembered exception is raised."""

    def contains(self, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> bool: ...
    def set(self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any, ttl: float | None = None, /) -> None: ...
    def invalidate(self, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> bool:
        """Whether it was there. A load of it that is going on does not enter the cache."""

    def refresh(self, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any:
        """Calls the function, stores its result, and returns it. Joins a load that is going on."""

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any], refresh: bool = False, /) -> tuple[int, Any]:
        """For `async def`: (0, value) for a hit (a remembered exception is raised); (1, Flight) for the caller that is to load, and then call
        finish or fail; (2, Flight) for who finds a load going on; (3, value, Flight) for a hit on a value past its ttl that the caller is to
        load anew, while the value may be served; (4, value, Flight) likewise, if the last reload of it was abandoned. With `refresh`, never a
        hit."""

@final
class BoundMemo:
    """What `instance.method` is, of a function under `cached`: the package adds __self__, __func__ and the methods for users.

    What it has not is the function's. Compared, hashed and pickled as bound methods are.
    """

    def __init__(self, function: Callable[..., Any], instance: object, /) -> None: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def function(self) -> Any: ...
    def instance(self) -> Any: ...

@final
class AsyncMethod:
    """What a coroutine method under `cached` is in its class's __dict__; its attributes are those of the coroutine function."""

    def __init__(self, function: Callable[..., Any], /) -> None: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...

@final
class Flight:
    """A load that is going on. Made by Memo.begin and Cache.begin: one kind for its leader, who ends it once, another for who waits."""

    @property
    def id(self) -> int:
        """The load's number in this process, the same for all who have to do with it."""

    @property
    def of_task(self) -> bool:
        """Whether a task leads the load, and not a thread."""

    def finish(self, value: Any, ttl: Any = None, /) -> None:
        """The leader has the value: stores it, unless the key was changed meanwhile, and hands it to all who wait."""

    def fail(self, error: BaseException, /) -> None:
        """The leader has none: all who wait get this error. An `Exception` is remembered for negative_ttl."""

    def log_stale(self, error: BaseException, /) -> None:
        """The leader's load failed, and its caller serves the expired value: logs that, once in a spell of failures."""

    def abandon(self) -> None:
        """The leader gave up (it was cancelled, say): who waits tries again. Also what happens if a leader's Flight is dropped."""

    def done(self) -> bool: ...
    def result(self) -> Any:
        """The value, or raises the error; MISSING if it was abandoned. Only when done."""

    def wait(self) -> Any:
        """Blocks until done (letting other threads run), then as result()."""

    def add_done_callback(self, callback: Callable[[], object], /) -> None:
        """Called once when done, by whoever lands it, in its thread; at once if it is done. Under no lock."""

class Cache:
    """A cache as a mapping, on the engine. May be subclassed. Weakrefs; __dict__ in subclasses.

    c[k] raises KeyError; c[k] = v, del c[k], k in c, len(c), and iteration over the keys, hottest first (as of its beginning).
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
        timer: Callable[[], float] | None = None,
    ) -> Self: ...
    def __getitem__(self, key: Any, /) -> Any: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def __delitem__(self, key: Any, /) -> None: ...
    def __contains__(self, key: Any, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def get(self, key: Any, default: Any = None, /) -> Any: ...
    # A `ttl` is seconds (0.0: expired at once), KEEP, NEVER, or None for what the settings say.
    def set(self, key: Any, value: Any, ttl: Any = None, /) -> None: ...
    def set_with_ttl(self, key: Any, value: Any, ttl: Any, /) -> None:
        """None: it never expires."""

    def delete(self, key: Any, /) -> bool: ...
    def add(self, key: Any, value: Any, ttl: Any = None, /) -> bool: ...
    def touch(self, key: Any, ttl: Any = None, /) -> bool: ...
    def peek(self, key: Any, default: Any = None) -> Any: ...
    def pop_coldest(self) -> tuple[Any, Any] | None: ...
    def take_expired(self) -> list[tuple[Any, Any]]: ...
    def reset_stats(self) -> None: ...

    def pop(self, key: Any, default: Any = MISSING) -> Any: ...
    def setdefault(self, key: Any, default: Any = None) -> Any: ...
    def compute(self, key: Any, change: Callable[[Any], Any], default: Any = None, ttl: Any = ..., /) -> Any:
        """Replaces the value by change(value), atomically (change is called again if another thread was faster). `default` stands for
        absence; MISSING removes, as does None where that is the default. Returns what is there afterwards, or `default`."""

    def get_or_load(self, key: Any, loader: Callable[[Any], Any], ttl: Any = ..., /) -> Any:
        """The value, or what loader(key) returns: one caller loads, the others wait."""

    def begin(self, key: Any, /) -> tuple[int, Any]:
        """As Memo.begin."""

    def get_many(self, keys: Iterable[Any], default: Any = None, /) -> list[Any]:
        """In the order of the keys."""

    def peek_with_remaining(self, key: Any, /) -> tuple[Any, float | None] | None: ...
    def entries_with_remaining(self, at_most: bool, /) -> list[tuple[Any, Any, float | None]]: ...
    def items_hottest(self) -> list[tuple[Any, Any]]:
        """All entries, hottest first. Counts nothing."""

    def remaining(self, key: Any) -> float | None:
        """Seconds until its end; None without one; KeyError if it is absent."""

    def stats(self) -> dict[str, int]: ...
    def clear(self) -> None: ...
    def run_pending(self) -> None: ...
    def resize(self, capacity: int, /) -> None: ...
    def saving(self, path: str, schema: int, /) -> Saving: ...
    def loading(self, path: str, schema: int, /) -> Loading: ...
