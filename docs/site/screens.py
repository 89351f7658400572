"""Opens the pages of the built site in headless Chromium, in light and dark, wide and narrow.

    python screens.py SITE OUTPUT [PAGE ..]

No page may be wider than its window, no page may load anything from another host, and the search
must find a name. The pictures of some pages, or of those that are named, are written into OUTPUT.
"""

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

# Of these there are pictures: tables, code, pictures, generated pages.
SHOWN = ["index", "tutorials/python", "how-to/see-it-live", "reference/settings", "reference/c-functions", "reference/python-calls", "load-balanced-fleet"]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip
# The page that opens the others, one after another, and measures them.
MEASURE = Path(__file__).with_name("measure.html").read_text()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site, and the page that measures the others."""

    measured = None
    wrapper = ""

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path != "/measure":
            return super().do_GET()
        body = Handler.wrapper.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        Handler.measured = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()


def browse(chromium, dark, *more, until=None):
    """Runs Chromium until it ends, or until there is a result, in a folder of its own."""
    with tempfile.TemporaryDirectory() as profile:
        command = [chromium, *FLAGS, f"--user-data-dir={profile}", f"--blink-settings=preferredColorScheme={0 if dark else 1}", *more]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while browser.poll() is None and not (until and until()):
            time.sleep(0.1)
        browser.terminate()
        browser.wait()


def main():
    site, output, *shown = sys.argv[1:]
    site, output = Path(site), Path(output)
    output.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "there is no chromium: apt-get install chromium"
    pages = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html")) if "rust/" not in path.as_posix()]
    pages.append("search.html?q=hotset_put_ttl")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{server.server_port}"
    problems = []
    for width in (1200, 390):
        for dark in (False, True):
            Handler.measured = None
            Handler.wrapper = MEASURE.replace("PAGES", json.dumps(pages)).replace("WIDTH", str(width))
            browse(chromium, dark, "--remote-debugging-port=0", f"http://{host}/measure", until=lambda: Handler.measured is not None)
            assert Handler.measured is not None, "the browser ended before it had measured the pages"
            for found in Handler.measured:
                where = f"{found['page']}, {width} pixels, {'dark' if dark else 'light'}"
                if found["width"] > found["window"]:
                    problems.append(f"{where}: {found['width']} pixels wide")
                if set(found["hosts"]) - {host}:
                    problems.append(f"{where}: loads from {found['hosts']}")
                channels = [int(channel) for channel in re.findall(r"\d+", found["ground"])[:3]]
                if found["dark"] != dark or (max(channels) < 128) != dark:
                    problems.append(f"{where}: its ground is {found['ground']}")
                if "?q=" in found["page"] and not any("hotset_put_ttl" in html.unescape(result) for result in found["results"]):
                    problems.append(f"{where}: the search found {found['results']}")
            for page in shown or SHOWN:
                picture = output / f"{page.replace('/', '-')}-{width}-{'dark' if dark else 'light'}.png"
                frame = output / "frame.html"
                address = f"http://{host}/{page}.html"
                if width < 500:
                    frame.write_text(f'<body style="margin:0"><iframe width={width} height=1500 style="border:0" src="{address}"></iframe>')
                    address = frame.resolve().as_uri()
                browse(chromium, dark, f"--window-size={max(width, 500)},1500", "--virtual-time-budget=2000", f"--screenshot={picture}", address)
                frame.unlink(missing_ok=True)
                print(picture)
    server.shutdown()
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(pages)} pages in light and dark, 1200 and 390 pixels wide")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
