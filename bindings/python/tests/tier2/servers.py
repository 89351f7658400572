"""Redis and memcached servers for the tests: on free ports of loopback, ended by pid."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

HAS_REDIS = shutil.which("redis-server") is not None
HAS_SENTINEL = shutil.which("redis-sentinel") is not None
VALKEY = shutil.which("valkey-server")
HAS_MEMCACHED = shutil.which("memcached") is not None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _free_ports_of_cluster() -> int:
    """A port whose cluster bus port (10,000 above) is free, too."""
    while True:
        port = free_port()
        if port >= 55_000:
            port -= 30_000
        try:
            for each in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port


def ask(port: int, *command: str | bytes | int, timeout: float = 5.0, path: str | None = None):
    """Sends one command on a connection of its own and returns the raw reply, decoded a little: for
    setting up and looking.
    """
    family = socket.AF_UNIX if path else socket.AF_INET
    with socket.socket(family) as plain:
        plain.settimeout(timeout)
        plain.connect(path or ("127.0.0.1", port))
        parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
        plain.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
        reader = plain.makefile("rb")
        return _read(reader)


def _read(reader):
    line = reader.readline()
    if not line:
        raise ConnectionResetError("closed")
    kind, rest = line[:1], line[1:-2]
    if kind == b"$":
        length = int(rest)
        return None if length < 0 else reader.read(length + 2)[:-2]
    if kind == b"*":
        return None if int(rest) < 0 else [_read(reader) for _ in range(int(rest))]
    if kind == b":":
        return int(rest)
    if kind == b"-":
        raise RuntimeError(rest.decode())
    return rest.decode()


def wait_until(condition: Callable[[], object], seconds: float = 20.0, what: str = "condition") -> None:
    """Waits for something that must happen; how long it may take decides nothing but when the test
    gives up.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (OSError, RuntimeError):
            pass
        if time.monotonic() > end:
            raise AssertionError(f"gave up waiting for: {what}")
        time.sleep(0.01)


class Server:
    """A redis-server (or another of its kind) that can be stopped, continued, killed and started
    again on the same port.
    """

    def __init__(self, folder: Path, *settings: str, port: int | None = None, program: str = "redis-server", password: str = "") -> None:
        self.port = port or free_port()
        self.folder = folder / f"{Path(program).name}-{self.port}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.socket_path = str(self.folder / "redis.sock")
        self._program = program
        self._settings = settings
        self.password = password
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://{':' + self.password + '@' if self.password else ''}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def _command(self) -> list[str]:
        own = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--appendonly", "no"]
        own += ["--unixsocket", self.socket_path, "--unixsocketperm", "700", "--daemonize", "no", "--logfile", str(self.folder / "log")]
        if self.password:
            own += ["--requirepass", self.password]
        return [self._program, *own, *self._settings]

    def start(self) -> None:
        self.process = subprocess.Popen(self._command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, what=f"{self._program} on port {self.port}")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            log = self.folder / "log"
            raise AssertionError(f"{self._program} ended: {log.read_text()[-2000:] if log.exists() else 'no log'}")
        with socket.socket() as probe:
            probe.settimeout(1)
            probe.connect(("127.0.0.1", self.port))
        return True

    def ask(self, *command: str | bytes | int):
        parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
        with socket.socket() as plain:
            plain.settimeout(5)
            plain.connect(("127.0.0.1", self.port))
            reader = plain.makefile("rb")
            if self.password:
                plain.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%b\r\n" % (len(self.password), self.password.encode()))
                _read(reader)
            plain.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
            return _read(reader)

    def info(self, section: str) -> dict[str, str]:
        lines = self.ask("INFO", section).decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            # (A stopped process dies of SIGKILL, too.)
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class MemcachedServer:
    """A memcached that can be stopped, continued, killed and started again on the same port."""

    def __init__(self, *settings: str, path: str | None = None) -> None:
        self.port = free_port()
        self.path = path
        self._settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        return self.path or f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"memcached://{self.address}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        where = ["-s", self.path] if self.path else ["-l", "127.0.0.1", "-p", str(self.port)]
        # (Without threads of its own for large items, whose settings differ between versions.)
        command = ["memcached", "-u", "nobody" if self.path is None else "root", *where, "-U", "0", *self._settings]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, what=f"memcached at {self.address}")

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, "memcached ended"
        return self.ask("version").startswith("VERSION")

    def ask(self, line: str, block: bytes | None = None) -> str:
        """Sends one command, and returns the first line of the reply."""
        family = socket.AF_UNIX if self.path else socket.AF_INET
        with socket.socket(family) as plain:
            plain.settimeout(5)
            plain.connect(self.path or ("127.0.0.1", self.port))
            plain.sendall(line.encode() + b"\r\n" + (b"" if block is None else block + b"\r\n"))
            return plain.makefile("rb").readline().decode().strip()

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        # (Not `waitid`: it waits for ever for a process that was stopped before, or has ended.)
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            while (task / "stat").read_text().rpartition(")")[2].split()[0] not in "TtZX":
                time.sleep(0.0005)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Sentinels:
    """A master, a replica, and three sentinels that watch them."""

    def __init__(self, folder: Path, service: str = "shop") -> None:
        self.service = service
        self.servers: list[Server] = []
        try:
            self.master = self._add(Server(folder))
            self.replica = self._add(Server(folder, "--replicaof", f"127.0.0.1 {self.master.port}"))
            self.sentinels = [self._add(self._sentinel(folder)) for _ in range(3)]
            wait_until(lambda: self.replica.info("replication")["master_link_status"] == "up", what="replica")
            for each in self.sentinels:
                wait_until(lambda each=each: each.ask("SENTINEL", "CKQUORUM", service), what="quorum")
        except BaseException:
            self.close()
            raise

    def _add(self, server: Server) -> Server:
        self.servers.append(server)
        return server

    def _sentinel(self, folder: Path) -> Server:
        port = free_port()
        file = folder / f"sentinel-{port}.conf"
        file.write_text(
            f"sentinel monitor {self.service} 127.0.0.1 {self.master.port} 2\n"
            f"sentinel down-after-milliseconds {self.service} 500\n"
            f"sentinel failover-timeout {self.service} 3000\n"
        )
        return _SentinelServer(folder, file, port)

    def close(self) -> None:
        for server in self.servers:
            server.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _SentinelServer(Server):
    def __init__(self, folder: Path, file: Path, port: int) -> None:
        self._file = file
        super().__init__(folder, port=port, program="redis-sentinel")

    def _command(self) -> list[str]:
        return ["redis-sentinel", str(self._file), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]


class Cluster:
    """A cluster of three masters, each with a replica."""

    def __init__(self, folder: Path, replicas: int = 1) -> None:
        self.servers: list[Server] = []
        try:
            for _ in range(3 * (1 + replicas)):
                settings = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-config-file", "nodes.conf", "--repl-diskless-sync-delay", "0")
                self.servers.append(Server(folder, *settings, port=_free_ports_of_cluster()))
            addresses = [f"127.0.0.1:{server.port}" for server in self.servers]
            created = subprocess.run(
                ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", str(replicas), "--cluster-yes"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert created.returncode == 0, created.stdout + created.stderr
            for server in self.servers:
                wait_until(lambda server=server: b"cluster_state:ok" in server.ask("CLUSTER", "INFO"), what="cluster")
            for server in self.servers:
                wait_until(lambda server=server: server.info("replication").get("master_link_status", "up") == "up", what="replicas")
            wait_until(lambda: len(self.masters) == 3, what="three masters")
        except BaseException:
            self.close()
            raise

    @property
    def masters(self) -> list[Server]:
        return [server for server in self.servers if server.process.poll() is None and server.info("replication")["role"] == "master"]

    def close(self) -> None:
        for server in self.servers:
            server.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Proxy:
    """A TCP proxy before a server, with faults.

    Attributes:
        delay: Seconds by which each piece is delayed, both ways.
        is_deaf: Takes what clients send, and passes nothing on in either direction: a half-open
            connection.
        byte_by_byte: Passes on what the server sends one byte at a time.
        cut_after: Resets a connection when the server has sent this many bytes on it; None: never.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.delay = 0.0
        self.is_deaf = False
        self.byte_by_byte = False
        self.cut_after: int | None = None
        self.connections = 0
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _reset(client)
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            threading.Thread(target=self._pump, args=(client, server, pair, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, pair, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, pair, from_server: bool) -> None:
        passed = 0
        try:
            while data := source.recv(1 << 16):
                if self.delay:
                    time.sleep(self.delay)
                while self.is_deaf:
                    time.sleep(0.01)
                    with self._lock:
                        if pair not in self._pairs:
                            return
                if from_server and self.cut_after is not None and passed + len(data) > self.cut_after:
                    target.sendall(data[: max(0, self.cut_after - passed)])
                    self._drop(pair)
                    return
                passed += len(data)
                if from_server and self.byte_by_byte:
                    for at in range(len(data)):
                        target.sendall(data[at : at + 1])
                else:
                    target.sendall(data)
        except OSError:
            pass
        self._drop(pair)

    def _drop(self, pair) -> None:
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
        for each in pair:
            _reset(each)

    def reset_all(self) -> None:
        """Resets all connections; new ones are accepted."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._drop(pair)

    def close(self) -> None:
        self._listener.close()
        self.reset_all()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _reset(connected: socket.socket) -> None:
    try:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connected.close()
