"""The same service with a cache of its pages, which reports how big it should be.

    sized.py CAPACITY    serves under load, and prints figures and the cache's advice as JSON

The cache is profiled: it draws its miss-ratio curve while it serves.
"""

import http.client
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

from service import ARTICLES, Handler, create_database, page

import hotset

REQUESTS, CLIENTS = 8000, 8


class CachedHandler(Handler):
    """Serves pages from a cache."""

    pages: "hotset.Cache[int, bytes]"

    def content(self, article: int) -> bytes:
        """Returns the page of an article."""
        return self.pages.get_or_load(article, lambda article: page(self.database, article))


def request(port: int, articles: list[int], times: list[float]) -> None:
    """Requests articles, one after the other, over one connection; adds the seconds of each."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for article in articles:
        start = time.perf_counter()
        connection.request("GET", f"/{article}")
        connection.getresponse().read()
        times.append(time.perf_counter() - start)
    connection.close()


def load(port: int) -> None:
    """Runs the clients, and prints requests per second, median and 99th percentile."""
    chance = random.Random(4)
    weights = [1 / (rank + 1) for rank in range(ARTICLES)]
    times: list[float] = []
    streams = [chance.choices(range(ARTICLES), weights, k=REQUESTS // CLIENTS) for _ in range(CLIENTS)]
    clients = [threading.Thread(target=request, args=(port, stream, times)) for stream in streams]
    start = time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    elapsed = time.perf_counter() - start
    times.sort()
    print(json.dumps({"per_second": len(times) / elapsed, "p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}))


def main(capacity: int) -> None:
    """Serves until the clients have finished."""
    pages: hotset.Cache[int, bytes] = hotset.Cache(capacity, name="pages", profile=True)
    CachedHandler.pages = pages
    with tempfile.TemporaryDirectory() as folder:
        CachedHandler.database = str(Path(folder) / "prices")
        create_database(CachedHandler.database)
        server = ThreadingHTTPServer(("127.0.0.1", 0), CachedHandler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        command = [sys.executable, __file__, "--load", str(server.server_address[1])]
        figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        server.shutdown()
        server.server_close()
    advice = pages.advise()
    stats = pages.stats()
    points = [[point.capacity, point.hit_ratio] for point in advice.points]
    figures |= {"capacity": capacity, "hit_ratio": stats.hits / (stats.hits + stats.misses), "loads": stats.loads}
    print(json.dumps({**figures, "points": points, "enough": advice.enough, "doubt": advice.doubt, "advice": str(advice)}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        load(int(sys.argv[2]))
    elif len(sys.argv) == 2 and sys.argv[1].isdecimal() and int(sys.argv[1]):
        main(int(sys.argv[1]))
    else:
        sys.exit(__doc__)
