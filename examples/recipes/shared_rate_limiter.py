"""A rate limiter across processes: each leases permits from Redis, and spends them locally.

    pip install redis  # needs redis-server, too
    python examples/recipes/shared_rate_limiter.py
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import hotset

# Takes permits of the window that the server's clock is in. Returns how many, and the milliseconds
# that are left of the window.
_LEASE = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local limit, batch, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local number = math.floor(ms / window)
local held = redis.call('HMGET', KEYS[1], 'window', 'taken')
local taken = tonumber(held[1]) == number and tonumber(held[2]) or 0
local granted = math.max(0, math.min(batch, limit - taken))
if granted > 0 then
    redis.call('HSET', KEYS[1], 'window', number, 'taken', taken + granted)
    redis.call('PEXPIRE', KEYS[1], window)
end
return {granted, (number + 1) * window - ms}
"""


class _Lease:
    """Permits of one client that this process may spend.

    Attributes:
        permits: How many are left.
        until: When they lapse: before the server's window ends.
        is_last: Whether the server has no more in this window.
        own_until: When the permits lapse that the process gave itself while Redis was down.
    """

    __slots__ = ("is_last", "lock", "own_until", "permits", "until")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.permits = 0
        self.until = self.own_until = float("-inf")
        self.is_last = False


class SharedRateLimiter:
    """Allows each client `limit` calls per `window` seconds, over all processes.

    They are the processes that use the same server and prefix.

    Args:
        server: A client of redis-py with a short `socket_timeout` and no retries: a call may wait
            that long when Redis stops answering.
        limit: Calls per window.
        window: Seconds. Windows are those of the server's clock.
        batch: Permits that a process takes at a time. 1 is exact, and asks the server at each call.
        when_down: Calls that each process allows per client and window of its own while Redis does
            not answer; 0 refuses all.
        retry: Seconds after a failure for which the process asks no more.
        clients: How many clients a process knows at a time.
        prefix: What keys on the server begin with.
        timer: A monotonic clock.
    """

    def __init__(
        self,
        server: Any,
        limit: int,
        window: float,
        *,
        batch: int = 10,
        when_down: int = 0,
        retry: float = 1.0,
        clients: int = 100_000,
        prefix: str = "limit",
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= batch <= limit:
            raise ValueError(f"batch must be between 1 and limit, not {batch}")
        if window < 0.001:
            raise ValueError(f"window must be at least 0.001 s, not {window}")
        self._script = server.register_script(_LEASE)
        self._limit, self._batch, self._window, self._when_down = limit, batch, window, when_down
        self._retry, self._prefix, self._timer = retry, prefix, timer
        self._down_until = float("-inf")
        self._pid = os.getpid()
        self._leases: hotset.Cache[str, _Lease] = hotset.Cache(clients, tti=2 * window, name=f"{prefix} leases")

    def allow(self, client: str) -> bool:
        """Spends a permit of the client; returns whether there was one."""
        if self._pid != os.getpid():
            # (Permits that were leased before a fork are the parent's.)
            self._leases.clear()
            self._pid = os.getpid()
        lease = self._leases.get_or_load(client, lambda _: _Lease())
        # One thread asks the server; others that want this client's permits wait for its answer.
        with lease.lock:
            now = self._timer()
            if now >= lease.until:
                lease.permits, lease.is_last = 0, False
            if not lease.permits and not lease.is_last:
                self._renew(client, lease, now)
            if not lease.permits:
                return False
            lease.permits -= 1
            return True

    def _renew(self, client: str, lease: _Lease, now: float) -> None:
        if now >= self._down_until:
            try:
                granted, left = self._script(keys=[f"{self._prefix}:{client}"], args=[self._limit, self._batch, round(self._window * 1000)])
            except redis.RedisError:
                self._down_until = self._timer() + self._retry
            else:
                # Counted from before the request was sent, so not later than the end of the
                # server's window.
                lease.permits, lease.until, lease.is_last = granted, now + left / 1000, granted < self._batch
                return
        if now >= lease.own_until:
            lease.permits, lease.until = self._when_down, now + self._window
            lease.own_until = lease.until


def connect(path: str) -> Any:
    """Returns a client that waits 0.1 s for the server, once."""
    return redis.Redis(unix_socket_path=path, socket_timeout=0.1, socket_connect_timeout=0.1, retry=Retry(NoBackoff(), 0))


def work(path: str, calls: int) -> None:
    """What one process does: calls, and prints how many were allowed."""
    # (One window, whenever this runs.)
    limiter = SharedRateLimiter(connect(path), limit=100, window=10**9, batch=10, when_down=5)
    print(sum(limiter.allow("a") for _ in range(calls)))


def processes(path: str, calls: int) -> list[int]:
    """Returns what each of four processes printed."""
    command = [sys.executable, __file__, path, str(calls)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    return [int(process.communicate()[0]) for process in running]


def main() -> None:
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is missing: apt-get install redis-server")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "redis.sock")
        settings = ["--port", "0", "--unixsocket", path, "--dir", folder, "--save", ""]
        with subprocess.Popen([program, *settings], stdout=subprocess.DEVNULL) as server:
            try:
                while not os.path.exists(path):
                    if server.poll() is not None:
                        raise SystemExit("redis-server did not start")
                    time.sleep(0.01)
                allowed = processes(path, calls=400)
                asked = connect(path).info("commandstats")["cmdstat_evalsha"]["calls"]
                print(f"1,600 calls of 4 processes: {sum(allowed)} allowed, {asked} requests to Redis")
                assert sum(allowed) == 100 and asked <= 100 / 10 + 4 * 2
            finally:
                server.terminate()
        allowed = processes(path, calls=400)
        print(f"Redis is down: each process allows {allowed[0]}")
        assert allowed == [5] * 4


if __name__ == "__main__":
    if len(sys.argv) == 3:
        work(sys.argv[1], int(sys.argv[2]))
    else:
        main()
