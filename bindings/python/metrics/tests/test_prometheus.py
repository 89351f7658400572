"""`hotset.prometheus` in one process: what it exposes, and what it refuses."""

import math
import os
import subprocess
import sys

import hotset
import hotset.prometheus
import pytest
from conftest import collected, lint, total
from hotset.prometheus import Collector
from prometheus_client import CollectorRegistry, generate_latest

NAME = {"cache": "tests of metrics"}


def run(program, *, cwd, multiprocess=None):
    """Runs a program in a process of its own, with a default registry of its own."""
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    if multiprocess is not None:
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(multiprocess)
    return subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=cwd, capture_output=True, text=True, env=environment)


@pytest.fixture
def registry():
    registry = CollectorRegistry()
    registry.register(Collector())
    return registry


@pytest.fixture
def cache():
    cache = hotset.Cache(2, name=NAME["cache"])
    for number in range(4):
        cache.get_or_load(number, lambda key: key)
    cache.get_or_load(3, lambda key: key)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load(9, lambda key: 1 / 0)
    return cache


def test_collector_reports_what_the_cache_has_counted(registry, cache):
    stats = cache.stats()
    value = registry.get_sample_value
    assert value("hotset_cache_requests_total", {**NAME, "result": "hit"}) == stats.hits == 1
    assert value("hotset_cache_requests_total", {**NAME, "result": "miss"}) == stats.misses == 5
    assert value("hotset_cache_loads_total", {**NAME, "result": "success"}) == 4
    assert value("hotset_cache_loads_total", {**NAME, "result": "failure"}) == 1
    assert value("hotset_cache_load_duration_seconds_count", NAME) == 5
    assert value("hotset_cache_load_duration_seconds_sum", NAME) == pytest.approx(stats.load_time)
    assert value("hotset_cache_load_duration_seconds_bucket", {**NAME, "le": "+Inf"}) == 5
    assert value("hotset_cache_insertions_total", NAME) == stats.insertions
    assert value("hotset_cache_evictions_total", NAME) == stats.evictions
    assert value("hotset_cache_rejections_total", NAME) == stats.rejections
    assert value("hotset_cache_evicted_weight_total", NAME) == stats.evicted_weight
    assert (value("hotset_cache_entries", NAME), value("hotset_cache_capacity", NAME)) == (2, 2)


def test_buckets_of_the_collector_are_cumulative(registry, cache):
    samples = [sample for family in registry.collect() for sample in family.samples if sample.name.endswith("_bucket")]
    counts = {float(sample.labels["le"]): sample.value for sample in samples if sample.labels["cache"] == NAME["cache"]}
    bounds = [upper for upper, _ in cache.stats().load_buckets]
    assert list(counts) == bounds and bounds[-1] == math.inf
    assert list(counts.values()) == sorted(counts.values())


@pytest.mark.parametrize("names", ["hotset", "micrometer"])
def test_expositions_please_promtool(names, cache):
    registry = CollectorRegistry()
    registry.register(Collector(names=names, labels={"service": "a \"quoted\"\nname"}))
    lint(generate_latest(registry).decode())


def test_micrometer_has_the_labels_that_its_dashboard_selects_by(cache):
    registry = CollectorRegistry()
    registry.register(Collector(names="micrometer", labels={"application": "shop"}))
    labels = {**NAME, "name": NAME["cache"], "cache_manager": "hotset", "application": "shop", "namespace": "default"}
    value = registry.get_sample_value
    assert value("cache_gets_total", {**labels, "result": "hit"}) == 1
    assert value("cache_gets_total", {**labels, "result": "miss"}) == 5
    assert value("cache_puts_total", labels) == cache.stats().insertions
    assert value("cache_evictions_total", labels) >= 2
    assert value("cache_size", labels) == 2


def test_a_cache_that_was_dropped_has_no_series(registry):
    cache = hotset.Cache(2, name="metrics: dropped")
    assert b'cache="metrics: dropped"' in generate_latest(registry)
    del cache
    assert b'cache="metrics: dropped"' not in generate_latest(registry)


def test_names_of_any_text_are_escaped(registry):
    caches = [hotset.Cache(2, name=name) for name in ('"', "\\", "\n", "\udc80", "")]
    text = generate_latest(registry).decode()
    lint(text)
    for name in ('cache="\\""', 'cache="\\\\"', 'cache="\\n"', 'cache="\\\\udc80"', 'cache=""'):
        assert f"hotset_cache_entries{{{name}}} 0.0" in text
    del caches


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"names": "other"}, ValueError, 'names must be "hotset" or "micrometer", not \'other\''),
        ({"labels": {"cache": "a"}}, ValueError, "labels must not have 'cache'"),
        ({"labels": {"result": "a"}}, ValueError, "labels must not have 'result'"),
        ({"labels": {"a-b": "c"}}, ValueError, "the label 'a-b' is no name of a label"),
        ({"labels": {"__a": "c"}}, ValueError, "the label '__a' is no name of a label"),
        ({"labels": {"service": "\udc80"}}, ValueError, "the value of the label 'service' is no text"),
        ({"labels": {"service": 5}}, TypeError, "the label 'service' must be a str, not int"),
        ({"labels": ["service"]}, TypeError, "labels must be a dict"),
    ],
)
def test_wrong_settings_are_refused(settings, error, message):
    for call in (Collector, hotset.prometheus.configure):
        with pytest.raises(error, match=message):
            call(**settings)


@pytest.mark.parametrize(("every", "error"), [("1", TypeError), (True, TypeError), (-1, ValueError), (math.inf, ValueError), (math.nan, ValueError)])
def test_wrong_intervals_are_refused(every, error):
    with pytest.raises(error, match="every must be a number of seconds"):
        hotset.prometheus.configure(every=every)


def test_a_collector_in_multiprocess_mode_is_warned_of(tmp_path):
    done = run("import hotset.prometheus; hotset.prometheus.Collector()", cwd=tmp_path, multiprocess=tmp_path)
    assert "use hotset.prometheus.push()" in done.stderr and done.returncode == 1


def test_a_directory_that_is_set_too_late_is_warned_of(tmp_path):
    done = run(f"import os, hotset.prometheus\nos.environ['PROMETHEUS_MULTIPROC_DIR'] = {str(tmp_path)!r}\nhotset.prometheus.push()", cwd=tmp_path)
    assert "was set after prometheus_client was imported" in done.stderr and done.returncode == 1


def test_a_missing_directory_is_an_error(tmp_path):
    done = run("import hotset.prometheus; hotset.prometheus.push()", cwd=tmp_path, multiprocess=tmp_path / "missing")
    assert "create it, empty, before the server starts" in done.stderr and done.returncode == 1


def test_a_hook_that_fails_logs_once_and_raises_nothing(tmp_path):
    program = "import hotset.prometheus as p; p.post_request(None, None); p.post_request(None, None); p.worker_exit(None, None)"
    done = run(program, cwd=tmp_path, multiprocess=tmp_path / "missing")
    assert done.returncode == 0 and done.stderr.count("failed to write the metrics of this process") == 1


def test_other_settings_after_the_first_push_are_an_error(tmp_path):
    program = "import hotset.prometheus as p; p.push(); p.configure(); p.configure(names='micrometer')"
    done = run(program, cwd=tmp_path)
    assert "call configure() once, before the first push()" in done.stderr


PUSHED = """
import hotset, hotset.prometheus
from prometheus_client import generate_latest
cache = hotset.Cache(10, name="pushed")
cache["a"] = 1
hotset.prometheus.push()
cache.get("a"); cache.get("b"); cache.get_or_load("c", lambda key: 1)
hotset.prometheus.push()
cache.reset_stats(); cache.clear(); cache.get("a")
hotset.prometheus.push()
hotset.prometheus.push()
print(generate_latest().decode())
"""


def test_push_without_multiprocess_mode_writes_to_the_default_registry(tmp_path):
    done = run(PUSHED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lint(done.stdout)
    for line in (
        'hotset_cache_requests_total{cache="pushed",result="hit"} 1.0',
        'hotset_cache_requests_total{cache="pushed",result="miss"} 3.0',
        'hotset_cache_load_duration_seconds_count{cache="pushed"} 1.0',
        'hotset_cache_entries{cache="pushed"} 0.0',
    ):
        assert line in done.stdout


def test_push_with_names_of_micrometer(tmp_path, directory):
    program = PUSHED.replace("cache = ", "hotset.prometheus.configure(names='micrometer')\ncache = ", 1)
    assert run(program, cwd=tmp_path, multiprocess=directory).returncode == 0
    assert total(directory, "cache_gets_total", cache="pushed", result="hit") == 1
    assert total(directory, "cache_puts_total", cache="pushed") == 2
    assert total(directory, "cache_load_duration_seconds", cache="pushed") > 0
    # (What the process held is gone with it.)
    assert not [name for name, _ in collected(directory) if name == "cache_size"]


DROPPED = """
import hotset, hotset.prometheus
from prometheus_client import generate_latest
cache = hotset.Cache(10, name="dropped")
cache["a"] = 1
cache.get("a")
hotset.prometheus.push()
del cache
hotset.prometheus.push()
print("--")
print(generate_latest().decode())
cache = hotset.Cache(10, name="dropped")
cache["a"] = 1
cache.get("a")
hotset.prometheus.push()
print("--")
print(generate_latest().decode())
"""


def test_push_of_a_dropped_cache_sets_its_gauges_to_0(tmp_path):
    done = run(DROPPED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    _, dropped, again = done.stdout.split("--\n")
    for line in ('hotset_cache_entries{cache="dropped"} 0.0', 'hotset_cache_capacity{cache="dropped"} 0.0'):
        assert line in dropped
    assert 'hotset_cache_requests_total{cache="dropped",result="hit"} 1.0' in dropped
    for line in ('hotset_cache_entries{cache="dropped"} 1.0', 'hotset_cache_requests_total{cache="dropped",result="hit"} 2.0'):
        assert line in again


FORKED = """
import os, sys, hotset, hotset.prometheus
cache = hotset.Cache(10, name="forked")
cache.get(1); cache.get(2)
hotset.prometheus.push()
cache.get(3)
for _ in range(3):
    if not os.fork():
        cache.get(4)
        hotset.prometheus.push()
        sys.exit()
    os.wait()
"""


def test_children_do_not_count_again_what_their_parent_counted(tmp_path, directory):
    done = run(FORKED, cwd=tmp_path, multiprocess=directory)
    assert done.returncode == 0, done.stderr
    assert total(directory, "hotset_cache_requests_total", cache="forked", result="miss") == 3 + 3
    assert not list(directory.glob("gauge_live*"))


def test_collector_of_a_child_counts_from_the_fork(registry):
    cache = hotset.Cache(2, name="metrics: child")
    [cache.get(n) for n in range(5)]
    labels = {"cache": "metrics: child", "result": "miss"}
    assert registry.get_sample_value("hotset_cache_requests_total", labels) == 5
    child = os.fork()
    if child == 0:
        cache.get(1)
        os._exit(int(registry.get_sample_value("hotset_cache_requests_total", labels)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_gauges_of_a_process_that_was_killed_are_removed_by_the_next(tmp_path, directory):
    program = "import os, hotset, hotset.prometheus\ncache = hotset.Cache(10, name='killed'); cache[1] = 1\nhotset.prometheus.push()\nos.kill(os.getpid(), 9)"
    assert run(program, cwd=tmp_path, multiprocess=directory).returncode == -9
    assert total(directory, "hotset_cache_capacity", cache="killed") == 10
    assert run(PUSHED, cwd=tmp_path, multiprocess=directory).returncode == 0
    assert total(directory, "hotset_cache_capacity", cache="killed") == 0
    assert total(directory, "hotset_cache_insertions_total", cache="killed") == 1


@pytest.mark.parametrize("module", ["prometheus", "opentelemetry"])
def test_docstrings(module, tmp_path):
    done = run(f"import doctest, sys, hotset.{module}; sys.exit(doctest.testmod(hotset.{module}).failed)", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
