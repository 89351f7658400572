"""gunicorn's settings for Django and Flask: each worker listens on a socket of its own."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import worker  # noqa: E402

_PROGRAM = os.environ["FLEET_PROGRAM"]

workers = worker.WORKERS
worker_class = "gthread"
threads = int(os.environ["FLEET_THREADS"])
loglevel = "warning"
# (gunicorn insists on a socket of the master's, which no request reaches.)
bind = f"unix:{os.environ['FLEET_FOLDER']}/{_PROGRAM}.sock"
worker_tmp_dir = os.environ["FLEET_FOLDER"]
control_socket_disable = True


def post_fork(_: Any, __: Any) -> None:
    """Called in a new worker, before it imports the program."""
    worker.claim(_PROGRAM)


def post_worker_init(process: Any) -> None:
    """Called in a new worker when it has imported the program."""
    program = importlib.import_module(f"{_PROGRAM}_app")
    restored = program.begin()
    process.sockets = [worker.listening_socket()]
    worker.publish(restored)


def worker_exit(_: Any, __: Any) -> None:
    """Called in a worker that ends, when it has answered its last request."""
    program = sys.modules.get(f"{_PROGRAM}_app")
    if program is not None:
        program.end()
