"""A process that evaluates the lines of `tests/tiered_python.rs`, with caches on its Redis.

    python rust_peer.py URL
"""

import datetime
import decimal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import hotset
from hotset.tier2 import Redis


class Peer:
    """What the lines may use."""

    def __init__(self, url: str) -> None:
        self._server = Redis(url, prefix="shop")
        self._caches: dict[tuple[Any, ...], Any] = {}
        self._results: list[Any] = []
        self._threads: list[threading.Thread] = []

    def cache(self, codec: str = "bytes", schema: Any = None, name: str = "prices") -> Any:
        """Returns the cache with these settings, the same at every call."""
        key = (codec, schema, name)
        if key not in self._caches:
            self._caches[key] = hotset.TieredCache(self._server, name, maxsize=1000, ttl=600, codec=codec, schema=schema)
        return self._caches[key]

    def armed(self) -> bool:
        """Waits until the server's announcements are known to arrive."""
        self.cache().get("warm")
        self.until(lambda: self._server.stats()["nodes"][0]["bus"] == "armed")
        return True

    def until(self, holds: Callable[[], object]) -> bool:
        """Waits until a change has arrived."""
        while not holds():
            time.sleep(0.001)
        return True

    def start(self, call: Callable[[], Any]) -> bool:
        """Calls in a thread of its own."""
        thread = threading.Thread(target=lambda: self._results.append(call()))
        thread.start()
        self._threads.append(thread)
        return True

    def join(self) -> list[Any]:
        """Returns the results of the threads."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        results, self._results = self._results, []
        return results

    def close(self) -> None:
        """Closes the connections."""
        self._server.close()


def main() -> None:
    """Writes the `repr` of what each line evaluates to, or of the error that it raises."""
    peer = Peer(sys.argv[1])
    names = {"peer": peer, "cache": peer.cache, "hotset": hotset, "datetime": datetime, "decimal": decimal, "uuid": uuid}
    for line in sys.stdin:
        try:
            # The lines are those of the test that started this process.
            result = repr(eval(line.strip(), names))
        except Exception as error:  # noqa: BLE001
            result = f"raised {error!r}"
        print(result.encode("ascii", "backslashreplace").decode(), flush=True)
    peer.close()


if __name__ == "__main__":
    main()
