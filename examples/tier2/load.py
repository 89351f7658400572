"""The load of the demo: threads that read products over HTTP, update them, and poll counters."""

import http.client
import itertools
import json
import random
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

READERS = 24
TIMEOUT = 20
POLL_INTERVAL = 0.2
COUNTERS = ("tier1_hits", "tier1_misses", "tier2_hits", "tier2_misses", "loads", "losses")


class Read(NamedTuple):
    """A request for a product. Times are of the monotonic clock."""

    sent: float
    received: float
    number: int
    version: int
    worker: int
    error: str


class Update(NamedTuple):
    """A change of a product: its invalidation had returned when the answer was received."""

    sent: float
    received: float
    number: int
    version: int
    worker: int
    is_confirmed: bool
    error: str


class Sample(NamedTuple):
    """The counters of all workers, summed.

    Attributes:
        at: When they were requested.
        published: When the first of the workers published its part.
        losses: How often a worker lost Redis or its announcements, or owed it an invalidation.
        up: How many workers reach Redis.
        armed: How many hear its announcements.
    """

    at: float
    published: float
    tier1_hits: int
    tier1_misses: int
    tier2_hits: int
    tier2_misses: int
    loads: int
    losses: int
    journal: int
    up: int
    armed: int
    workers: tuple[str, ...]


@dataclass(frozen=True)
class Stale:
    """How old what a read returned was when the read was sent.

    Attributes:
        age: Seconds since the invalidation of the version that was returned had returned.
        own_age: The same, of updates that the worker had performed that answered the read; 0 if
            there is none.
    """

    age: float
    own_age: float


class Client:
    """A connection to the service.

    Attributes:
        port: Where the next request is sent.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str) -> Any:
        """Sends a request; returns the decoded answer.

        Raises:
            OSError: The service does not answer.
            http.client.HTTPException: Its answer is malformed, or no success.
        """
        connection, self._connection = self._connection, None
        if connection is None or connection.port != self.port:
            if connection is not None:
                connection.close()
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise http.client.HTTPException(f"status {response.status}")
            answer = json.loads(body)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return answer

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()


class Traffic:
    """Reads and updates at steady rates, until stopped; products are chosen by Zipf's law.

    Attributes:
        port: Where requests are sent.
        reads, updates: What happened so far, each thread's in order.
    """

    def __init__(self, port: int, products: int, reads_per_second: float, updates_per_second: float, seed: int) -> None:
        self.port = port
        self._products = range(1, products + 1)
        self._weights = list(itertools.accumulate(1 / number for number in self._products))
        self._seed = seed
        self.reads: list[Read] = []
        self.updates: list[Update] = []
        self._is_stopped = threading.Event()
        self._failure: BaseException | None = None
        self._begin = time.monotonic()
        self._threads: list[threading.Thread] = []
        self._add_thread(self._update, 1, 1 / updates_per_second)
        interval = READERS / reads_per_second
        for reader in range(READERS):
            self._add_thread(self._read, 2 + reader, interval, delay=interval * reader / READERS)

    def _add_thread(self, turn: Any, number: int, interval: float, delay: float = 0.0) -> None:
        self._threads.append(threading.Thread(target=self._run, args=(turn, number, interval, self._begin + delay), daemon=True))

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stops the threads, each after its current request."""
        self._is_stopped.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(TIMEOUT + 5)

    def check(self) -> None:
        """Raises what ended a thread, if one has failed."""
        if self._failure is not None:
            raise self._failure

    def _run(self, turn: Any, number: int, interval: float, due: float) -> None:
        client, choice = Client(self.port), random.Random(f"{self._seed} {number}")
        try:
            while not self._is_stopped.wait(max(0.0, due - time.monotonic())):
                client.port = self.port
                turn(client, choice)
                # A thread that is late does not make up for it: the rate is an upper bound.
                due = max(due + interval, time.monotonic())
        except BaseException as error:
            self._failure = error
        finally:
            client.close()

    def _choose(self, choice: random.Random) -> int:
        return choice.choices(self._products, cum_weights=self._weights)[0]

    def _read(self, client: Client, choice: random.Random) -> None:
        number = self._choose(choice)
        sent = time.monotonic()
        version, worker, error = 0, 0, ""
        try:
            answer = client.ask("GET", f"/product/{number}")
            version, worker = answer["version"], answer["worker"]
        except (OSError, http.client.HTTPException, ValueError) as failure:
            error = repr(failure)
        self.reads.append(Read(sent, time.monotonic(), number, version, worker, error))

    def _update(self, client: Client, choice: random.Random) -> None:
        number = self._choose(choice)
        sent = time.monotonic()
        version, worker, is_confirmed, error = 0, 0, False, ""
        try:
            answer = self._ask_update(client, number)
            version, worker, is_confirmed = answer["version"], answer["worker"], answer["confirmed"]
        except (OSError, http.client.HTTPException, ValueError) as failure:
            error = repr(failure)
        self.updates.append(Update(sent, time.monotonic(), number, version, worker, is_confirmed, error))

    def _ask_update(self, client: Client, number: int) -> Any:
        """Has the service change a product; returns its answer."""
        return client.ask("POST", f"/product/{number}")


class Load(Traffic):
    """The same, and a thread that polls the workers' counters.

    Attributes:
        samples: The counters so far.
    """

    def __init__(self, port: int, products: int, reads_per_second: float, updates_per_second: float, seed: int) -> None:
        super().__init__(port, products, reads_per_second, updates_per_second, seed)
        self.samples: list[Sample] = []
        self._totals = dict.fromkeys(COUNTERS, 0)
        self._last: dict[tuple[str, str], int] = {}
        self._add_thread(self._poll, 0, POLL_INTERVAL)

    def _poll(self, client: Client, _: random.Random) -> None:
        at = time.monotonic()
        try:
            workers = client.ask("GET", "/stats")
        except (OSError, http.client.HTTPException, ValueError):
            # (A gap in the chart; requests that count are those of readers.)
            return
        found = list(workers.values())
        for worker, counters in workers.items():
            for name in COUNTERS:
                before, now = self._last.get((worker, name), 0), counters[name]
                # (A counter that fell has restarted, as a worker's does which gunicorn replaced.)
                self._totals[name] += now - before if now >= before else now
                self._last[worker, name] = now
        self.samples.append(
            Sample(
                at,
                min((counters["at"] for counters in found), default=0.0),
                **self._totals,
                journal=sum(counters["journal"] for counters in found),
                up=sum(counters["link"] == "up" for counters in found),
                armed=sum(counters["bus"] == "armed" for counters in found),
                workers=tuple(sorted(workers)),
            )
        )


class History:
    """What updates had returned when, by product: judges reads."""

    def __init__(self, updates: list[Update]) -> None:
        self._all: dict[int, list[Update]] = defaultdict(list)
        self._own: dict[tuple[int, int], list[Update]] = defaultdict(list)
        for update in updates:
            if not update.error:
                self._all[update.number].append(update)
                self._own[update.number, update.worker].append(update)

    def judge(self, read: Read) -> Stale | None:
        """Returns how stale a read was; None if it was not."""
        age = _age(self._all.get(read.number, []), read)
        if age <= 0:
            return None
        return Stale(age, max(0.0, _age(self._own.get((read.number, read.worker), []), read)))


def _age(updates: list[Update], read: Read) -> float:
    """Seconds from the end of the first update to a later version until the start of the read."""
    at = bisect_right(updates, read.version, key=lambda update: update.version)
    return read.sent - updates[at].received if at < len(updates) else 0.0
