"""A small web service under load: `python -m hotset advise --verify service.py` finds its caches.

The service shows articles, with prices from a database and suggestions. It starts its own clients,
a process with eight threads that request popular articles more often, and ends when they have.
"""

import http.client
import json
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zlib import crc32

REQUESTS, CLIENTS, ARTICLES = 4000, 8, 400


def text_of(article: int) -> str:
    """Returns the text of an article, in a markup language."""
    words = random.Random(article).choices(["*green*", "_black_", "tea", "from", "[Assam](/tea/assam)", "and", "`Darjeeling`"], k=200)
    return f"# Tea {article}\n\n" + " ".join(words)


def to_html(text: str) -> str:
    """Converts the markup to HTML."""
    for pattern, replacement in (
        (r"^# (.+)$", r"<h1>\1</h1>"),
        (r"\*([^*]+)\*", r"<b>\1</b>"),
        (r"_([^_]+)_", r"<i>\1</i>"),
        (r"`([^`]+)`", r"<code>\1</code>"),
        (r"\[([^]]+)\]\(([^)]+)\)", r'<a href="\2">\1</a>'),
    ):
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def price(path: str, article: int) -> float:
    """Returns a price from the database, opened for each request as small services do."""
    connection = sqlite3.connect(path)
    try:
        [amount] = connection.execute("SELECT amount FROM prices WHERE article = ?", (article,)).fetchone()
    finally:
        connection.close()
    return float(amount)


def similarity(one: int, other: int) -> float:
    """Returns how alike two articles are, by the words that they share."""
    words, others = set(text_of(one).split()), set(text_of(other).split())
    return len(words & others) / len(words | others) - abs(one - other) / ARTICLES


def suggestions(article: int) -> tuple[int, ...]:
    """Returns the three articles that are most alike, of ten that are near."""
    near = [other % ARTICLES for other in range(article + 1, article + 11)]
    return tuple(sorted(near, key=lambda other: -similarity(article, other))[:3])


def visit(article: int, visits: dict[int, int]) -> int:
    """Counts a visit: what must not be cached."""
    visits[article] = visits.get(article, 0) + 1
    return visits[article]


def page(path: str, article: int) -> bytes:
    """Returns the page of an article."""
    links = "".join(f'<a href="/{other}">{other}</a>' for other in suggestions(article))
    return f"{to_html(text_of(article))}<p>EUR {price(path, article):.2f}</p>{links}".encode()


class Handler(BaseHTTPRequestHandler):
    """Serves pages."""

    protocol_version = "HTTP/1.1"
    # Otherwise the kernel delays the second packet of each answer.
    disable_nagle_algorithm = True
    database = ""
    visits: dict[int, int] = {}

    def content(self, article: int) -> bytes:
        """Returns the page of an article."""
        return page(self.database, article)

    def do_GET(self) -> None:
        """Answers a request: `/12` is the page of article 12."""
        article = int(self.path[1:])
        visit(article, self.visits)
        content = self.content(article)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""


def request(port: int, articles: list[int], sums: list[int]) -> None:
    """Requests articles, one after the other, over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for article in articles:
        connection.request("GET", f"/{article}")
        sums.append(crc32(connection.getresponse().read()))
    connection.close()


def load(port: int) -> None:
    """Runs the clients, and prints the sum of the checksums of all answers."""
    chance = random.Random(4)
    weights = [1 / (rank + 1) for rank in range(ARTICLES)]
    sums: list[int] = []
    clients = [
        threading.Thread(target=request, args=(port, chance.choices(range(ARTICLES), weights, k=REQUESTS // CLIENTS), sums)) for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    print(json.dumps({"answers": len(sums), "checksum": sum(sums)}))


def create_database(path: str) -> None:
    """Writes the prices of all articles."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE prices (article INTEGER PRIMARY KEY, amount REAL)")
    connection.executemany("INSERT INTO prices VALUES (?, ?)", ((article, article / 10) for article in range(ARTICLES)))
    connection.commit()
    connection.close()


def main() -> None:
    """Serves until the clients have finished."""
    with tempfile.TemporaryDirectory() as folder:
        Handler.database = str(Path(folder) / "prices")
        create_database(Handler.database)
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        subprocess.run([sys.executable, __file__, "--load", str(server.server_address[1])], check=True)
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        load(int(sys.argv[2]))
    else:
        main()
