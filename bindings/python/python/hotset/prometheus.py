"""Metrics of the caches of this process for Prometheus (`hotset[prometheus]`).

All caches that have a name are reported: see `hotset.caches()`. Nothing is counted in addition to
what each cache counts anyway, so a hit costs the same with and without it.

- One process: register a `Collector`. It reads the caches when Prometheus scrapes.
- Several processes behind one port (gunicorn, uvicorn with workers): prometheus_client's
  multiprocess mode, in which each process writes its counts to files. `push` does so, and the hooks
  `post_request`, `worker_exit` and `child_exit` of gunicorn, `ASGIMiddleware` and
  `hotset.django.prometheus` call it.

Example:
    >>> import hotset, hotset.prometheus
    >>> from prometheus_client import CollectorRegistry
    >>> users: hotset.Cache[int, str] = hotset.Cache(100, name="users")
    >>> _ = users.get(1)
    >>> registry = CollectorRegistry()
    >>> registry.register(hotset.prometheus.Collector())
    >>> registry.get_sample_value("hotset_cache_requests_total", {"cache": "users", "result": "miss"})
    1
"""

import atexit
import glob
import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from itertools import accumulate
from typing import Any, Final, Literal, cast, final
from weakref import ReferenceType, ref

try:
    from prometheus_client import Counter, Gauge, Histogram
    from prometheus_client import multiprocess as _multiprocess
    from prometheus_client import utils as _utils
    from prometheus_client import values as _values
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.registry import Collector as _Collector
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "hotset.prometheus needs prometheus_client: pip install 'hotset[prometheus]'", name=error.name, path=error.path
    ) from error

from hotset._forks import at_fork
from hotset._metrics import HOTSET, MICROMETER, Figures, Increments, Metric, bucket_field, buckets, flat, read

__all__ = ["ASGIMiddleware", "Collector", "child_exit", "configure", "post_request", "push", "worker_exit"]

Names = Literal["hotset", "micrometer"]

# (These two have no types.)
_mark_process_dead: Callable[[int], None] = cast(Any, _multiprocess).mark_process_dead
_text_of: Callable[[float], str] = cast(Any, _utils).floatToGoString

_log = logging.getLogger("hotset")
_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
# Labels that Spring Boot's metrics have, and that dashboards for them select by.
_MICROMETER_LABELS: Final = {"application": "python", "cache_manager": "hotset", "namespace": "default"}


@final
class _Table:
    """The metrics under one set of names, with their labels."""

    def __init__(self, names: str, labels: Mapping[str, str] | None) -> None:
        if names not in ("hotset", "micrometer"):
            raise ValueError(f'names must be "hotset" or "micrometer", not {names!r}')
        if labels is not None and not isinstance(labels, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"labels must be a dict of names and values, not {type(labels).__name__}")
        self.names: Final = names
        self.metrics: Final = HOTSET if names == "hotset" else MICROMETER
        self.labels: Final[dict[str, str]] = {**({} if names == "hotset" else _MICROMETER_LABELS), **(labels or {})}
        own = {"cache", "name", "le", "pid", *(metric.label for metric in self.metrics)} & self.labels.keys()
        if own:
            raise ValueError(f"labels must not have {', '.join(map(repr, sorted(own)))}: the metrics have that label")
        for name, value in self.labels.items():
            if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"the label {name!r} must be a str, not {type(value).__name__}")
            if not re.fullmatch("(?!__)[a-zA-Z_][a-zA-Z0-9_]*", name):
                raise ValueError(f"the label {name!r} is no name of a label: letters, digits and underscores, not two at the beginning")
            if value != value.encode(errors="replace").decode():
                raise ValueError(f"the value of the label {name!r} is no text: {value!r}")

    def label_names(self, metric: Metric) -> list[str]:
        """Returns the names of the labels of a metric."""
        of_cache = ["cache"] if self.names == "hotset" else ["cache", "name"]
        return [*of_cache, *([metric.label] if metric.label else []), *self.labels]

    def label_values(self, metric: Metric, cache: str, value: str) -> list[str]:
        """Returns the values of the labels of one series, in the order of `label_names`."""
        of_cache = [cache] if self.names == "hotset" else [cache, cache]
        return [*of_cache, *([value] if metric.label else []), *self.labels.values()]


def _is_multiprocess() -> bool:
    """Returns whether prometheus_client writes to files, which it decided when it was imported."""
    return bool(getattr(_values.ValueClass, "_multiprocess", False))


_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
_FAMILIES: Final[dict[str, type[_Family]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "sum": GaugeMetricFamily,
}


def _cumulative(counts: list[tuple[float, float]]) -> list[tuple[str, float]]:
    """Returns for each upper bound the number of loads that took at most that long."""
    sums = accumulate(count for _, count in counts)
    return [(_text_of(upper), total) for (upper, _), total in zip(counts, sums, strict=True)]


@final
class Collector(_Collector):
    """Reads the caches of this process when Prometheus scrapes it.

    For a registry of prometheus_client.

    A counter restarts when another cache of the same name takes the place of the first one, and its
    series end when the cache is dropped.

    Args:
        names: "hotset" for the names in the reference of metrics; "micrometer" for those of
            Micrometer, which dashboards for Spring Boot show.
        labels: Further labels of all series, by name. With `names="micrometer"` the labels
            "application", "namespace" and "cache_manager" have defaults.

    Raises:
        TypeError: `labels` is not a dict of strings.
        ValueError: `names` is another one, or `labels` has a label that the metrics have.

    Example:
        >>> import hotset.prometheus
        >>> from prometheus_client import CollectorRegistry, generate_latest
        >>> registry = CollectorRegistry()
        >>> registry.register(hotset.prometheus.Collector(labels={"service": "shop"}))
        >>> b"# TYPE hotset_cache_requests_total counter" in generate_latest(registry)
        True
    """

    def __init__(self, *, names: Names = "hotset", labels: Mapping[str, str] | None = None) -> None:
        self._table = _Table(names, labels)
        self._last: dict[str, tuple[ReferenceType[Any], dict[str, float]]] = {}
        self._pid = os.getpid()
        if _is_multiprocess():
            warnings.warn(
                f"{_DIRECTORY} is set: a Collector reports only the process that answers the scrape; use hotset.prometheus.push()", stacklevel=2
            )

    def _families(self) -> list[tuple[Metric, _Family]]:
        def family(metric: Metric) -> _Family:
            return _FAMILIES[metric.kind](metric.name, metric.help, labels=self._table.label_names(metric))

        return [(metric, family(metric)) for metric in self._table.metrics]

    def _read(self) -> dict[str, Figures]:
        """Returns the figures of all caches, whose counts are not smaller than at the last scrape.

        A count that is the difference of others may seem to fall by a call in progress, and
        Prometheus would take that for a restart.
        """
        found: dict[str, Figures] = {}
        if self._pid != os.getpid():
            # (A child counts from the fork on.)
            self._last, self._pid = {}, os.getpid()
        last, self._last = self._last, {}
        for name, (cache, figures) in read().items():
            if name in last and last[name][0]() is cache:
                before = last[name][1]
                figures = figures._replace(counts={field: max(count, before.get(field, 0)) for field, count in figures.counts.items()})
            found[name] = figures
            self._last[name] = ref(cache), figures.counts
        return found

    def describe(self) -> Iterable[Family]:
        """Returns the metrics without values. Called by the registry."""
        return [family for _, family in self._families()]

    def collect(self) -> Iterable[Family]:
        """Returns the metrics with their present values. Called by the registry."""
        families = self._families()
        for name, figures in self._read().items():
            fields = flat(figures)
            for metric, family in families:
                for value, count in metric.values(fields):
                    labels = self._table.label_values(metric, name, value)
                    if isinstance(family, HistogramMetricFamily):
                        family.add_metric(labels, _cumulative(buckets(fields)), count)
                    else:
                        family.add_metric(labels, count)
        return [family for _, family in families]


@final
class _Series:
    """What writes the series of one cache, and what was last written of it."""

    __slots__ = ("gauges", "held", "known", "writers")

    def __init__(self) -> None:
        # The fields for which there are writers; what adds to a series, and the fields it adds.
        self.known = 0
        self.writers: list[tuple[Callable[[float], None], tuple[str, ...]]] = []
        self.gauges: dict[str, Any] = {}
        self.held: dict[str, float] | None = None


@final
class _Pusher:
    """Writes the counts of this process into counters and gauges of prometheus_client."""

    def __init__(self, table: _Table, every: float) -> None:
        if _is_multiprocess():
            directory = os.environ.get(_DIRECTORY)
            if not directory or not os.path.isdir(directory):
                raise ValueError(f"{_DIRECTORY} is not a directory: {directory!r}; create it, empty, before the server starts")
        self.table: Final = table
        self.every: Final = every
        self._parents = {metric.name: self._parent(metric) for metric in table.metrics if metric.kind != "histogram"}
        # Made when the bounds of the buckets are known.
        self._histograms: dict[str, Histogram] = {}
        self._series: dict[str, _Series] = {}
        self._increments = Increments(self._apply)
        # The process that has pushed, and when a hook pushed last.
        self._pid = 0
        self._pushed = -float("inf")
        atexit.register(self._at_exit)

    def _parent(self, metric: Metric) -> Counter | Gauge:
        labels = self.table.label_names(metric)
        if metric.kind == "counter":
            return Counter(metric.name, metric.help, labels)
        mode: Literal["sum", "livesum"] = "sum" if metric.kind == "sum" else "livesum"
        return Gauge(metric.name, metric.help, labels, multiprocess_mode=mode)

    def _apply(self, name: str, rises: dict[str, float], held: dict[str, float] | None) -> None:
        series = self._series.setdefault(name, _Series())
        if len(rises) > series.known:
            # (Again when the second tier is used for the first time.)
            series.known, series.writers = len(rises), self._writers(name, rises)
        for write, fields in series.writers:
            # (A cache that took the name of another one may have fewer, and a dropped one none.)
            rise = rises.get(fields[0], 0) if len(fields) == 1 else sum(rises.get(field, 0) for field in fields)
            if rise:
                write(rise)
        if held != series.held:
            self._set_gauges(name, series, held)

    def _writers(self, name: str, rises: dict[str, float]) -> list[tuple[Callable[[float], None], tuple[str, ...]]]:
        """Returns what adds to each series, and the fields that are added."""
        writers: list[tuple[Callable[[float], None], tuple[str, ...]]] = []
        for metric in self.table.metrics:
            if metric.kind == "gauge":
                continue
            parent = self._histogram(metric, rises) if metric.kind == "histogram" else self._parents[metric.name]
            for value, fields in metric.present(rises):
                child: Any = parent.labels(*self.table.label_values(metric, name, value))
                if metric.kind == "histogram":
                    # Its public methods add loads one by one only.
                    writers += [(bucket.inc, (bucket_field(upper),)) for bucket, (upper, _) in zip(child._buckets, buckets(rises), strict=True)]
                    writers.append((child._sum.inc, fields))
                else:
                    writers.append((child.inc, fields))
        return writers

    def _histogram(self, metric: Metric, rises: dict[str, float]) -> Histogram:
        if metric.name not in self._histograms:
            bounds = [upper for upper, _ in buckets(rises)]
            self._histograms[metric.name] = Histogram(metric.name, metric.help, self.table.label_names(metric), buckets=bounds)
        return self._histograms[metric.name]

    def _set_gauges(self, name: str, series: _Series, held: dict[str, float] | None) -> None:
        for metric in self.table.metrics:
            if metric.kind == "gauge":
                if held is not None and (values := metric.values(held)):
                    if metric.name not in series.gauges:
                        series.gauges[metric.name] = self._parents[metric.name].labels(*self.table.label_values(metric, name, ""))
                    series.gauges[metric.name].set(values[0][1])
                elif metric.name in series.gauges:
                    series.gauges[metric.name].set(0)
        series.held = held
        if held is None:
            self._series.pop(name, None)

    def push(self) -> None:
        """Writes what was counted since the last call in this process."""
        if self._pid != os.getpid():
            self._pid, self._series = os.getpid(), {}
            if _is_multiprocess():
                _mark_dead_processes()
        self._increments.run()

    def push_if_due(self) -> None:
        """Does the same for a hook: at most once in `every` seconds."""
        now = time.monotonic()
        if self._pid == os.getpid() and now - self._pushed < self.every:
            return
        self._pushed = now
        self.push()

    def end(self) -> None:
        """Writes the last counts of a process that ends, and removes its gauges."""
        self.push()
        if _is_multiprocess():
            _mark_process_dead(os.getpid())

    def _at_exit(self) -> None:
        # (A child that has never pushed has inherited this handler.)
        if self._pid == os.getpid():
            _guarded(self.end)


def _mark_dead_processes() -> None:
    """Removes the gauges of processes that were killed: their servers may have no hook for that."""
    for path in glob.glob(os.path.join(glob.escape(os.environ.get(_DIRECTORY, "")), "gauge_live*_*.db")):
        pid = path.removesuffix(".db").rpartition("_")[2]
        if pid.isdecimal() and not _is_alive(int(pid)):
            _mark_process_dead(int(pid))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # (Another user's.)
        return True
    return True


# Reentrant: a destructor that runs while a thread has it may push.
_lock = threading.RLock()
_configured: _Pusher | None = None


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


at_fork(_renew_lock)


def configure(*, names: Names = "hotset", labels: Mapping[str, str] | None = None, every: float = 0.0) -> None:
    """Sets what `push` and the hooks write. Without this call, they write with the defaults.

    Registers the metrics with prometheus_client's default registry.

    Args:
        names: "hotset" or "micrometer", as of `Collector`.
        labels: Further labels of all series, as of `Collector`.
        every: The hooks write at most once in `every` seconds; with 0 after every request. What
            they omit is written after a later request, or when the process ends.

    Raises:
        RuntimeError: Other settings are in use.
        TypeError: A setting is of the wrong type.
        ValueError: A setting is out of its range, or `PROMETHEUS_MULTIPROC_DIR` is set, and no
            directory.

    Example:
        >>> import hotset.prometheus
        >>> hotset.prometheus.configure(every=1)
    """
    if isinstance(every, bool) or not isinstance(every, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"every must be a number of seconds, not {type(every).__name__}")
    if not 0 <= every < float("inf"):
        raise ValueError(f"every must be a number of seconds, 0 or more, not {every!r}")
    _pusher(_Table(names, labels), float(every))


def _pusher(table: _Table | None = None, every: float = 0.0) -> _Pusher:
    global _configured
    if _configured is not None and table is None:
        return _configured
    if _configured is None and os.environ.get(_DIRECTORY) and not _is_multiprocess():
        warnings.warn(f"{_DIRECTORY} was set after prometheus_client was imported: it has no effect in this process", stacklevel=3)
    with _lock:
        if _configured is None:
            _configured = _Pusher(table or _Table("hotset", None), every)
        elif table is not None and (table.names, table.labels, every) != (_configured.table.names, _configured.table.labels, _configured.every):
            raise RuntimeError("hotset.prometheus has other settings already: call configure() once, before the first push()")
        return _configured


def push() -> None:
    """Writes what the caches of this process have counted into counters of prometheus_client.

    The counters never fall. They include what was counted before `cache_clear` or `reset_stats`;
    what a cache counted after the last call is not written if it is dropped, or if another cache
    takes its name. A process that was forked writes what was counted
    since the fork, if this module was imported before.

    Raises:
        ValueError: `PROMETHEUS_MULTIPROC_DIR` is set, and no directory.

    Example:
        >>> import hotset.prometheus
        >>> hotset.prometheus.push()
    """
    _pusher().push()


_has_failed = False


def _guarded(write: Callable[[], None]) -> None:
    """Calls `write` in a hook: a failure is logged once, and fails no request."""
    global _has_failed
    try:
        write()
    except Exception:
        if not _has_failed:
            _log.warning("failed to write the metrics of this process; further failures are not logged", exc_info=True)
        _has_failed = True


def _push_after_request() -> None:
    _guarded(lambda: _pusher().push_if_due())


# --- gunicorn: names of its settings, to be imported by gunicorn.conf.py.


def post_request(worker: Any, req: Any, environ: Any = None, resp: Any = None) -> None:
    """Pushes after a request. A hook of gunicorn's."""
    _push_after_request()


def worker_exit(server: Any, worker: Any) -> None:
    """Pushes what an ending worker has counted last. A hook of gunicorn's."""
    _guarded(push)


def child_exit(server: Any, worker: Any) -> None:
    """Removes the gauges of a worker that has ended, or was killed. A hook of gunicorn's."""
    if _is_multiprocess():
        _mark_process_dead(worker.pid)


# --- ASGI.

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


@final
class ASGIMiddleware:
    """Pushes after each request, and at shutdown: for uvicorn and other ASGI servers.

    Args:
        app: The application.

    Example:
        >>> import hotset.prometheus
        >>> async def app(scope, receive, send):
        ...     await send({"type": "http.response.start", "status": 204})
        ...     await send({"type": "http.response.body"})
        >>> app = hotset.prometheus.ASGIMiddleware(app)
    """

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Runs the application for one connection, or from startup to shutdown of the server."""
        if scope["type"] == "lifespan":

            async def sending(message: MutableMapping[str, Any]) -> None:
                if str(message["type"]).startswith("lifespan.shutdown"):
                    _guarded(lambda: _pusher().end())
                await send(message)

            await self._app(scope, receive, sending)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            _push_after_request()

