"""What examples/c/proxy.c answers to right and wrong input. Usage: proxy.py PROXY-PROGRAM"""

import signal
import socket
import subprocess
import sys

proxy = subprocess.Popen([sys.argv[1], "--port", "0"], stdout=subprocess.PIPE)
port = int(proxy.stdout.readline().rsplit(b":", 1)[1])


def ask(data, expected, end=True):
    """Sends the bytes on a new connection; with `end`, sends quit, so that the answer ends."""
    with socket.create_connection(("127.0.0.1", port)) as s:
        try:
            s.sendall(data + (b"quit\r\n" if end else b""))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it had enough before all was sent
        got = b""
        try:
            while part := s.recv(1 << 16):
                got += part
        except ConnectionResetError:
            pass
    assert got == expected, (data[:80], got[:200], expected[:200])


try:
    ask(b"set a 7 0 3\r\nabc\r\nget a\r\n", b"STORED\r\nVALUE a 7 3\r\nabc\r\nEND\r\n")
    ask(b"add a 0 0 1\r\nx\r\nadd b 0 0 0\r\n\r\nget a b none\r\n",
        b"NOT_STORED\r\nSTORED\r\nVALUE a 7 3\r\nabc\r\nVALUE b 0 0\r\n\r\nEND\r\n")
    ask(b"set n 0 0 2\r\n41\r\nincr n 1\r\ndecr n 50\r\nincr none 1\r\nincr a 1\r\nincr n x\r\n",
        b"STORED\r\n42\r\n0\r\nNOT_FOUND\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
        b"CLIENT_ERROR invalid numeric delta argument\r\n")
    ask(b"delete a\r\ndelete a\r\nget a\r\n", b"DELETED\r\nNOT_FOUND\r\nEND\r\n")
    row = b"row 12 ".ljust(100, b".")
    ask(b"get key:12 key:100000 key:x\r\n", b"VALUE key:12 0 100\r\n" + row + b"\r\nEND\r\n")

    with socket.create_connection(("127.0.0.1", port)) as s:
        f = s.makefile("rb")
        s.sendall(b"set c 1 0 1\r\nx\r\ngets c\r\n")
        assert f.readline() == b"STORED\r\n"
        version = f.readline().split()[4]
        f.readline(), f.readline()
        s.sendall(b"cas c 1 0 1 %s\r\ny\r\ncas c 1 0 1 %s\r\nz\r\ncas none 1 0 1 1\r\nz\r\n" % (version, version))
        assert [f.readline() for _ in range(3)] == [b"STORED\r\n", b"EXISTS\r\n", b"NOT_FOUND\r\n"]
        s.sendall(b"set big 0 0 1048576\r\n" + b"v" * 1048576 + b"\r\nget big\r\n")
        assert f.readline() == b"STORED\r\n" and f.readline() == b"VALUE big 0 1048576\r\n"
        assert f.read(1048578) == b"v" * 1048576 + b"\r\n"

    # Wrong input: the answer names the error, and the next command works where it can be found.
    ask(b"\r\nnonsense\r\nget\r\nset a\r\n", b"ERROR\r\n" * 4)
    ask(b"get " + b"k" * 251 + b"\r\nget \x01\r\n", b"CLIENT_ERROR bad key\r\n" * 2)
    ask(b"set " + b"k" * 251 + b" 0 0 1\r\nx\r\nget none\r\n", b"CLIENT_ERROR bad key\r\nEND\r\n")
    ask(b"set a x 0 1\r\nx\r\nset a 0 x 1\r\nx\r\n", b"CLIENT_ERROR bad command line format\r\n" * 2)
    ask(b"set a 0 0 1048577\r\n" + b"x" * 1048577 + b"\r\nget none\r\n", b"SERVER_ERROR object too large for cache\r\nEND\r\n")
    ask(b"set a 0 0 -1\r\nx\r\n", b"CLIENT_ERROR bad data chunk\r\n")
    ask(b"set a 0 0 99999999999999999999999\r\n", b"CLIENT_ERROR bad data chunk\r\n")
    ask(b"set a 0 0 2\r\nabcdef\r\n", b"CLIENT_ERROR bad data chunk\r\n")
    ask(b"get " + b"k " * 200 + b"\r\n", b"ERROR\r\n")
    ask(b"x" * 16384, b"CLIENT_ERROR line too long\r\n", end=False)
    ask(b"set quiet 0 0 1 noreply\r\nx\r\ndelete quiet noreply\r\nget quiet\r\n", b"END\r\n")
    for cut in (b"get", b"set a 0 0 100\r\nabc", b"set a 0 0 3\r\nabc", b""):
        socket.create_connection(("127.0.0.1", port)).sendall(cut)  # and gone
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    ask(b"get none\r\n", b"END\r\n")
finally:
    proxy.send_signal(signal.SIGTERM)
    proxy.wait()
assert proxy.returncode == 0, proxy.returncode
