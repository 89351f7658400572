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
    @property
    def ttl(self) -> Any:
        """Seconds (float), KEEP, NEVER, or None for what the settings say."""

    def __init__(self, value: Any, ttl: Any) -> None: ...

class SnapshotError(Exception):
    """A snapshot cannot be saved, or a file cannot be loaded; the text says why."""

    reason: str
    """One of "not a file", "not a snapshot", "version", "schema", "corrupt", "too large" and "codec"."""

def dumps(value: Any, /) -> bytes:
    """A simple value as bytes: of the builtin types, Decimal, UUID, the classes of datetime. TypeError for all else."""

def loads(data: bytes, /) -> Any:
    """The value that these bytes are, which may be anybody's: ValueError, TypeError or ArithmeticError if they are none."""

@final
class SaveSession:
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
class LoadSession:
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

def sync_clock(now: int, /) -> None:
    """Compares the caches' clock with the second tier's, whose time is `now`: before `set_trust`, and at least every second afterwards."""

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
    def clear_entries(self) -> None:
        """As clear, but the counters of hits and misses stay."""

    def supersede_loads(self) -> None:
        """What is being loaded is not kept, and serves no later caller. Entries stay."""

    def set_trust(self, tier: "Tier2 | None", /) -> None:
        """Has entries found, and loads joined, only while this Tier2 trusts them; None: always. For a cache with a time to live."""

    def reset_stats(self) -> None: ...
    def entries(self) -> list[tuple[tuple[tuple[Any, ...], dict[str, Any]], Any]]:
        """((args, kwargs), value) of all results, hottest first."""

    def run_pending(self) -> None: ...
    def resize(self, capacity: int, /) -> None: ...
    def saving(self, path: str, schema: int, /) -> SaveSession: ...
    def loading(self, path: str, schema: int, /) -> LoadSession: ...
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
    def clear_entries(self) -> None:
        """As clear, but the counters of hits and misses stay."""

    def supersede_loads(self) -> None:
        """As Memo.supersede_loads."""

    def set_trust(self, tier: "Tier2 | None", /) -> None:
        """As Memo.set_trust."""

    def run_pending(self) -> None: ...
    def resize(self, capacity: int, /) -> None: ...
    def saving(self, path: str, schema: int, /) -> SaveSession: ...
    def loading(self, path: str, schema: int, /) -> LoadSession: ...

# The second tier: the protocol without I/O. Times are int nanoseconds of one clock (CLOCK_BOOTTIME), passed in; `px` is milliseconds.

@final
class Tier2:
    """One server (or cluster) and prefix in one process: nodes, journal, bus, generations, leases, statistics. For any thread.

    Belongs to a pid: a child process makes its own. Nothing here sends, waits, or calls Python code.
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
    ) -> Self: ...
    @property
    def trusted_until(self) -> int:
        """Tier 1 may serve a hit only while now <= trusted_until. One atomic, read anew each time."""

    @property
    def join_until(self) -> int:
        """A caller may join another's load in flight only while now <= join_until; else it invalidates the key's loads and reads for itself."""

    def namespace(
        self,
        *,
        ttl: int,  # logical lifetime
        local_ttl: int,
        unsynced_ttl: int,  # bound in tier 1 while the bus is not to be had
        stale_while_revalidate: int = 0,
        stale_if_error: int = 0,
        lease: int = 1_500_000_000,
        lease_wait: int = 0,  # 0: without bound
        load_timeout: int = 60_000_000_000,
        early_reload: float = 0.0,  # XFetch's beta; 0: never before the soft end
    ) -> Namespace: ...
    # Nodes: 0 for a single server; a number per master of a cluster, chosen by the caller.
    def probed(
        self, node: int, identity: bytes, server_ms: int, sent: int, now: int, fence: bool, canary_prefix: bytes, /
    ) -> int:
        """A new connection of `node` answered INFO and TIME. Returns the epoch, which the connection keeps and passes with its replies.

        `identity` is run_id + master_replid; `fence`: CLIENT KILL ID is allowed and reaches the server itself. `canary_prefix` names this
        process's canaries on that node, outside the prefix of the entries.
        """

    def probe_failed(self, node: int, kind: int, now: int, /) -> None: ...
    def epoch(self, node: int, /) -> int:
        """The node's current epoch (0: not probed). A connection of another epoch must be closed, not used."""

    def is_up(self, node: int, /) -> bool: ...
    # The background thread (one per process; no user call waits for it):
    def background(self, node: int, now: int, /) -> int:
        """What to do next for `node`: one of Tier2.SLEEP, PROBE, CONNECT, CLOSE, CANARY, PING, CLEAR, DROP_LOADS, OPERATE. Its operands: below."""

    def background_until(self, node: int, /) -> int:
        """SLEEP: until when, or until a message of the tracking connection."""

    def background_number(self, node: int, /) -> int:
        """CANARY, PING: the number."""

    def canary_key(self, node: int, /) -> bytes: ...
    def background_operation(self, node: int, now: int, /) -> Operation | None:
        """OPERATE: a renewal of a lease, or a replay of the journal, to be driven as any other operation. None: it is no longer due."""

    def connected(self, node: int, now: int, /) -> None:
        """CONNECT: the tracking connection is subscribed."""

    def disconnected(self, node: int, now: int, /) -> None:
        """CONNECT failed, or the tracking connection broke, was refused, or was closed."""

    def canary_written(self, node: int, number: int, epoch: int, now: int, /) -> None: ...
    def canary_failed(self, node: int, number: int, kind: int, now: int, /) -> None: ...
    def pong(self, node: int, number: int, now: int, /) -> None:
        """The tracking connection answered PING, and every message before it was passed to `messages`."""

    def cleared(self, node: int, now: int, /) -> None:
        """CLEAR: tier 1 is empty, and all its loads in flight are invalidated."""

    def loads_dropped(self, node: int, now: int, /) -> None:
        """DROP_LOADS: all loads in flight are invalidated; entries stay."""

    def messages(self, node: int, keys: list[bytes], now: int, /) -> list[bytes]:
        """Invalidations, in their order. Returns those that tier 1 must act on: remove the key, invalidate its loads, wake its waiters.

        A generation key among them: clear what belongs to it (of a tag: at least the entries with that tag). Canaries are consumed. Then
        call `background`.
        """

    def flushed(self, node: int, now: int, /) -> None:
        """The null message of FLUSHALL or FLUSHDB."""

    def stats(self, now: int, /) -> dict[str, Any]: ...
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
    """PING on the tracking connection; `pong` when it is answered, `disconnected` when it fails. Do not wait for the answer elsewhere."""
    CLEAR: int
    """Empty tier 1 of all namespaces, and invalidate all loads in flight; `cleared`."""
    DROP_LOADS: int
    """Invalidate all loads in flight; `loads_dropped`."""
    OPERATE: int
    # Kinds of errors, for `failed`, `probe_failed` and `canary_failed`:
    TIMEOUT: int
    """After the first byte was sent, or with that unknown: the outcome is unknown. Also a cancelled call, and a connection that broke."""
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
    """One cache on a Tier2: its settings, its generation, its statistics."""

    def set_generation(self, node: int, key: bytes, /) -> None:
        """The key of the namespace's generation on `node` (in a cluster one per master, tagged into one of its slots).

        That of a tag is this key + b":" + the tag. Before the first operation on that node.
        """

    # `tags` are names, at most 255 bytes each, 16 of them. They are carried in the frame: a reader need not know them.
    def read(self, key: bytes, node: int, now: int, load: bool, tags: tuple[bytes, ...] = (), /) -> Operation:
        """get (load=False) or get_or_load (load=True). Started: see its `action`."""

    def write(self, key: bytes, node: int, now: int, ttl: int, tags: tuple[bytes, ...] = (), /) -> Operation:
        """set. Started."""

    def remove(self, key: bytes, node: int, now: int, /) -> Operation:
        """delete, invalidate."""

    def expire(self, key: bytes, node: int, now: int, /) -> Operation:
        """The soft invalidation: the old value may be served stale while one caller reloads."""

    def touch(self, key: bytes, node: int, now: int, ttl: int, /) -> Operation:
        """DONE: `stored` says whether there was a live value."""

    def bump(self, tag: bytes | None, node: int, now: int, /) -> Operation:
        """clear() (None) or invalidate_tag(), on one node: once per master of a cluster."""

    def direct(self, key: bytes, node: int, now: int, /) -> Operation:
        """A command of the caller's own on tier 2 alone (a counter): action DIRECT, then DONE, or UNCONFIRMED where its outcome is unknown."""

    def stats(self) -> dict[str, Any]: ...

@final
class Operation:
    """One operation, owned by its caller: perform `action`, report, perform the next one. Not for two threads at once.

    Dropping it before its end is safe: what was sent without an answer counts as unknown.
    """

    @property
    def action(self) -> int: ...
    def step(self, now: int, /) -> int:
        """The local action (DROP_LOCAL, WAIT, PROBE) is done. Returns the next action, as all of these do."""

    def sending(self, connection: int, /) -> None:
        """Before the bytes of PUT leave: the CLIENT ID of the connection (0: unknown)."""

    def reply(self, now: int, epoch: int, data: bytes | bool | None, /) -> int:
        """The server's answer, and the epoch of the connection that brought it."""

    def reply_claim(self, now: int, epoch: int, won: bool, data: bytes | None, /) -> int: ...
    def failed(self, now: int, kind: int, /) -> int: ...
    def loaded(self, now: int, ttl: int, kind: int = 1, /) -> int:
        """LOAD: the loader returned. ttl 0: the namespace's. Kinds: VALUE, NEGATIVE ("there is none"), LOCAL (too large or not encodable)."""

    def load_failed(self, now: int, /) -> int: ...
    def reject(self, now: int, /) -> int:
        """HIT, NEGATIVE_HIT or STALE whose payload cannot be used (codec, MAC, flags): counted, a miss."""

    def head(self, flags: int, codec: int, /) -> bytes:
        """FILL, PUT: the frame is head + payload (+ MAC). `flags` are 16 bits of the caller's."""

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
        """The key that the command names; mostly `key`."""

    @property
    def expected(self) -> bytes: ...
    @property
    def frame(self) -> bytes:
        """ACQUIRE, SWAP, CLAIM: the new value. BUMP, READ_GENERATION, EXPIRE, TOUCH: 16 bytes of stamp."""

    @property
    def px(self) -> int: ...
    @property
    def not_after(self) -> int:
        """PUT: server time in ms after which the server must refuse it (a script), 0 for a plain SET."""

    @property
    def soft_end(self) -> int:
        """TOUCH, EXPIRE: the new soft end, server ms: 8 bytes, little endian, at offset 24 of the frame (the stamp: 16 at offset 4)."""

    @property
    def connection(self) -> int:
        """FENCE: the CLIENT ID to kill."""

    @property
    def until(self) -> int:
        """WAIT: until when."""

    @property
    def limited(self) -> bool:
        """LOAD: without a lease (tier 2 is down, or the key is journalled): at most `max_loads` at once."""

    # Results:
    @property
    def offset(self) -> int:
        """HIT, STALE: where the payload (and a MAC behind it) begins in the reply."""

    @property
    def flags(self) -> int: ...
    @property
    def codec(self) -> int: ...
    @property
    def keep_until(self) -> int:
        """HIT, NEGATIVE_HIT, DELIVER, DONE: tier 1 keeps the value until then, if its mark is whole; 0: nowhere."""

    @property
    def stored(self) -> bool:
        """DELIVER, DONE: tier 2 confirmed it, and the generations are the present ones as far as is known.

        Who joined a mark of FILL or PUT gets the value only then, and else tries again.
        """

    @property
    def stale(self) -> bool:
        """LOAD: the last reply's payload may be served now, while this load runs (`offset`, `flags`, `codec`)."""

    VALUE: int
    NEGATIVE: int
    LOCAL: int
    # Commands, one key each. (*): open a new mark in tier 1 first.
    GET: int
    """(*) GET target -> bytes | None."""
    ACQUIRE: int
    """SET target frame NX GET PX px -> the old value: bytes | None."""
    SWAP: int
    """Script: if the first 24 bytes of target (all of a shorter value) are `expected`: SET target frame PX px -> bool."""
    FILL: int
    """(*) The same with head() + payload as the new value -> bool."""
    PUT: int
    """(*) SET target head() + payload PX px -> True; with `not_after` a script -> bool. Call `sending` first."""
    RELEASE: int
    """Script: if target is `expected`: UNLINK -> bool."""
    REMOVE: int
    """Script: if UNLINK target == 0: SET target ''; UNLINK target -> True."""
    EXPIRE: int
    """Script: a value frame: stamp and soft end overwritten, TTL kept; else as REMOVE -> True."""
    TOUCH: int
    """Script: if the first 24 bytes are `expected`: stamp and soft end overwritten, PEXPIRE px -> bool."""
    BUMP: int
    """SET target frame -> True."""
    READ_GENERATION: int
    """SET target frame NX GET -> bytes | None."""
    CLAIM: int
    """(*) Pipeline: SET target frame NX PX px; GET key -> reply_claim(bool, bytes | None)."""
    FENCE: int
    """CLIENT KILL ID connection, through another connection to the same node -> True (also for 0 killed)."""
    DIRECT: int
    # Local actions.
    PROBE: int
    """The node is not known yet: connect to it (`Tier2.probed` or `probe_failed`), then step."""
    LOAD: int
    """Call the loader, then `loaded` or `load_failed`."""
    WAIT: int
    """Until `until`, a message for the key, or the end of another operation of this process on it; then step. Never while this caller
    leads another key (an operation at LOAD or FILL): finish all those first."""
    DROP_LOCAL: int
    """Remove the key from tier 1 and invalidate its loads in flight (of a bump: all that carries the generation); then step."""
    # Ends.
    HIT: int
    NEGATIVE_HIT: int
    STALE: int
    """Serve the reply's payload; keep it nowhere."""
    MISS: int
    DELIVER: int
    """The loaded value goes to those who waited, and into tier 1 until keep_until."""
    FAILED: int
    """The loader's error."""
    DONE: int
    """Confirmed. Of a set: remove the key and invalidate every load but the own mark, then insert under it until keep_until."""
    UNCONFIRMED: int
    """Journalled (DIRECT: unknown). `strict` raises."""
