"""Checks the dashboard in headless Chromium, and draws the pictures of the page "See it live".

    python screens.py OUTPUT [--docs]

Workers with made-up figures keep stats files. Chromium opens the page in light and dark, wide and
390 pixels wide: its script must run under the page's own policy, and nothing may be wider than the
window. The pictures are written into the folder OUTPUT, and with `--docs` those of the
documentation into docs/how-to.
"""

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

from hotset.dashboard import wsgi_app

from hotset._top._model import Tracker
from hotset._top._rich import picture
from hotset._top._source import Files
from hotset._top._view import View

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs" / "how-to"
COLUMNS = 118


def samples(rate, ratio, swing):
    hits = [ratio + swing * math.sin(second / 9) for second in range(60)]
    return [(1000, int(rate * part), int(rate * (1 - part))) for part in hits]


def figures(name, rate, ratio, swing, capacity, fill, worker, **other):
    lookups = int(rate * 4000)
    misses = int(lookups * (1 - ratio))
    return {
        "name": name,
        "capacity": capacity,
        "entries": int(capacity * fill),
        "bytes": int(capacity * fill) * 700,
        "hits": lookups - misses,
        "misses": misses,
        "stale_hits": misses // 50,
        "waits": misses // 9,
        "insertions": misses,
        "evictions": int(misses * fill / 2),
        "evicted_weight": int(misses * fill / 2),
        "rejections": misses // 4,
        "expirations": misses // 7,
        "loads": misses,
        "load_failures": misses // 4000,
        "load_time": misses * 12_000_000,
        "samples": samples(rate, ratio, swing),
        "buckets": [(5_000_000, misses // 2), (25_000_000, misses // 3), (100_000_000, misses // 6)],
        **other,
    }


def caches(worker):
    curve = [(2500, 0.71, 1_750_000), (5000, 0.84, 3_500_000), (10_000, 0.92, 7_000_000), (20_000, 0.957, 14_000_000), (40_000, 0.961, 28_000_000)]
    return [
        figures("products", 3000 + 200 * worker, 0.92, 0.05, 10_000, 0.98, worker, curve=curve),
        figures("sessions", 900, 0.995, 0.004, 50_000, 0.41, worker, weighted=True, weight=20_000),
        figures("search <b>results</b>", 140, 0.44, 0.2, 2_000, 1.0, worker),
    ]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def measured(application):
    """Adds a script to the page, under its own policy, that writes what it measures into the title.

    `/narrow` has the page in a frame of 390 pixels, since a window has at least 500: only there the
    page may be framed.
    """
    narrow = (
        b"<!doctype html><body style='margin:0'><iframe width=390 height=1600 style='border:0' src='/'></iframe><script>"
        b"addEventListener('load',()=>{document.title=document.querySelector('iframe').contentDocument.title})</script></body>"
    )

    def wrapped(environ, start_response):
        if environ["PATH_INFO"] == "/narrow":
            start_response("200 OK", [("Content-Type", "text/html")])
            return [narrow]
        headers = []

        def start(status, given):
            headers[:] = [status, given]

        body = b"".join(application(environ, start))
        status, given = headers
        policy = dict(given).get("Content-Security-Policy", "")
        nonce = re.search(r"script-src 'nonce-([^']+)'", policy)
        if nonce:
            script = (
                f'<script nonce="{nonce[1]}">document.title=JSON.stringify({{width:document.documentElement.scrollWidth,'
                "window:innerWidth,tools:!document.querySelector('#tools').hidden,dark:matchMedia('(prefers-color-scheme: dark)').matches,"
                "names:[...document.querySelectorAll('article')].map(a=>a.dataset.name)})</script></body>"
            )
            body = body.replace(b"</body>", script.encode())
            replaced = {"Content-Length": str(len(body)), "Content-Security-Policy": policy.replace("frame-ancestors 'none'", "frame-ancestors 'self'")}
            given = [(name, replaced.get(name, value)) for name, value in given if name != "X-Frame-Options"]
        start_response(status, given)
        return [body]

    return wrapped


def browse(chromium, profile, url, width, height, dark, picture_path):
    """Opens the page, writes its picture, and returns what its script measured."""
    common = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}", f"--window-size={width},{height}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=2500",
    ]  # fmt: skip
    run = lambda *more: subprocess.run([*common, *more, url], check=True, capture_output=True, text=True).stdout  # noqa: E731
    run(f"--screenshot={picture_path}")
    found = re.search(r"<title>(\{.*?\})</title>", run("--dump-dom"))
    assert found, "the script of the page did not run"
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--docs", action="store_true", help="write the pictures of the documentation, too")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "there is no chromium: apt-get install chromium"
    with tempfile.TemporaryDirectory() as folder:
        stats = Path(folder) / "stats"
        stats.mkdir()
        command = [sys.executable, HERE / "tests" / "fake_worker.py", stats / "hotset-PID-0.stats", "gunicorn"]
        workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]

        def publish():
            for number, worker in enumerate(workers):
                worker.stdin.write(json.dumps(caches(number)) + "\n")
                worker.stdin.flush()
                worker.stdout.readline()

        ended = threading.Event()

        def keep_publishing():
            while not ended.wait(0.5):
                publish()

        # (As processes under load do, however slowly the browser starts.)
        publisher = threading.Thread(target=keep_publishing, daemon=True)
        try:
            publish()
            source = Files(str(stats))
            view = View("/run/hotset", sort="ops")
            found = source.read()
            view.update(Tracker().update(found), found)
            view.press("enter")
            screen = picture(view.lines(COLUMNS, 22), COLUMNS, "python -m hotset top")
            # (Fonts come from the reader's machine: a page that shows the picture loads nothing.)
            screen = re.sub(r"@font-face \{.*?\}\s*", "", screen, flags=re.DOTALL)
            screen = "\n".join(line.rstrip() for line in screen.splitlines()) + "\n"
            assert "://" not in screen.replace("http://www.w3.org/", "").replace("https://www.textualize.io", "")
            (given.output / "see-it-live-screen.svg").write_text(screen)
            publisher.start()
            server = make_server("127.0.0.1", 0, measured(wsgi_app(str(stats))), handler_class=Quiet)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/"
            for width, height, dark in ((1100, 1000, False), (1100, 1000, True), (390, 1600, False), (390, 1600, True)):
                path = given.output / f"page-{width}-{'dark' if dark else 'light'}.png"
                measured_there = browse(chromium, Path(folder) / "profile", url + "narrow" * (width == 390), max(width, 500), height, dark, path)
                assert measured_there["width"] <= measured_there["window"] == width, measured_there
                assert measured_there["tools"] and measured_there["dark"] == dark, measured_there
                assert measured_there["names"] == ["products", "sessions", "search <b>results</b>"], measured_there
                print(f"{path}: {measured_there}")
            server.shutdown()
            server.server_close()
        finally:
            ended.set()
            if publisher.ident is not None:
                publisher.join()
            for worker in workers:
                worker.stdin.close()
                worker.stdout.close()
                worker.wait()
    if given.docs:
        shutil.copy(given.output / "see-it-live-screen.svg", DOCS / "see-it-live-screen.svg")
        shutil.copy(given.output / "page-1100-light.png", DOCS / "see-it-live-page.png")


if __name__ == "__main__":
    main()
