"""What metrics report: figures, increments, and names. (The exporters: bindings/python/metrics.)"""

import gc
import importlib
import json
import logging
import os
import re
import sys
import threading
from pathlib import Path

import pytest

import hotset
from hotset import _metrics
from hotset._metrics import HOTSET, MICROMETER, Increments, flat, read

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana" / "hotset.json"


def counts(name):
    return read()[name][1].counts


class Sums:
    """Adds up increments, as a counter does."""

    def __init__(self):
        self.sums = {}
        self.held = {}

    def __call__(self, name, rises, held):
        assert all(rise >= 0 for rise in rises.values())
        sums = self.sums.setdefault(name, {})
        for field, rise in rises.items():
            sums[field] = sums.get(field, 0) + rise
        self.held[name] = held


def test_figures_of_a_function_and_of_a_cache():
    @hotset.cached(maxsize=2, name="metrics: f")
    def f(n):
        if n < 0:
            raise ValueError(n)
        return n

    cache = hotset.Cache(None, name="metrics: cache")
    [f(1), f(1), f(2), f(3)]
    with pytest.raises(ValueError):
        f(-1)
    cache["a"] = 1
    of_f, of_cache = read()["metrics: f"], read()["metrics: cache"]
    assert of_f[0] is f and of_cache[0] is cache
    figures = flat(of_f[1])
    assert (figures["hits"], figures["misses"], figures["load_successes"], figures["load_failures"]) == (1, 4, 3, 1)
    assert (figures["entries"], figures["capacity"], figures["load_time"] > 0) == (2, 2, True)
    assert of_cache[1].held == {"entries": 1, "weight": 1}  # no capacity without a bound
    assert not of_cache[1].tier2


def test_counts_continue_over_resets():
    @hotset.cached(maxsize=10, name="metrics: reset")
    def f(n):
        return n

    [f(1), f(1), f(2)]
    f.cache_clear()
    assert f.cache_info()[:2] == (0, 0)
    f(1)
    f.cache_reset_stats()
    f(1)
    assert f.cache_info()[:2] == (1, 0)
    found = counts("metrics: reset")
    assert (found["hits"], found["misses"], found["loads"]) == (2, 3, 3)
    hotset.clear_all()
    assert counts("metrics: reset")["misses"] == 3


def test_increments_over_resets_add_up():
    cache = hotset.Cache(10, name="metrics: increments")
    sums = Sums()
    increments = Increments(sums)
    for round in range(5):
        cache["a"] = round
        [cache.get("a"), cache.get("b")]
        increments.run()
        increments.run()
        if round % 2:
            cache.reset_stats()
    assert (sums.sums["metrics: increments"]["hits"], sums.sums["metrics: increments"]["misses"]) == (5, 5)


def test_a_second_cache_of_a_name_takes_its_place():
    first = hotset.Cache(10, name="metrics: twice")
    sums = Sums()
    increments = Increments(sums)
    [first.get(n) for n in range(7)]
    increments.run()
    second = hotset.Cache(10, name="metrics: twice")
    [second.get(n) for n in range(3)]
    increments.run()
    first.get(1)  # no longer reported
    increments.run()
    assert sums.sums["metrics: twice"]["misses"] == 10
    assert counts("metrics: twice")["misses"] == 3
    assert sums.held["metrics: twice"]["capacity"] == 10


def test_a_cache_that_was_dropped_is_passed_on_as_gone():
    cache = hotset.Cache(10, name="metrics: gone")
    cache["a"] = 1
    sums = Sums()
    increments = Increments(sums)
    increments.run()
    assert sums.held["metrics: gone"]["entries"] == 1
    del cache
    gc.collect()
    increments.run()
    assert sums.held["metrics: gone"] is None
    # Another one of that name counts on.
    cache = hotset.Cache(10, name="metrics: gone")
    cache["a"] = 1
    increments.run()
    assert sums.sums["metrics: gone"]["insertions"] == 2


def test_a_timer_that_raises_omits_its_cache(caplog):
    fails = []

    def timer():
        if fails:
            raise OSError("no clock")
        return 0.0

    cache = hotset.Cache(10, ttl=5, timer=timer, name="metrics: no clock")
    cache["a"] = 1
    other = hotset.Cache(10, name="metrics: other")
    fails.append(True)
    with caplog.at_level(logging.WARNING, "hotset"):
        found = read()
    fails.clear()
    assert "metrics: no clock" not in found and found["metrics: other"][0] is other
    assert "metrics: no clock" in caplog.text


def test_a_timer_may_request_increments_itself():
    calls = []

    def timer():
        calls.append(True)
        increments.run()
        return 0.0

    increments = Increments(lambda name, rises, held: None)
    cache = hotset.Cache(10, ttl=5, timer=timer, name="metrics: timer")
    cache["a"] = 1
    increments.run()
    assert calls


def test_increments_by_threads_are_neither_lost_nor_doubled():
    cache = hotset.Cache(10, name="metrics: threads")
    sums = Sums()
    increments = Increments(sums)

    def request():
        for n in range(200):
            cache.get(n)
            increments.run()

    threads = [threading.Thread(target=request) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    # The last requests are passed on by their own threads, or by the one that was at it.
    assert sums.sums["metrics: threads"]["misses"] == 1600


def test_increments_after_a_failure_continue():
    cache = hotset.Cache(10, name="metrics: failure")
    sums = Sums()
    fails = [True]

    def apply(name, rises, held):
        if fails:
            raise OSError("disk full")
        sums(name, rises, held)

    increments = Increments(apply)
    with pytest.raises(OSError):
        increments.run()
    fails.clear()
    cache.get(1)
    increments.run()
    assert sums.sums["metrics: failure"]["misses"] == 1


def in_a_child(check):
    """Runs `check` in a forked process, and returns what it returns."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(check()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        result = json.loads(pipe.read())
    os.waitpid(child, 0)
    return result


def test_a_forked_process_counts_from_the_fork():
    cache = hotset.Cache(10, name="metrics: fork")
    sums = Sums()
    increments = Increments(sums)
    [cache.get(n) for n in range(5)]
    increments.run()
    [cache.get(n) for n in range(2)]  # counted, and not yet passed on by the parent

    def child():
        at_first = counts("metrics: fork")["misses"]
        cache.get(1)
        increments.run()
        grandchild = in_a_child(lambda: counts("metrics: fork")["misses"])
        return [at_first, counts("metrics: fork")["misses"], sums.sums["metrics: fork"]["misses"] - 5, grandchild]

    assert in_a_child(child) == [0, 1, 1, 0]
    increments.run()
    assert sums.sums["metrics: fork"]["misses"] == 7


def test_a_new_cache_of_a_forked_process_counts_from_0():
    cache = hotset.Cache(10, name="metrics: fork, new")
    [cache.get(n) for n in range(5)]

    def child():
        other = hotset.Cache(10, name="metrics: fork, new")
        [other.get(n) for n in range(2)]
        return counts("metrics: fork, new")["misses"]

    assert in_a_child(child) == 2


def test_names_that_are_no_text_are_escaped():
    cache = hotset.Cache(10, name="metrics \udc80")
    assert read()["metrics \\udc80"][0] is cache


def test_metrics_follow_the_rules_of_names():
    for table in (HOTSET, MICROMETER):
        names = [metric.name for metric in table]
        assert len(set(names)) == len(names)
        for metric in table:
            assert re.fullmatch("[a-z0-9_]+", metric.name) and not metric.name.endswith("_total")
            assert bool(metric.label) == (len(metric.series) > 1)
    assert all(metric.otel.startswith("hotset.cache.") and bool(metric.otel_label) == bool(metric.label) for metric in HOTSET)
    assert len({metric.otel for metric in HOTSET}) == len(HOTSET)


def test_names_and_help_are_those_of_the_rust_crate():
    table = (Path(__file__).parents[3] / "src" / "metric_table.rs").read_text()
    of_rust = re.findall(r'metric\(\s*"(hotset_\w+)",\s*Kind::\w+,\s*"([^"]+)"', table)
    of_python = [(f"{metric.name}{'_total' * (metric.kind == 'counter')}", metric.help) for metric in HOTSET if "tier2" not in metric.name]
    assert sorted(of_rust) == sorted(of_python)


def test_fields_of_metrics_exist():
    cache = hotset.Cache(10, name="metrics: fields")
    cache["a"] = 1
    figures = flat(read()["metrics: fields"][1])
    for metric in (*HOTSET, *MICROMETER):
        fields = [field for fields in metric.series.values() for field in fields if not field.startswith("tier2.")]
        assert all(field in figures for field in fields), metric.name


@pytest.mark.parametrize(("module", "package"), [("prometheus", "prometheus_client"), ("opentelemetry", "opentelemetry.metrics")])
def test_without_its_package_a_module_names_the_extra(module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"hotset.{module}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"pip install 'hotset[{module}]'")) as raised:
        importlib.import_module(f"hotset.{module}")
    assert raised.value.name == package


def exposed():
    """The names of all series of the table "hotset"."""
    for metric in HOTSET:
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric.kind, [""])
        yield from (metric.name + suffix for suffix in suffixes)


def test_the_dashboard_names_metrics_that_exist():
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(expressions) > 10
    named = {name for expression in expressions for name in re.findall(r"\bhotset_\w+", expression)}
    assert named <= set(exposed())
    assert {name for name in exposed() if "tier2" not in name} - named <= {"hotset_cache_evicted_weight_total"}


def test_the_reference_lists_every_metric():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "metrics.md").read_text()
    for metric in HOTSET:
        assert f"`{metric.name}{'_total' if metric.kind == 'counter' else ''}`" in page and f"`{metric.otel}`" in page, metric.name
        for value in metric.series if metric.label else ():
            assert f"`{value}`" in page, (metric.name, value)
    for metric in MICROMETER:
        assert f"`{metric.name}{'_total' if metric.kind == 'counter' else ''}`" in page, metric.name


def test_nothing_of_metrics_is_imported_with_the_package():
    assert _metrics.__name__ in sys.modules  # (here)
    code = "import sys, hotset; sys.exit(any(name in sys.modules for name in ('hotset._metrics', 'prometheus_client', 'opentelemetry')))"
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0
