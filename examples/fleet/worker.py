"""A worker's place in the fleet: its socket, its file for going out of service, its counters.

Masters share one socket among their workers by default, and a load balancer then sees masters only.
Here each worker claims one of the places `flask-0` to `flask-3` and listens on that place's socket,
once it is warm; the worker that replaces it claims the same place.
"""

import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

WORKERS = int(os.environ["FLEET_WORKERS"])
"""Workers of each program."""
PUBLISH_INTERVAL = 0.2

_FOLDER = Path(os.environ["FLEET_FOLDER"])
_lock = threading.Lock()
_served = _refused = 0
_claimed: Any = None


def claim(program: str) -> str:
    """Claims a free place for this process, until it ends; returns its name, also in FLEET_WORKER.
    """
    global _claimed
    for _ in range(200):
        for place in range(WORKERS):
            name = f"{program}-{place}"
            file = (_FOLDER / f"{name}.lock").open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            _claimed = file
            os.environ["FLEET_WORKER"] = name
            return name
        # (The worker before it has not ended quite yet.)
        time.sleep(0.05)
    raise SystemExit(f"all {WORKERS} places of {program} are taken")


def socket_path() -> str:
    """Returns the path of the socket of this worker's place.

    While no worker listens there, nginx sends the request to another one.
    """
    return str(_FOLDER / f"{os.environ['FLEET_WORKER']}.sock")


def listening_socket() -> socket.socket:
    """Returns that socket, listening."""
    path = socket_path()
    Path(path).unlink(missing_ok=True)
    own = socket.socket(socket.AF_UNIX)
    own.bind(path)
    own.listen(256)
    return own


def is_out() -> bool:
    """Returns whether this worker must answer 503 now, and counts the request.

    A worker's health may hang on anything: here, on a file.
    """
    global _served, _refused
    out = os.path.exists(_FOLDER / f"{os.environ['FLEET_WORKER']}.out")
    with _lock:
        if out:
            _refused += 1
        else:
            _served += 1
    return out


def publish(restored: int) -> None:
    """Starts writing this worker's counters to a file of its own, which outlives it.

    Called when the worker takes requests.

    Args:
        restored: How many pages came from the snapshot.
    """
    threading.Thread(target=_publish, args=(restored,), name="counters", daemon=True).start()


def _publish(restored: int) -> None:
    import source
    from caching import tiers

    path = _FOLDER / "counters" / f"{os.environ['FLEET_WORKER']}@{os.getpid()}.json"
    while True:
        counted = {
            "at": time.monotonic(),
            **tiers.counters(),
            "queries": source.queries(),
            "served": _served,
            "refused": _refused,
            "restored": restored,
        }
        path.with_suffix(".new").write_text(json.dumps(counted))
        path.with_suffix(".new").replace(path)
        time.sleep(PUBLISH_INTERVAL)
