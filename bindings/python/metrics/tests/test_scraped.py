"""A Prometheus that scrapes four gunicorn workers under load: the sums equal what was requested."""

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT, blocks, collected, free_port, get, lint, python, total, wait_until

HERE = Path(__file__).parent
# What Grafana would put in the place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*", "$cache": ".*"}


class Shop:
    """The application of truth_app.py, and the truth about it."""

    def __init__(self, url, loads):
        self.url = url
        self._loads = loads
        # (The master has requested one product twice.)
        self.requests = 2

    def request(self, numbers):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: get(f"{self.url}/product/{number}"), numbers))
        self.requests += len(numbers)

    @property
    def successes(self):
        return self._loads.read_bytes().count(b"s")

    @property
    def failures(self):
        return self._loads.read_bytes().count(b"f")

    @property
    def truth(self):
        loads = self.successes + self.failures
        return {
            'sum(hotset_cache_requests_total{cache="products",result="hit"})': self.requests - loads,
            'sum(hotset_cache_requests_total{cache="products",result="miss"})': loads,
            'sum(hotset_cache_loads_total{cache="products",result="success"})': self.successes,
            'sum(hotset_cache_loads_total{cache="products",result="failure"})': self.failures,
            'sum(hotset_cache_load_duration_seconds_count{cache="products"})': loads,
            'sum(hotset_cache_load_duration_seconds_bucket{cache="products",le="+Inf"})': loads,
        }


@pytest.fixture
def shop(tmp_path, directory):
    """The application under gunicorn, configured as on the page; the master pushes, too."""
    configuration = blocks()["gunicorn.conf.py"]
    assert "workers = 4" in configuration and "preload_app = True" in configuration
    configuration += "\nimport hotset.prometheus\n\ndef when_ready(server):\n    hotset.prometheus.push()\n"
    (tmp_path / "gunicorn.conf.py").write_text(configuration)
    (tmp_path / "truth_app.py").write_bytes((HERE / "truth_app.py").read_bytes())
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    loads = tmp_path / "loads"
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(directory), "LOADS": str(loads)}
    with python("gunicorn", "--bind", f"127.0.0.1:{port}", "truth_app:app", url=f"{url}/pid", cwd=tmp_path, **environment):
        yield Shop(url, loads)


def equals(prometheus, truth):
    """Waits until all sums are the truth; none may exceed it."""

    def done():
        found = {expression: prometheus.value(expression) for expression in truth}
        assert all(value is None or value <= truth[expression] for expression, value in found.items()), (found, truth)
        return found == truth

    wait_until(done, lambda: {expression: (prometheus.value(expression), truth[expression]) for expression in truth})


def test_sums_of_four_workers_equal_the_truth(shop, prometheus, directory):
    target = prometheus(shop.url.removeprefix("http://"))
    shop.request([number % 120 for number in range(1500)])
    equals(target, shop.truth)
    # Clearing restarts the caches' own counters, and none of these.
    for _ in range(8):
        get(f"{shop.url}/clear")
    shop.request([number % 70 for number in range(700)])
    equals(target, shop.truth)
    # The counts of a worker that is killed stay, and another worker counts from 0.
    os.kill(int(get(f"{shop.url}/pid")), signal.SIGKILL)
    shop.request([number % 120 for number in range(500)])
    equals(target, shop.truth)
    assert target.value("sum(resets(hotset_cache_requests_total[10m]))") == 0
    # Four workers and the master; the one that was killed is no longer among them.
    wait_until(lambda: target.value('hotset_cache_capacity{cache="products"}') == 5 * 50, "for the gauges of the new worker")
    assert 0 < target.value('hotset_cache_entries{cache="products"}') <= 5 * 50
    lint(get(f"{shop.url}/metrics"))
    dashboard(target)


def dashboard(target):
    """Evaluates every expression of the dashboard; those of the first tier have series."""
    text = (ROOT / "docs" / "grafana" / "hotset.json").read_text()
    panels = json.loads(text)["panels"]
    exposed = set(target.api("label/__name__/values")["data"])
    expressions = [goal["expr"] for panel in panels for goal in panel.get("targets", ())]
    for expression in expressions:
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression
        found = target.query(expression)
        if "tier2" not in expression:
            assert found, f"no series: {expression}"
            assert set(re.findall(r"\bhotset_\w+", expression)) <= exposed
    variables = [re.fullmatch(r"label_values\((.*), (\w+)\)", each["definition"]).groups() for each in json.loads(text)["templating"]["list"]]
    assert len(variables) == 3
    for selector, label in variables:
        for variable, value in VARIABLES.items():
            selector = selector.replace(variable, value)
        assert target.api(f"label/{label}/values", **{"match[]": selector})["data"]


def test_counts_of_a_server_that_was_stopped_are_complete(tmp_path, directory):
    """Without the hook after requests: what counts is what workers write when they end."""
    configuration = blocks()["gunicorn.conf.py"] + "\nimport hotset.prometheus\nhotset.prometheus.configure(every=3600)\n"
    (tmp_path / "gunicorn.conf.py").write_text(configuration)
    (tmp_path / "truth_app.py").write_bytes((HERE / "truth_app.py").read_bytes())
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(directory), "LOADS": str(tmp_path / "loads")}
    with python("gunicorn", "--bind", f"127.0.0.1:{port}", "truth_app:app", url=f"{url}/pid", cwd=tmp_path, **environment):
        shop = Shop(url, tmp_path / "loads")
        shop.request([number % 120 for number in range(400)])
    # (The master did not push what it had counted.)
    loads = shop.successes + shop.failures - 1
    assert total(directory, "hotset_cache_requests_total", result="miss") == loads
    assert total(directory, "hotset_cache_requests_total", result="hit") == 400 - loads
    assert not [name for (name, _) in collected(directory) if name in ("hotset_cache_entries", "hotset_cache_capacity")]
    assert not list(directory.glob("gauge_live*"))
