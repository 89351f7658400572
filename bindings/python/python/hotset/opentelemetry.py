"""Metrics of the caches of this process for OpenTelemetry (`hotset[opentelemetry]`).

`instrument` creates observable instruments: they read the caches when metrics are exported, so a
hit costs the same with and without them. All caches that have a name are reported: see
`hotset.caches()`.

Example:
    >>> import hotset, hotset.opentelemetry
    >>> from opentelemetry.sdk.metrics import MeterProvider
    >>> from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    >>> reader = InMemoryMetricReader()
    >>> hotset.opentelemetry.instrument(MeterProvider([reader]))
"""

import math
import os
from collections.abc import Callable, Iterable
from typing import Final, final
from weakref import WeakSet

try:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter_provider
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "hotset.opentelemetry needs opentelemetry: pip install 'hotset[opentelemetry]'", name=error.name, path=error.path
    ) from error

from hotset._hotset import __version__
from hotset._metrics import HOTSET, Increments, Metric, buckets

__all__ = ["instrument"]

NAME: Final = "hotset.cache.name"
_BUCKETS: Final = "hotset.cache.load.duration.bucket"


@final
class _Instruments:
    """The instruments of one meter, and the sums that they report."""

    def __init__(self, meter: Meter) -> None:
        # Sums of increments: an exporter of differences would report a counter that restarts as a
        # negative one.
        self._sums: dict[str, dict[str, float]] = {}
        self._live: dict[str, dict[str, float]] = {}
        self._pid = os.getpid()
        self._increments = Increments(self._apply)
        for metric in HOTSET:
            create = meter.create_observable_up_down_counter if metric.kind == "gauge" else meter.create_observable_counter
            create(metric.otel, [self._callback(metric)], metric.unit, metric.help)
        # There is no observable histogram, and a synchronous one takes one duration at a time: so
        # the buckets are counters, as those of a classic histogram in Prometheus.
        help = "Calls of a loader that took at most le seconds"
        meter.create_observable_counter(_BUCKETS, [self._observe_buckets], "{load}", help)

    def _apply(self, name: str, rises: dict[str, float], held: dict[str, float] | None) -> None:
        if held is None:
            self._live.pop(name, None)
            return
        before = self._sums.get(name, {})
        # (Replaced in one step: another thread may be reading it.)
        self._sums[name] = {**before, **{field: before.get(field, 0) + rise for field, rise in rises.items()}}
        self._live[name] = held

    def _read(self) -> list[tuple[str, dict[str, float]]]:
        """Returns the names and figures of all caches, as of now."""
        if self._pid != os.getpid():
            # (A child counts from the fork on.)
            self._sums, self._live, self._pid = {}, {}, os.getpid()
        self._increments.run()
        return [(name, {**self._sums[name], **held}) for name, held in list(self._live.items())]

    def _callback(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(number, {NAME: name, **({metric.otel_label: value} if metric.otel_label else {})})
                for name, figures in self._read()
                for value, number in metric.values(figures)
            ]

        return observe

    def _observe_buckets(self, _: CallbackOptions) -> Iterable[Observation]:
        found: list[Observation] = []
        for name, figures in self._read():
            total = 0.0
            for upper, count in buckets(figures):
                total += count
                found.append(Observation(total, {NAME: name, "le": "+Inf" if math.isinf(upper) else repr(upper)}))
        return found


_providers: "WeakSet[MeterProvider]" = WeakSet()


def instrument(meter_provider: MeterProvider | None = None) -> None:
    """Creates instruments that report all caches of this process. Again for a provider: no effect.

    Counters never fall: they continue over `cache_clear`, and over another cache of the same name.
    OpenTelemetry has no observable histogram: the durations of loads are counters with the
    attribute `le`, as the buckets of a classic histogram in Prometheus.

    Args:
        meter_provider: The provider; None for the global one, which must have been set.

    Example:
        >>> import hotset.opentelemetry
        >>> hotset.opentelemetry.instrument()
    """
    provider = get_meter_provider() if meter_provider is None else meter_provider
    if provider in _providers:
        return
    _providers.add(provider)
    _Instruments(provider.get_meter("hotset", __version__))
