"""What metrics report of the caches of this process, and the names they have in monitoring systems.

`read` returns the figures of all caches that have a name. Counts are those since a cache was
created: `cache_clear` and `reset_stats` do not restart them. A process that was forked counts from
the fork. `Increments` makes increments of successive figures. `HOTSET` and `MICROMETER` are tables
of names.

`hotset.prometheus` and `hotset.opentelemetry` are built on it.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, final
from weakref import ReferenceType, ref

from hotset._forks import at_fork
from hotset._registry import caches
from hotset._stats import Stats

_log = logging.getLogger("hotset")

# Fields of `Stats` that are not counts.
_HELD: Final = ("entries", "weight", "capacity")
# Prefix of the loads in one bucket of the histogram, followed by its upper bound in seconds.
_BUCKET: Final = "load_bucket."


class Figures(NamedTuple):
    """The figures of one cache.

    Attributes:
        counts: Counts by field of `Stats`, those of buckets by upper bound. They never fall
            as long as the cache exists.
        tier2: Counts of the second tier by name; empty without one, and before its first use. They
            restart when the connection to it is closed and opened again.
        held: What the cache holds: "entries", "weight", and with a bound "capacity".
    """

    counts: dict[str, float]
    tier2: dict[str, float]
    held: dict[str, float]


class _Raw(NamedTuple):
    """What was read of a cache: `Stats` since it was created, and the second tier's counters."""

    cache: Any
    totals: Stats
    tier2: dict[str, float]


def _read() -> dict[str, _Raw]:
    found: dict[str, _Raw] = {}
    for name, cache in caches().items():
        try:
            tier2: dict[str, float] = cache.__hotset_tier2__() if hasattr(cache, "__hotset_tier2__") else {}
            # (A lone surrogate is no text for a monitoring system, and would fail all metrics.)
            found[name.encode(errors="backslashreplace").decode()] = _Raw(cache, cache.__hotset_totals__(), tier2)
        except Exception:
            _log.warning("failed to read the statistics of the cache %r", name, exc_info=True)
    return found


@lru_cache
def bucket_field(upper: float) -> str:
    """Returns the field of the loads in one bucket.

    Args:
        upper: The upper bound in seconds.
    """
    return f"{_BUCKET}{upper!r}"


def _counts_of(totals: Stats) -> dict[str, float]:
    counts: dict[str, Any] = totals._asdict()
    for field in _HELD:
        del counts[field]
    counts["load_successes"] = max(totals.loads - totals.load_failures, 0)
    for upper, count in counts.pop("load_buckets"):
        counts[bucket_field(upper)] = count
    return counts


def _held_of(totals: Stats) -> dict[str, float]:
    return {field: value for field in _HELD if (value := getattr(totals, field)) is not None}


# What the caches of a forked process had counted before the fork. The parent reports it.
_inherited: dict[str, tuple[ReferenceType[Any], dict[str, float]]] = {}


def _forked() -> None:
    _inherited.clear()
    _inherited.update({name: (ref(raw.cache), _counts_of(raw.totals)) for name, raw in _read().items()})


# (After hotset's own handler, which was registered earlier, so the caches can be read.)
at_fork(_forked)


def _own_counts(name: str, raw: _Raw) -> dict[str, float]:
    """Returns the counts since the cache was created, or since this process was forked."""
    counts = _counts_of(raw.totals)
    inherited = _inherited.get(name)
    return counts if inherited is None or inherited[0]() is not raw.cache else _difference(counts, inherited[1])


def read() -> dict[str, tuple[Any, Figures]]:
    """Returns the caches of this process that have a name, and their figures.

    A cache whose statistics raise is omitted, and logged by the logger "hotset".

    Returns:
        The cache and its figures, by name. Counts are those since the cache was created, or since
        this process was forked.
    """
    return {name: (raw.cache, Figures(_own_counts(name, raw), raw.tier2, _held_of(raw.totals))) for name, raw in _read().items()}


def _difference(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    # (A count that is the difference of others may seem to fall by a call in progress.)
    return {field: value - last if value > (last := before.get(field, 0)) else 0 for field, value in now.items()}


class _Last(NamedTuple):
    """What was last read of a cache, and the greatest counts so far."""

    cache: ReferenceType[Any]
    totals: Stats | None
    tier2: dict[str, float]
    counts: dict[str, float]


@final
class Increments:
    """Passes on by how much counts have risen since it last did. Increments are never negative.

    Args:
        apply: Called for each cache that has changed, with its name, the increments by field (those
            of the second tier with the prefix "tier2."), and what it holds: None for a cache that
            was dropped.
    """

    def __init__(self, apply: Callable[[str, dict[str, float], dict[str, float] | None], None]) -> None:
        self._apply = apply
        self._last: dict[str, _Last] = {}
        # The thread that reads and applies, and whether another one has requested that in between.
        self._owner: int | None = None
        self._again = False
        self._lock = threading.RLock()
        self._pid = os.getpid()

    def run(self) -> None:
        """Reads all caches, and passes on the increments.

        Figures must be applied in the order in which they were read. If another thread does so
        already, that thread reads once more, and this call returns immediately: no thread waits for
        a cache to be read, which may run a user's timer.
        """
        if self._pid != os.getpid():
            self._after_fork()
        thread = threading.get_ident()
        with self._lock:
            if self._owner is not None:
                # (A timer that is read here may request it, too: it is in progress.)
                self._again |= self._owner != thread
                return
            self._owner = thread
        try:
            while True:
                self._again = False
                self._pass_on()
                with self._lock:
                    if not self._again:
                        self._owner = None
                        return
        except BaseException:
            self._owner = None
            raise

    def _after_fork(self) -> None:
        """Counts from 0, as `read` does in a child; the thread that held the lock may not exist."""
        self._last, self._owner, self._again, self._lock = {}, None, False, threading.RLock()
        self._pid = os.getpid()

    def _pass_on(self) -> None:
        found = _read()
        for name, raw in found.items():
            last = self._last.get(name)
            if last is None or last.cache() is not raw.cache:
                last = _Last(ref(raw.cache), None, {}, {})
            elif last.totals == raw.totals and last.tier2 == raw.tier2:
                continue
            counts = _own_counts(name, raw)
            rises = _difference(counts, last.counts)
            # (Fewer than before: another connection, which counts from 0.)
            tier2 = {} if any(raw.tier2.get(field, 0) < value for field, value in last.tier2.items()) else last.tier2
            rises.update({f"tier2.{field}": value for field, value in _difference(raw.tier2, tier2).items()})
            greatest = {field: value if value > (other := last.counts.get(field, 0)) else other for field, value in counts.items()}
            self._last[name] = _Last(last.cache, raw.totals, raw.tier2, greatest)
            self._apply(name, rises, _held_of(raw.totals))
        for name in self._last.keys() - found.keys():
            del self._last[name]
            self._apply(name, {}, None)


Kind = Literal["counter", "gauge", "sum", "histogram"]


@final
class Metric:
    """A metric: its names, and the fields that its values are made of.

    Args:
        name: The name in Prometheus, without the suffix "_total" of counters.
        kind: "counter" for a Prometheus counter, "gauge" for a gauge, "sum" for a gauge that rises
            like a counter, "histogram" for that of the loads, whose field is the sum of durations.
            OpenTelemetry gets the sum, and the buckets as counters.
        help: What it counts.
        series: The fields whose sum is a value, by value of `label`.
        label: The label in Prometheus that distinguishes the values; "" with one value only.
        otel: The name in OpenTelemetry.
        otel_label: The attribute in OpenTelemetry that corresponds to `label`.
        unit: The unit in OpenTelemetry.
    """

    __slots__ = ("help", "kind", "label", "name", "otel", "otel_label", "series", "unit")

    def __init__(
        self,
        name: str,
        kind: Kind,
        help: str,
        series: dict[str, tuple[str, ...]],
        label: str = "",
        *,
        otel: str = "",
        otel_label: str = "",
        unit: str = "1",
    ) -> None:
        self.name, self.kind, self.help, self.series, self.label = name, kind, help, series, label
        self.otel, self.otel_label, self.unit = otel, otel_label, unit

    def values(self, figures: Mapping[str, float]) -> list[tuple[str, float]]:
        """Returns the values of `label` and the metric, where the figures have them.

        Args:
            figures: Figures by field, those of the second tier with the prefix "tier2.".
        """
        return [(value, sum(figures[field] for field in fields)) for value, fields in self.present(figures)]

    def present(self, figures: Mapping[str, float]) -> list[tuple[str, tuple[str, ...]]]:
        """Returns the values of `label` and the fields to add, where the figures have them.

        Args:
            figures: Figures by field, those of the second tier with the prefix "tier2.".
        """
        return [(value, fields) for value, fields in self.series.items() if all(field in figures for field in fields)]


def buckets(figures: Mapping[str, float]) -> list[tuple[float, float]]:
    """Returns the upper bounds of the buckets in seconds, the last one infinite, and their loads.

    Args:
        figures: Figures by field.
    """
    return [(float(field.removeprefix(_BUCKET)), count) for field, count in figures.items() if field.startswith(_BUCKET)]


def flat(figures: Figures) -> dict[str, float]:
    """Returns all figures of a cache in one dict, those of the second tier prefixed by "tier2.".

    Args:
        figures: The figures.
    """
    return {**figures.counts, **{f"tier2.{field}": value for field, value in figures.tier2.items()}, **figures.held}


def _hotset(
    name: str, kind: Kind, help: str, series: dict[str, tuple[str, ...]] | str, label: str = "", otel_label: str = "", unit: str = "1"
) -> Metric:
    return Metric(
        f"hotset_cache_{name}",
        kind,
        help,
        {"": (series,)} if isinstance(series, str) else series,
        label,
        otel=f"hotset.cache.{name.replace('tier2_', 'tier2.').replace('load_duration_seconds', 'load.time')}",
        otel_label=otel_label and f"hotset.cache.{otel_label}",
        unit=unit,
    )


HOTSET: Final = (
    _hotset(
        "requests",
        "counter",
        "Lookups by whether they found a value",
        {"hit": ("hits",), "miss": ("misses",)},
        "result",
        "request.type",
        "{request}",
    ),
    _hotset("stale_hits", "counter", "Lookups that found a value which was due for a reload or had expired", "stale_hits", unit="{request}"),
    _hotset("waits", "counter", "Calls that waited for the load of another caller", "waits", unit="{call}"),
    _hotset("insertions", "counter", "Values that were stored", "insertions", unit="{entry}"),
    _hotset("evictions", "counter", "Entries that were removed to make room", "evictions", unit="{entry}"),
    _hotset("evicted_weight", "counter", "Weight of the entries that were removed to make room", "evicted_weight"),
    _hotset("expirations", "counter", "Entries that expired", "expirations", unit="{entry}"),
    _hotset("rejections", "counter", "New entries that were not admitted", "rejections", unit="{entry}"),
    _hotset(
        "loads",
        "counter",
        "Calls of a loader by their result",
        {"success": ("load_successes",), "failure": ("load_failures",)},
        "result",
        "load.result",
        "{load}",
    ),
    _hotset("load_duration_seconds", "histogram", "Durations of calls of a loader", "load_time", unit="s"),
    _hotset("entries", "gauge", "Entries that are held", "entries", unit="{entry}"),
    _hotset("weight", "gauge", "Weight of the entries that are held", "weight"),
    _hotset("capacity", "gauge", "Capacity in entries or in weight", "capacity"),
    _hotset(
        "tier2_requests",
        "counter",
        "Reads of the second tier by what it had",
        {"hit": ("tier2.hits",), "negative_hit": ("tier2.negative_hits",), "miss": ("tier2.misses",)},
        "result",
        "request.type",
        "{request}",
    ),
    _hotset(
        "tier2_stale_hits",
        "counter",
        "Expired values of the second tier that were returned by reason",
        {"revalidate": ("tier2.stale_while_revalidate",), "error": ("tier2.stale_if_error",)},
        "reason",
        "stale.reason",
        "{request}",
    ),
    _hotset(
        "tier2_loads",
        "counter",
        "Calls of a loader behind the second tier by their result",
        {"success": ("tier2.loads",), "failure": ("tier2.load_failures",)},
        "result",
        "load.result",
        "{load}",
    ),
    _hotset("tier2_unleased_loads", "counter", "Loads without a lease of the second tier", "tier2.unleased_loads", unit="{load}"),
    _hotset(
        "tier2_waits",
        "counter",
        "Reads that waited for the load of another process by whether it came",
        {"served": ("tier2.waits",), "given_up": ("tier2.waits_given_up",)},
        "result",
        "wait.result",
        "{request}",
    ),
    _hotset(
        "tier2_fills",
        "counter",
        "Loaded values that were sent to the second tier by its answer",
        {"confirmed": ("tier2.fills",), "refused": ("tier2.fills_refused",)},
        "result",
        "fill.result",
        "{value}",
    ),
    _hotset(
        "tier2_changes",
        "counter",
        "Writes and removals on the second tier by its answer",
        {"written": ("tier2.writes",), "removed": ("tier2.removals",), "unconfirmed": ("tier2.unconfirmed",)},
        "result",
        "change.result",
        "{change}",
    ),
    _hotset(
        "tier2_unusable",
        "counter",
        "Replies of the second tier that could not be used by reason",
        {"outdated": ("tier2.outdated",), "malformed": ("tier2.malformed",), "rejected": ("tier2.rejected",)},
        "reason",
        "unusable.reason",
        "{value}",
    ),
    _hotset("tier2_local_values", "counter", "Values that stayed in the first tier", "tier2.local_values", unit="{value}"),
)

# The names of Micrometer's CaffeineCacheMetrics. Caffeine counts entries that expired or were not
# admitted as evictions, too.
MICROMETER: Final = (
    Metric("cache_gets", "counter", "Lookups by whether they found a value", {"hit": ("hits",), "miss": ("misses",)}, "result"),
    Metric("cache_puts", "counter", "Values that were stored", {"": ("insertions",)}),
    Metric(
        "cache_evictions", "counter", "Entries that were evicted or not admitted or that expired", {"": ("evictions", "expirations", "rejections")}
    ),
    Metric("cache_eviction_weight", "sum", "Weight of the entries that were evicted", {"": ("evicted_weight",)}),
    Metric("cache_size", "gauge", "Entries that are held", {"": ("entries",)}),
    Metric(
        "cache_load",
        "counter",
        "Calls of a loader by their result",
        {"success": ("load_successes",), "failure": ("load_failures",)},
        "result",
    ),
    Metric("cache_load_duration_seconds", "sum", "Time spent in loaders", {"": ("load_time",)}),
)
