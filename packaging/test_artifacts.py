"""Installs hotset from nothing but its artifacts, as a stranger's pip does, and uses it.

Serves the wheels and the sdist in a package index of its own, then for this interpreter: installs
the wheel by name, and, with `--sdist`, the source distribution, each into a fresh environment in a
fresh folder; `--tests` runs the tests that the sdist carries. `--refusals` checks that each bad
environment ends in one line that names what is missing. Standard library only.
"""

import argparse
import hashlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ARTIFACTS = ROOT / "target/packages"
VERSION = re.search(r'^version = "(.*)"', (ROOT / "bindings/python/pyproject.toml").read_text(), re.MULTILINE)[1]
TAG = f"cp{sys.version_info.major}{sys.version_info.minor}{'t' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''}"


class Index(http.server.SimpleHTTPRequestHandler):
    """An index of one project (PEP 503), of files in the current folder."""

    def do_GET(self) -> None:
        if self.path.rstrip("/") != "/simple/hotset":
            return super().do_GET()
        links = [
            f'<a href="/{file.name}#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}" data-requires-python="&gt;=3.11">{file.name}</a>'
            for file in sorted(Path().glob("hotset-*"))
        ]
        page = "<!DOCTYPE html>\n" + "\n".join(links)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *arguments: object) -> None:
        pass


def environment(folder: Path, name: str, python: str = sys.executable) -> Path:
    """Returns the folder of the programs of a fresh environment."""
    if python == sys.executable:
        venv.create(folder / name, with_pip=True)
    else:
        subprocess.run([python, "-m", "venv", folder / name], check=True)
    return folder / name / "bin"


def pip(programs: Path, url: str, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Installs. hotset is in this index only, and what building needs in the usual one."""
    command = [programs / "python", "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", "--extra-index-url", f"{url}/simple"]
    settings = {"PATH": path} if path is not None else {}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env={**os.environ, **settings}, cwd=programs.parent)


def install(programs: Path, url: str, *arguments: str) -> None:
    done = pip(programs, url, *arguments)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)


def use(programs: Path) -> str:
    smoke = shutil.copy(ROOT / "packaging/smoke.py", programs.parent)
    return subprocess.run([programs / "python", "-I", smoke, VERSION, TAG], check=True, capture_output=True, text=True).stdout.strip()


def run_tests(programs: Path, sdist: Path, folder: Path) -> None:
    """Runs the tests that `sdist` carries, as bindings/python/test.sh does."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    top = folder / sdist.name.removesuffix(".tar.gz")
    subprocess.run([programs / "python", "-m", "pip", "install", "-q", "pytest", "hypothesis", "flask", "gunicorn", "redis"], check=True)
    command = [programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--ignore", "tests/tier2", "tests"]
    subprocess.run(command, cwd=top / "bindings/python", check=True)


def refusals(folder: Path, url: str, sdist: Path) -> None:
    """Checks that pip ends in one line that names the cause, for each kind of bad environment."""
    fresh = environment(folder, "refusals")
    no_cargo = f"{fresh}:/usr/bin:/bin"
    if shutil.which("cargo", path=no_cargo):
        sys.exit("cargo is in /usr/bin: it cannot be hidden")
    old = folder / "old"
    old.mkdir()
    (old / "cargo").write_text("#!/bin/sh\necho 'cargo 1.70.0 (an old one)'\n")
    (old / "cargo").chmod(0o755)
    cases = [
        ("no cargo", fresh, no_cargo, r"needs Rust 1\.\d+ or newer, and cargo is not on PATH"),
        ("an old cargo", fresh, f"{old}:{no_cargo}", r"needs Rust 1\.\d+ or newer, and this is cargo 1\.70\.0"),
    ]
    # A folder of programs without a C compiler.
    linkless = folder / "linkless"
    linkless.mkdir()
    for name in ("cargo", "rustc", "sh", "env", "uname", "ld"):
        if found := shutil.which(name):
            (linkless / name).symlink_to(found)
    cases.append(("no C compiler", fresh, str(linkless), "needs a C compiler to link with, and cc is not on PATH"))
    # An interpreter that is too old: pip finds no release for it, and the sdist refuses it.
    homes = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    if oldest := sorted(homes.glob("3.10*/bin/python")):
        too_old = environment(folder, "too-old", str(oldest[0]))
        cases.append(("Python 3.10, the sdist", too_old, os.environ["PATH"], r"hotset: Python 3\.10\.\d+ is too old"))
        printed = pip(too_old, url, "hotset")
        lines = [line for line in (printed.stdout + printed.stderr).splitlines() if line.startswith("ERROR")]
        if printed.returncode == 0 or not any("No matching distribution found for hotset" in line for line in lines):
            sys.exit(f"Python 3.10, by name: {lines}")
        print("Python 3.10, by name:", *lines, sep="\n  ")
    for name, programs, path, pattern in cases:
        done = pip(programs, url, str(sdist), path=path)
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if re.search(pattern, line)]
        if done.returncode == 0 or len(lines) != 1:
            sys.exit(f"{name}: {lines}\n{done.stdout}{done.stderr}")
        print(f"{name}:\n  {lines[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdist", action="store_true")
    parser.add_argument("--tests", action="store_true")
    parser.add_argument("--refusals", action="store_true")
    arguments = parser.parse_args()
    [sdist] = (ARTIFACTS / "sdist").glob("*.tar.gz")
    with tempfile.TemporaryDirectory(prefix="hotset-artifacts-") as name:
        folder = Path(name)
        shelf = folder / "shelf"
        shelf.mkdir()
        for file in [sdist, *(ARTIFACTS / "wheels").glob("*.whl")]:
            shutil.copy(file, shelf)
        os.chdir(shelf)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        if arguments.refusals:
            refusals(folder, url, sdist)
            return
        if list(shelf.glob(f"*-{TAG}-*.whl")):
            programs = environment(folder, "wheel")
            install(programs, url, "--only-binary", "hotset", "hotset")
            print("wheel:", use(programs), flush=True)
        else:
            print(f"wheel: none for {TAG} in {ARTIFACTS / 'wheels'} (make wheels)", flush=True)
        if arguments.sdist or arguments.tests:
            programs = environment(folder, "sdist")
            install(programs, url, "--no-binary", "hotset", "hotset")
            print("sdist:", use(programs), flush=True)
            if arguments.tests:
                run_tests(programs, sdist, folder)


main()
