"""The setups of the page, with the servers that it names: each block runs as it is printed."""

import os
import re
import signal
import subprocess
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import PAGE, ROOT, blocks, collected, free_port, get, lint, python, total, wait_until


def write(folder, *names):
    for name in names:
        (folder / name).write_text(blocks()[name])


def request(url, numbers):
    with ThreadPoolExecutor(8) as pool:
        for body in pool.map(lambda number: get(f"{url}/product/{number}"), numbers):
            assert "price" in body


def lookups(directory):
    return total(directory, "hotset_cache_requests_total", cache="products")


def test_one_process(tmp_path):
    port = free_port()
    program = blocks()["single.py"]
    assert "9100" in program
    (tmp_path / "single.py").write_text(program.replace("9100", str(port)) + "\nimport signal\nsignal.pause()\n")
    url = f"http://127.0.0.1:{port}/metrics"
    with python("single", url=url, cwd=tmp_path):
        wait_until(lambda: 'hotset_cache_requests_total{cache="products",result="hit"} 1.0' in get(url))
        lint(get(url))


def test_gunicorn(tmp_path, directory):
    write(tmp_path, "gunicorn.conf.py", "shop.py")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with python("gunicorn", "--bind", f"127.0.0.1:{port}", "shop:app", url=f"{url}/metrics", cwd=tmp_path, PROMETHEUS_MULTIPROC_DIR=str(directory)):
        request(url, [number % 20 for number in range(300)])
        wait_until(lambda: lookups(directory) == 300)
        lint(get(f"{url}/metrics"))


def test_uvicorn(tmp_path, directory):
    write(tmp_path, "shop_asgi.py")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--port", str(port), "--workers", "2", "shop_asgi:app"]

    def pids():
        """The workers that have gauges."""
        return {int(path.stem.rpartition("_")[2]) for path in directory.glob("gauge_livesum_*.db")}

    with python("uvicorn", *options, url=f"{url}/metrics", cwd=tmp_path, PROMETHEUS_MULTIPROC_DIR=str(directory)):
        request(url, [number % 20 for number in range(300)])
        wait_until(lambda: lookups(directory) == 300)

        def both():
            request(url, range(20))
            return len(pids()) == 2

        wait_until(both, "for both workers")
        lint(get(f"{url}/metrics"))
        # uvicorn replaces a worker that was killed.
        killed = pids().pop()
        os.kill(killed, signal.SIGKILL)

        def replaced():
            for _ in range(20):
                try:
                    get(f"{url}/product/1")
                except OSError:
                    # (Of connections that the killed worker had accepted.)
                    pass
            return killed not in pids() and len(pids()) == 2

        wait_until(replaced, "for another worker")
        before = lookups(directory)
        request(url, [1] * 50)
        # (It may have been in between requests before.)
        wait_until(lambda: lookups(directory) >= before + 50)
    # The gauges go with the server, the counts stay.
    assert not pids() and lookups(directory) > 300


def test_uvicorn_writes_what_was_counted_last_at_its_end(tmp_path, directory):
    program = blocks()["shop_asgi.py"] + "\nhotset.prometheus.configure(every=3600)\n"
    (tmp_path / "shop_asgi.py").write_text(program)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with python(
        "uvicorn", "--port", str(port), "--workers", "2", "shop_asgi:app", url=f"{url}/metrics", cwd=tmp_path, PROMETHEUS_MULTIPROC_DIR=str(directory)
    ):
        request(url, [number % 20 for number in range(100)])
    assert lookups(directory) == 100


SITE = """
from pathlib import Path
from django.http import HttpResponse, JsonResponse
from django.urls import path
import hotset

SECRET_KEY = "a secret key for tests"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "settings"
USE_TZ = True


@hotset.cached(maxsize=10_000, ttl=60, name="products")
def product(number):
    return {"number": number, "price": 3 * number + 1}


def metrics(request):
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return HttpResponse(generate_latest(registry), content_type="text/plain; version=0.0.4")


def show(request, number):
    from django.core.cache import cache

    cache.get_or_set("product", lambda: number)
    return JsonResponse(product(number))


urlpatterns = [path("product/<int:number>", show), path("metrics", metrics)]
"""
WSGI = """
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
"""


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
def test_django(tmp_path, directory, server):
    (tmp_path / "settings.py").write_text(blocks()["settings.py"] + SITE)
    (tmp_path / "wsgi.py").write_text(WSGI)
    (tmp_path / "asgi.py").write_text(WSGI.replace("wsgi", "asgi"))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["gunicorn", "--workers", "2", "--bind", f"127.0.0.1:{port}", "wsgi:application"]
    if server == "uvicorn":
        command = ["uvicorn", "--workers", "2", "--port", str(port), "asgi:application"]
    with python(*command, url=f"{url}/metrics", cwd=tmp_path, PROMETHEUS_MULTIPROC_DIR=str(directory)):
        request(url, [number % 20 for number in range(200)])
        wait_until(lambda: lookups(directory) == 200)
        lint(get(f"{url}/metrics"))
        labels = {label for (name, has), _ in collected(directory).items() if name == "hotset_cache_requests_total" for label in has}
        assert {("service", "shop"), ("cache", "products"), ("cache", "django")} <= labels


def test_django_refuses_wrong_settings(tmp_path):
    program = (
        "import django, django.conf\n"
        "django.conf.settings.configure(INSTALLED_APPS=['hotset.django.prometheus.PrometheusConfig'], HOTSET_PROMETHEUS={'name': 'micrometer'})\n"
        "django.setup()\n"
    )
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([os.sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert "ImproperlyConfigured: HOTSET_PROMETHEUS: configure() got an unexpected keyword argument 'name'" in done.stderr


class Receiver(ThreadingHTTPServer):
    """Receives metrics of OpenTelemetry: the last value of each series."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.values = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            import gzip

            from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                instance = {each.key: each.value.string_value for each in resource.resource.attributes}["service.instance.id"]
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in metric.sum.data_points:
                            labels = tuple(sorted((each.key, each.value.string_value) for each in point.attributes))
                            value = point.as_int or point.as_double
                            self.server.values[instance, metric.name, labels] = value
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    def sums(self, name):
        """The sums over workers of a metric of the cache "products", by the other attribute."""
        found = defaultdict(float)
        for (_, metric, labels), value in list(self.values.items()):
            if metric == name and ("hotset.cache.name", "products") in labels:
                found["".join(value for key, value in labels if key != "hotset.cache.name")] += value
        return dict(found)


def test_opentelemetry_under_gunicorn(tmp_path, directory):
    # The application of the page, which has looked up a product before the fork.
    (tmp_path / "shop.py").write_text(blocks()["shop.py"] + "\nproduct(0)\n")
    write(tmp_path, "otel.conf.py")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        environment = {
            "PROMETHEUS_MULTIPROC_DIR": str(directory),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_address[1]}",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }
        options = ["--config", "otel.conf.py", "--bind", f"127.0.0.1:{port}", "shop:app"]
        with python("gunicorn", *options, url=f"{url}/metrics", cwd=tmp_path, **environment):
            request(url, [number % 20 for number in range(200)])
            wait_until(lambda: sum(receiver.sums("hotset.cache.requests").values()) == 200, "for the exporters")
            assert set(receiver.sums("hotset.cache.requests")) == {"hit", "miss"}
            assert receiver.sums("hotset.cache.loads")["success"] == receiver.sums("hotset.cache.requests")["miss"]
            wait_until(lambda: receiver.sums("hotset.cache.capacity") == {"": 20_000}, "for both workers")
            assert receiver.sums("hotset.cache.load.time")[""] > 0
        receiver.shutdown()
        thread.join()
    assert len({instance for instance, *_ in receiver.values}) == 2


def test_the_alert_of_the_page_is_valid(tmp_path):
    [rules] = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "rules.yml").write_text(rules)
    done = subprocess.run(["promtool", "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "SUCCESS: 1 rules found" in done.stdout, done.stdout + done.stderr


def test_the_shell_of_the_page_is_what_the_tests_do():
    text = PAGE.read_text()
    assert "export PROMETHEUS_MULTIPROC_DIR=" in text and "gunicorn shop:app" in text and "uvicorn --workers 2 shop_asgi:app" in text
    assert (ROOT / "docs" / "grafana" / "hotset.json").exists()
