"""`hotset.opentelemetry` with the SDK's reader in memory."""

import os
import time
from itertools import accumulate

import hotset
import hotset.opentelemetry
import pytest
from opentelemetry.sdk.metrics import Counter, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader


def points(reader, cache):
    """The last values of the metrics of one cache, by name and the other attribute."""
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    attributes = dict(point.attributes)
                    if attributes.pop("hotset.cache.name") == cache:
                        found[metric.name, "".join(attributes.values())] = point.value
    return found


@pytest.fixture
def reader():
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    hotset.opentelemetry.instrument(provider)
    hotset.opentelemetry.instrument(provider)  # no effect
    yield reader
    provider.shutdown()


def test_instruments_report_what_the_cache_has_counted(reader):
    cache = hotset.Cache(10, name="otel: counts")
    cache.get_or_load(1, lambda key: key)
    cache.get(1)
    found = points(reader, "otel: counts")
    assert (found["hotset.cache.requests", "hit"], found["hotset.cache.requests", "miss"]) == (1, 1)
    assert (found["hotset.cache.loads", "success"], found["hotset.cache.loads", "failure"]) == (1, 0)
    assert (found["hotset.cache.entries", ""], found["hotset.cache.capacity", ""]) == (1, 10)
    assert found["hotset.cache.load.time", ""] == cache.stats().load_time


def test_durations_of_loads_are_cumulative_buckets(reader):
    cache = hotset.Cache(10, name="otel: durations")
    for key in range(3):
        cache.get_or_load(key, lambda key: time.sleep(0.02 * (key == 2)))
    found = points(reader, "otel: durations")
    buckets = {le: count for (name, le), count in found.items() if name == "hotset.cache.load.duration.bucket"}
    bounds = list(buckets)
    assert bounds[:4] == ["1e-05", "2.5e-05", "5e-05", "0.0001"] and "1.0" in bounds and bounds[-1] == "+Inf"
    assert [float(le) for le in bounds] == [upper for upper, _ in cache.stats().load_buckets]
    assert list(buckets.values()) == list(accumulate(count for _, count in cache.stats().load_buckets))
    assert buckets["0.01"] < buckets["+Inf"] == 3
    cache.get_or_load(9, lambda key: key)
    assert points(reader, "otel: durations")["hotset.cache.load.duration.bucket", "+Inf"] == 4


def test_counters_never_fall(reader):
    cache = hotset.Cache(10, name="otel: resets")
    [cache.get(n) for n in range(5)]
    assert points(reader, "otel: resets")["hotset.cache.requests", "miss"] == 5
    cache.reset_stats()
    cache.get(1)
    assert points(reader, "otel: resets")["hotset.cache.requests", "miss"] == 6
    cache = hotset.Cache(10, name="otel: resets")
    cache.get(1)
    assert points(reader, "otel: resets")["hotset.cache.requests", "miss"] == 7


def test_differences_are_never_negative():
    reader = InMemoryMetricReader({Counter: AggregationTemporality.DELTA, ObservableCounter: AggregationTemporality.DELTA})
    provider = MeterProvider([reader])
    hotset.opentelemetry.instrument(provider)
    for lookups in (5, 2, 3):
        cache = hotset.Cache(10, name="otel: differences")
        [cache.get(n) for n in range(lookups)]
        assert points(reader, "otel: differences")["hotset.cache.requests", "miss"] == lookups
    del cache
    provider.shutdown()


def test_a_forked_process_reports_what_it_counted_itself(reader):
    cache = hotset.Cache(10, name="otel: fork")
    [cache.get(n) for n in range(5)]
    assert points(reader, "otel: fork")["hotset.cache.requests", "miss"] == 5
    child = os.fork()
    if child == 0:
        cache.get(1)
        os._exit(points(reader, "otel: fork")["hotset.cache.requests", "miss"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
