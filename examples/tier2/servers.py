"""Starts and stops the servers of the demo: Redis, gunicorn and nginx, on loopback.

All their files are in one folder. Each runs in a session of its own, so that Ctrl-C reaches the
demo alone, which stops them by process id.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

WORKERS = 4
START_SECONDS = 60
STOP_SECONDS = 15


def free_port() -> int:
    """Returns a port of loopback on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end the demo."""


@contextmanager
def signals_deferred() -> Generator[None]:
    """Defers the signals that end the demo to the end of the `with` block. For the main thread."""
    arrived: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: arrived.append(number)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


class StartError(Exception):
    """A server is missing, or did not start."""


class Process:
    """A server, which can be started again after it was killed."""

    def __init__(self, name: str, command: list[str], folder: Path, is_ready: Callable[[], bool], environment: dict[str, str]) -> None:
        self.name = name
        self._command = command
        self._log = folder / f"{name}.log"
        self._is_ready = is_ready
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server, and returns when it answers.

        Raises:
            StartError: It ended, or does not answer.
        """
        environment = {**os.environ, **self._environment}
        # (A signal that came while it starts would leave it running, unknown to us.)
        with self._log.open("ab") as log, signals_deferred():
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if self._is_ready():
                    return
            except OSError:
                pass
            if not self.is_running():
                self.kill()
                raise StartError(f"{self.name} ended with status {self._process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} does not answer after {START_SECONDS} s:\n{self.log_tail()}")
            time.sleep(0.02)

    def is_running(self) -> bool:
        """Returns whether the server has been started, and has not ended."""
        if self._process is None or self._process.returncode is not None:
            return False
        # It is not reaped here: until `kill` has done that, no other process gets its id, which is
        # also that of its group.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    @property
    def pid(self) -> int:
        """The process id of the server that was started last."""
        assert self._process is not None
        return self._process.pid

    def log_tail(self) -> str:
        """Returns the end of what the server logged."""
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the server, unless it has ended."""
        if self._process is not None and self.is_running():
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kills the server, and the processes that it started, also those that it left behind."""
        if self._process is not None and self._process.returncode is None:
            # (The leader of its session, hence of its group.)
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """Has the server end; kills it if it does not."""
        if self.is_running():
            self.send(signal.SIGTERM)
            # (A stopped process handles no signal.)
            self.send(signal.SIGCONT)
            deadline = time.monotonic() + STOP_SECONDS
            while self.is_running() and time.monotonic() < deadline:
                time.sleep(0.02)
        self.kill()


class Servers:
    """Redis, and the service under gunicorn behind nginx.

    Attributes:
        redis: The second tier's server.
        port: nginx's port on 127.0.0.1.
    """

    def __init__(self, folder: Path, database: Path, local_ttl: float) -> None:
        redis_port = free_port()
        self.port = free_port()
        self.stats = folder / "stats"
        self.stats.mkdir()
        environment = {
            "DEMO_DATABASE": str(database),
            "DEMO_REDIS": f"redis://127.0.0.1:{redis_port}/0",
            "DEMO_LOCAL_TTL": str(local_ttl),
            "DEMO_STATS": str(self.stats),
        }
        self.redis = Process("redis", redis_command(folder, redis_port), folder, lambda: accepts(redis_port), {})
        self.gunicorn = Process("gunicorn", _gunicorn(folder), folder, self._has_workers, environment)
        self._nginx = Process("nginx", nginx_command(folder, _HTTP.format(folder=folder, port=self.port)), folder, lambda: _answers(self.port), {})

    def __enter__(self) -> "Servers":
        try:
            for process in (self.redis, self.gunicorn, self._nginx):
                process.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops all servers."""
        with signals_deferred():
            for process in (self._nginx, self.gunicorn, self.redis):
                process.stop()

    def logs(self) -> str:
        """Returns the ends of the logs."""
        return "\n".join(f"--- {process.name}\n{process.log_tail()}" for process in (self.redis, self.gunicorn, self._nginx))

    def _has_workers(self) -> bool:
        return len(list(self.stats.glob("*.json"))) == WORKERS


def program_path(program: str, package: str) -> str:
    """Returns the path of a program, which is in this package of Debian.

    Raises:
        StartError: It is missing.
    """
    # (An unprivileged user's PATH may lack the folders of servers.)
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        raise StartError(f"{program} is missing: apt-get install {package}")
    return path


def redis_command(folder: Path, port: int) -> list[str]:
    """Returns the command that runs redis-server on this port of loopback."""
    # (Nothing is written to disk: what a killed server held is lost.)
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no", "--daemonize", "no"]
    return [program_path("redis-server", "redis-server"), *options]


def _gunicorn(folder: Path) -> list[str]:
    options = ["--workers", str(WORKERS), "--threads", "8", "--worker-class", "gthread", "--log-level", "warning", "--no-control-socket"]
    folders = ["--bind", f"unix:{folder}/gunicorn.sock", "--worker-tmp-dir", str(folder), "--chdir", str(Path(__file__).parent)]
    return [sys.executable, "-m", "gunicorn", *options, *folders, "service:app"]


def nginx_command(folder: Path, http: str) -> list[str]:
    """Returns the command that runs nginx in the folder, with these `http` directives."""
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, http=http, user=_nginx_user()))
    return [program_path("nginx", "nginx"), "-p", str(folder), "-e", str(folder / "nginx.log"), "-c", str(folder / "nginx.conf")]


def _nginx_user() -> str:
    """Returns a directive that keeps nginx, if started by root, root: others may not enter the
    folder.
    """
    return f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""


_NGINX = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
{http}
}}
"""

_HTTP = """
    upstream workers {{ server unix:{folder}/gunicorn.sock; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://workers;
            proxy_next_upstream off;
        }}
    }}
"""


def accepts(port: int) -> bool:
    """Returns True if a server listens on this port of loopback.

    Raises:
        OSError: None does.
    """
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/stats")
        return connection.getresponse().status == 200
    finally:
        connection.close()
