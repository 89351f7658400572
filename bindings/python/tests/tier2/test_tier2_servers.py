"""The second tier under the servers that run Python's web programs."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from servers import free_port, wait_until

pytest.importorskip("flask")
pytest.importorskip("gunicorn")

HERE = Path(__file__).parent


class Service:
    """app.py under gunicorn."""

    def __init__(self, server, folder, *options, slow="0.05", early=False):
        self.port = free_port()
        self.loads_file = folder / "loads"
        self.loads_file.write_text("")
        environment = {**os.environ, "TIER2_URL": server.url, "TIER2_LOADS": str(self.loads_file), "TIER2_SLOW": slow}
        if early:
            environment["TIER2_EARLY"] = "1"
        command = [sys.executable, "-m", *self.command(), *options]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=open(folder / "log", "w"))
        wait_until(lambda: self.get("/pid"), seconds=30, what="the service")

    def command(self):
        return ["gunicorn", "--chdir", HERE, "-b", f"127.0.0.1:{self.port}", "--graceful-timeout", "5", "app:app"]

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as reply:
            return reply.read().decode()

    def all_get(self, path, threads=12):
        """Returns what concurrent requests get."""
        results = []

        def request():
            try:
                results.append(self.get(path))
            except OSError as error:
                results.append(repr(error))

        running = [threading.Thread(target=request) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return results

    def loads(self, key):
        return [line.split()[0] for line in self.loads_file.read_text().splitlines() if line.split()[1] == key]

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()


KINDS = {
    "sync": ["-w", "3"],
    "sync, preloaded": ["-w", "3", "--preload"],
    "threads": ["-w", "2", "-k", "gthread", "--threads", "4"],
    "gevent": ["-w", "2", "-k", "gevent"],
}


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param == "gevent":
        pytest.importorskip("gevent")
    return request.param


def test_service(own_server, tmp_path, kind):
    with contextlib.closing(Service(own_server, tmp_path, *KINDS[kind], early="preloaded" in kind)) as service:
        assert set(service.all_get("/page/a")) == {"page a"}
        assert len(service.loads("a")) == 1
        assert service.get("/invalidate/a") == "True"
        wait_until(lambda: set(service.all_get("/page/a")) == {"page a"} and len(service.loads("a")) == 2, what="one load anew")
        assert service.get("/set/x/1") == "True"
        wait_until(lambda: set(service.all_get("/get/x")) == {"1"}, what="the value")
        assert service.get("/set/x/2") == "True"
        wait_until(lambda: set(service.all_get("/get/x")) == {"2"}, what="the new value")
        wait_until(lambda: set(service.all_get("/state")) == {"armed"}, what="the buses")
        # Reload: new workers begin anew, old ones end.
        before = set(service.all_get("/pid", 20))
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not before & set(service.all_get("/pid", 20)), seconds=40, what="new workers")
        assert set(service.all_get("/page/a")) == {"page a"}
        assert len(service.loads("a")) == 2
    # All have ended, and their connections with them.
    wait_until(lambda: int(own_server.info("clients")["connected_clients"]) <= 1, what="the connections' end")


def test_worker_that_is_killed_amid_a_lease(own_server, tmp_path):
    with contextlib.closing(Service(own_server, tmp_path, "-w", "3", slow="2")) as service:
        results = []
        reader = threading.Thread(target=lambda: results.extend(service.all_get("/page/slow", 3)))
        reader.start()
        wait_until(lambda: service.loads("slow"), what="a load")
        time.sleep(0.3)
        os.kill(int(service.loads("slow")[0]), signal.SIGKILL)
        reader.join(60)
        assert results.count("page slow") >= 2
        assert len(service.loads("slow")) == 2


def test_server_that_stops_does_not_stop_the_service(own_server, tmp_path, kind):
    with contextlib.closing(Service(own_server, tmp_path, *KINDS[kind])) as service:
        assert service.get("/page/a") == "page a"
        own_server.stop()
        try:
            begun = time.monotonic()
            for n in range(30):
                assert service.get(f"/page/b{n}") == f"page b{n}"
            assert time.monotonic() - begun < 30
        finally:
            own_server.resume()
        wait_until(lambda: service.get("/set/y/1") == "True", what="a confirmed write")


class Uvicorn(Service):
    """asgi_app.py under uvicorn."""

    def command(self):
        return ["uvicorn", "--app-dir", HERE, "--host", "127.0.0.1", "--port", str(self.port), "--log-level", "warning", "asgi_app:app"]


def test_workers_of_uvicorn(own_server, tmp_path):
    pytest.importorskip("uvicorn")
    with contextlib.closing(Uvicorn(own_server, tmp_path, "--workers", "3")) as service:
        assert set(service.all_get("/page/a")) == {"page a"}
        assert len(service.loads("a")) == 1
        wait_until(lambda: set(service.all_get("/state")) == {"armed"}, what="the buses")
        assert service.get("/invalidate/a") == "True"
        wait_until(lambda: set(service.all_get("/page/a")) == {"page a"} and len(service.loads("a")) == 2, what="one load anew")
        # A worker that is killed during requests is replaced, and the others continue.
        os.kill(int(service.get("/pid")), signal.SIGKILL)
        wait_until(lambda: set(service.all_get("/page/a")) == {"page a"}, what="the other workers")
        assert len(service.loads("a")) == 2
    wait_until(lambda: int(own_server.info("clients")["connected_clients"]) <= 1, what="the connections' end")


def test_prefork_pool_of_celery(own_server, tmp_path, monkeypatch):
    celery = pytest.importorskip("celery")
    loads = tmp_path / "loads"
    loads.write_text("")
    environment = {**os.environ, "TIER2_URL": own_server.url, "TIER2_LOADS": str(loads), "C_FORCE_ROOT": "1"}
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", "prefork", "--concurrency", "3", "--without-gossip"]
    with open(tmp_path / "log", "w") as log:
        worker = subprocess.Popen([*command, "--without-mingle"], env=environment, cwd=HERE, stdout=log, stderr=log)
    try:
        client = celery.Celery(broker=own_server.url, backend=own_server.url)
        results = [client.send_task("page", ["a"]) for _ in range(12)]
        values = [result.get(timeout=120) for result in results]
        assert {value for _, value in values} == {"page a"}
        assert len({pid for pid, _ in values}) > 1
        assert client.send_task("page", ["early"]).get(timeout=60)[1] == "page early"
        assert client.send_task("invalidate", ["a"]).get(timeout=60) is True
        assert client.send_task("page", ["a"]).get(timeout=60)[1] == "page a"
        loaded = [line.split()[1] for line in loads.read_text().splitlines()]
        assert loaded.count("a") == 2 and loaded.count("early") == 1
        client.close()
    finally:
        worker.terminate()
        try:
            worker.wait(30)
        finally:
            worker.kill()
            worker.wait()
