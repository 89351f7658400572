"""Fixtures of the tests of metrics: servers on free ports, stopped by their pids."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs" / "how-to" / "grafana.md"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url):
    """Requests a URL; returns the body, also of an error."""
    try:
        with urlopen(url) as response:
            return response.read().decode()
    except HTTPError as error:
        with error:
            return error.read().decode()


def wait_until(condition, what="", alive=()):
    """Waits for what must happen; how long that takes decides only when the test gives up."""
    end = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < end, f"gave up waiting {what}"
        for process in alive:
            assert process.poll() is None, f"{process.args} ended"
        time.sleep(0.05)
    return found


def answers(url):
    try:
        get(url)
    except (URLError, ConnectionError):
        return False
    return True


@contextlib.contextmanager
def running(*command, url, cwd, **environment):
    """Runs a server until the end of the block: its process, once it answers."""
    with open(cwd / "server.log", "ab") as log:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(cwd), os.environ.get("PYTHONPATH", "")]), **environment}
        process = subprocess.Popen(list(map(str, command)), cwd=cwd, env=env, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(url), f"for {command[0]}", [process])
        yield process
    except BaseException:
        print((cwd / "server.log").read_text(errors="replace")[-5000:])
        raise
    finally:
        process.terminate()
        process.wait()


def python(*arguments, **options):
    """Runs a server that is a Python program."""
    return running(sys.executable, "-m", *arguments, **options)


class Prometheus:
    def __init__(self, url):
        self._url = url

    def api(self, path, **parameters):
        return json.loads(get(f"{self._url}/api/v1/{path}?{urlencode(parameters)}"))

    def query(self, expression):
        """Returns the series that an expression gives: pairs of labels and a number."""
        answer = self.api("query", query=expression)
        assert answer["status"] == "success", (expression, answer)
        return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]

    def value(self, expression):
        """Returns the number that an expression gives; None for no series."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None


@pytest.fixture
def prometheus(tmp_path):
    """Starts a Prometheus that scrapes these addresses ten times a second."""
    assert shutil.which("prometheus"), "there is no prometheus: make tools-prometheus"
    with contextlib.ExitStack() as stack:

        def start(*targets):
            folder = tmp_path / "prometheus"
            folder.mkdir()
            (folder / "prometheus.yml").write_text(
                "global:\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n"
                f"scrape_configs:\n  - job_name: shop\n    scrape_timeout: 100ms\n    static_configs:\n      - targets: {json.dumps(targets)}\n"
            )
            address = f"127.0.0.1:{free_port()}"
            options = [f"--web.listen-address={address}", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]
            stack.enter_context(running("prometheus", *options, url=f"http://{address}/-/ready", cwd=folder))
            return Prometheus(f"http://{address}")

        yield start


@pytest.fixture
def directory(tmp_path):
    """An empty directory for prometheus_client's multiprocess mode."""
    made = tmp_path / "multiprocess"
    made.mkdir()
    return made


def blocks():
    """The Python programs of the page, by the file name in their first lines."""
    found = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(found) == PAGE.read_text().count("```python")
    return dict(found)


def lint(exposition):
    """Fails if promtool has an objection to metrics in the text format."""
    done = subprocess.run(["promtool", "check", "metrics"], input=exposition, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stdout + done.stderr


def collected(directory):
    """What the processes wrote to a directory, summed: values by (name, labels)."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in registry.collect() for sample in family.samples
    }


def total(directory, name, **labels):
    """The sum of the series of a metric that have these labels."""
    found = collected(directory).items()
    return sum(value for (sample, has), value in found if sample == name and labels.items() <= dict(has).items())
