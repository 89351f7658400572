"""Runs `app.py` under gunicorn with two workers, under load from many threads.

Prints the statistics of the workers' caches.

    pip install flask gunicorn
    python examples/python/web.py
"""

import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

WORKERS = 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(url: str) -> Any:
    with urlopen(url) as response:
        return json.load(response)


def statistics(url: str) -> list[dict[str, Any]]:
    """Returns each worker's statistics, by several requests: any worker may accept a connection."""
    found: dict[int, dict[str, Any]] = {}
    with ThreadPoolExecutor(8) as pool:
        while len(found) < WORKERS:
            for one in pool.map(get, [f"{url}/statistics"] * 16):
                found[one["worker"]] = one
    return list(found.values())


def report(what: str, url: str) -> None:
    print(what)
    for one in sorted(statistics(url), key=lambda one: one["worker"]):
        stats = one["caches"]["products"]
        print(
            f"    worker {one['worker']}: {stats['hits'] + stats['misses']} requests, {one['queries']} database queries, {stats['waits']} waited "
            f"for another's, hit ratio {stats['hit_ratio']:.1%}, {stats['expirations']} expired"
        )


def demonstrate(url: str) -> None:
    with ThreadPoolExecutor(32) as pool:

        def ask(number: int) -> Any:
            return get(f"{url}/product/{number}")

        start = time.perf_counter()
        answers = list(pool.map(ask, [7] * 64))
        took = time.perf_counter() - start
        assert all(answer == {"number": 7, "price": 22} for answer in answers)
        report(f"64 concurrent requests of one cold product, {took:.2f} s:", url)

        list(pool.map(ask, [number % 5 for number in range(500)]))
        report("500 requests for 5 products:", url)

        time.sleep(1.2)
        list(pool.map(ask, [number % 5 for number in range(100)]))
        report("1.2 s later the products have expired, and 100 requests read them again:", url)


def main() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--workers", str(WORKERS), "--threads", "8", "--preload", "--log-level", "warning", "--bind", f"127.0.0.1:{port}"]
    server = subprocess.Popen([sys.executable, "-m", "gunicorn", *options, "--chdir", str(Path(__file__).parent), "app:app"])
    try:
        while True:
            try:
                get(f"{url}/statistics")
                break
            except URLError:
                if server.poll() is not None:
                    raise SystemExit(f"gunicorn ended: {server.returncode}") from None
                time.sleep(0.05)
        demonstrate(url)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
