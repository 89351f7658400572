"""Checks built wheels, and uses each on its interpreter in a fresh environment.

Arguments: wheels, or folders of them. `--no-run` checks the files only; `--any-size` is for wheels
that were built quickly. Needs the tools of packaging/tools.sh, which must run this program.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from email.parser import BytesParser
from email.policy import default
from pathlib import Path

from packaging.utils import parse_wheel_filename
from trove_classifiers import classifiers as known_classifiers

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent
REPOSITORY = "https://github.com/hotset/hotset"
# (Optimized for size, which makes hits slower, it would be a sixth smaller.)
MOST_BYTES = 1_300_000
PROJECT = tomllib.loads((ROOT / "bindings/python/pyproject.toml").read_text())["project"]
LOCK = tomllib.loads((ROOT / "bindings/python/Cargo.lock").read_text())["package"]
# Debian's newest interpreters, where `make test-python-new` installed them.
CHROOT = Path(os.environ.get("CHROOT", ROOT / "target/python-new/debian"))
# Interpreters of musl and of other processors, if there are any, such as
# "musllinux_x86_64-cp311=/a/python manylinux_aarch64-cp311=qemu-aarch64-static,-L,/root,/root/python".
# Wheels are unpacked for them: they need neither pip nor venv.
OTHERS = dict(pair.split("=", 1) for pair in os.environ.get("INTERPRETERS", "").split())

failures: list[str] = []


def check(ok: object, what: str) -> None:
    if not ok:
        failures.append(what)
        print(f"FAILED: {what}")


def tool(name: str, *arguments: str | Path) -> str:
    """Runs a tool. Its failure is one of the wheel."""
    done = subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    output = done.stdout + done.stderr
    check(done.returncode == 0, f"{name} {arguments[-1]}\n{output}")
    return output


def check_metadata(wheel: Path, archive: zipfile.ZipFile, top: str) -> None:
    names = set(archive.namelist())
    metadata = BytesParser(policy=default).parsebytes(archive.read(f"{top}/METADATA"))
    for name in metadata.get_all("License-File", []):
        text = archive.read(f"{top}/licenses/{name}").decode()
        check(text == (ROOT / Path(name).name).read_text(), f"{wheel.name}: {name} is not that of the root")
    check(len(metadata.get_all("License-File", [])) == 3, f"{wheel.name}: three license files")
    check(metadata["License-Expression"] == "MIT OR Apache-2.0", f"{wheel.name}: License-Expression")
    check(metadata["Requires-Python"] == PROJECT["requires-python"], f"{wheel.name}: Requires-Python")
    check(set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"]), f"{wheel.name}: extras")
    check(len(metadata.get_all("Project-URL", [])) == len(PROJECT["urls"]), f"{wheel.name}: URLs")
    unknown = set(metadata.get_all("Classifier")) - known_classifiers
    check(not unknown, f"{wheel.name}: unknown classifiers {unknown}")
    # The page on PyPI, which cannot have relative links.
    description = metadata.get_payload()
    check(description.startswith("# hotset\n"), f"{wheel.name}: no description")
    for target in re.findall(r"\]\(([^)]+)\)", description):
        path = target.removeprefix(f"{REPOSITORY}/blob/main/")
        leads = target == REPOSITORY or path != target and (ROOT / path).is_file()
        check(leads, f"{wheel.name}: the description links to {target}")
    for name in ("hotset/py.typed", "hotset/_hotset.pyi", f"{top}/entry_points.txt"):
        check(name in names, f"{wheel.name}: no {name}")


def check_sbom(wheel: Path, archive: zipfile.ZipFile, top: str) -> None:
    """Checks that the list of components names versions of the lock file, the engine's included."""
    found = [name for name in archive.namelist() if name.startswith(f"{top}/sboms/")]
    check(len(found) == 1, f"{wheel.name}: one list of components: {found}")
    for name in found:
        bom = json.loads(archive.read(name))
        check(bom["bomFormat"] == "CycloneDX", f"{wheel.name}: {name} is no CycloneDX")
        parts = {(part["name"], part["version"]) for part in bom["components"]}
        locked = {(package["name"], package["version"]) for package in LOCK}
        check(parts <= locked, f"{wheel.name}: {name} has {parts - locked}, which are not in Cargo.lock")
        absent = {"hotset", "hashbrown", "foldhash", "pyo3", "libc"} - {name for name, _ in parts}
        check(not absent, f"{wheel.name}: {name} lacks {absent}")


def check_platform(wheel: Path, tags: set[str]) -> None:
    """Checks that auditwheel, which reads the symbols of the library, agrees with the tag."""
    claimed = [tag for tag in tags if tag.startswith(("manylinux_2_", "musllinux_"))]
    if not claimed:
        print(f"{wheel.name}: its tag promises this machine's libraries only; auditwheel is not run")
        return
    printed = " ".join(tool("auditwheel", "show", wheel).split())
    found = re.search(r'consistent with the following platform tag: "(\w+)"', printed)
    if found and found[1] in claimed:
        return
    # zig links with libc.so; auditwheel knows libc.musl-x86_64.so.1 only. musl's loader takes both
    # for itself. Any other library would be a fault.
    musl = all(tag.startswith("musllinux_") for tag in claimed)
    needed = re.search(r"libraries are required by the wheel: (\{.*?\})", printed)
    check(musl and needed and needed[1] == '{ "libc.so": null }', f"{wheel.name}: auditwheel finds {printed}, not {claimed}")


def check_files(wheel: Path, most_bytes: int) -> None:
    before = len(failures)
    name, version, _, tags = parse_wheel_filename(wheel.name)
    check(name == "hotset" and str(version) == PROJECT["version"], f"{wheel.name}: {name} {version}, not {PROJECT['version']}")
    size = wheel.stat().st_size
    check(size < most_bytes, f"{wheel.name}: {size:,} bytes, of {most_bytes:,} at most")
    tool("twine", "check", "--strict", wheel)
    tool("check-wheel-contents", wheel)
    check_platform(wheel, {tag.platform for tag in tags})
    with zipfile.ZipFile(wheel) as archive:
        top = f"{name}-{version}.dist-info"
        check_metadata(wheel, archive, top)
        check_sbom(wheel, archive, top)
        stray = [entry for entry in archive.namelist() if entry.endswith((".pyc", ".toml", ".rs")) or "/tests/" in entry]
        check(not stray, f"{wheel.name}: {stray}")
    if len(failures) == before:
        print(f"{wheel.name}: {size:,} bytes; metadata, contents, list of components and platform are right")


def interpreter(wheel: Path) -> tuple[list[str], Path | None] | str:
    """Returns the command of the wheel's interpreter, or why there is none.

    With it comes the root that it sees; none stands for an interpreter without pip.
    """
    tag = next(iter(parse_wheel_filename(wheel.name)[3]))
    python, system = tag.abi, re.sub(r"_\d+_\d+", "", tag.platform)
    system = re.sub(r"manylinux(2014)?_|^linux_", "manylinux_", system)
    if other := OTHERS.get(f"{system}-{python}"):
        return other.split(","), None
    if "musllinux" in system:
        return "no CPython of a musl system is here (INTERPRETERS names one)"
    if not system.endswith(platform.machine()):
        return f"this machine is no {system.split('_', 1)[1]}"
    version = f"{python[2]}.{python[3:]}"
    homes = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for found in sorted(homes.glob(f"{version}*/bin/python{version}")):
        return [str(found)], Path("/")
    if (CHROOT / f"usr/bin/python{version}").exists() and os.geteuid() == 0:
        return ["chroot", str(CHROOT), f"/usr/bin/python{version}"], CHROOT
    if found := shutil.which(f"python{version}"):
        return [found], Path("/")
    return f"no CPython {version} is here (make test-python-new installs 3.14 and 3.15)"


def step(wheel: Path, command: list[str], show: bool) -> bool:
    """Runs a command. Returns whether it succeeded; its failure is one of the wheel."""
    done = subprocess.run(command, capture_output=True, text=True)
    check(done.returncode == 0, f"{wheel.name}: {' '.join(command)}\n{done.stdout}{done.stderr}")
    if show and done.returncode == 0:
        print(f"{wheel.name}: {done.stdout.strip()}")
    return done.returncode == 0


def run(wheel: Path) -> str:
    """Installs the wheel into a fresh environment and uses it. Returns the reason if it cannot."""
    found = interpreter(wheel)
    if isinstance(found, str):
        return found
    command, root = found
    arguments = [PROJECT["version"], next(iter(parse_wheel_filename(wheel.name)[3])).abi]
    if root is None:
        with tempfile.TemporaryDirectory(prefix="hotset-wheel-") as folder:
            zipfile.ZipFile(wheel).extractall(folder)
            shutil.copy(ROOT / "packaging/smoke.py", folder)
            return "" if step(wheel, [*command, f"{folder}/smoke.py", *arguments], show=True) else "it failed, see above"
    with tempfile.TemporaryDirectory(dir=root / "tmp", prefix="hotset-wheel-") as folder:
        inside = f"/{Path(folder).relative_to(root)}"
        shutil.copy(wheel, folder)
        shutil.copy(ROOT / "packaging/smoke.py", folder)
        python = [*command[:-1], f"{inside}/env/bin/python"]
        steps = [
            [*command, "-m", "venv", f"{inside}/env"],
            [*python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", f"{inside}/{wheel.name}"],
            # Isolated from the variables and folder of this run.
            [*python, "-I", f"{inside}/smoke.py", *arguments],
        ]
        if not all(step(wheel, command, show=command is steps[-1]) for command in steps):
            return "it failed, see above"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--no-run", action="store_true")
    parser.add_argument("--any-size", action="store_true")
    arguments = parser.parse_args()
    wheels: list[Path] = []
    for path in arguments.paths:
        wheels += sorted(path.glob("*.whl")) if path.is_dir() else [path]
    if not wheels:
        sys.exit(f"no wheel in {', '.join(map(str, arguments.paths))}: make wheels")
    for wheel in wheels:
        check_files(wheel, sys.maxsize if arguments.any_size else MOST_BYTES)
    untried = {} if arguments.no_run else {wheel: reason for wheel in wheels if (reason := run(wheel))}
    for wheel, reason in untried.items():
        print(f"{wheel.name}: not run: {reason}")
    tried = 0 if arguments.no_run else len(wheels) - len(untried)
    print(f"{len(wheels)} wheels checked, {tried} of them run, {len(failures)} failures")
    sys.exit(bool(failures))


main()
