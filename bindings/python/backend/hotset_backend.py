"""The build backend (PEP 517): maturin, with two additions.

A wheel is built only with what it needs: each missing compiler ends in one line that names it.
An sdist is complete: beside the crate as it is published, with a manifest that names no absent
member of a workspace, it has the tests of the wheel and what they read.
"""

# Older interpreters must be able to import it: they get a line that names the supported ones.
from __future__ import annotations

import gzip
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import maturin

Settings = Any

HERE = Path(__file__).resolve().parents[1]
# In a checkout the package is two folders below the crate. In an sdist it is where the crate is.
IN_SDIST = not (HERE / "../../bindings/python/backend").is_dir()
ROOT = HERE if IN_SDIST else HERE.parents[1]
WHEELS = "there are wheels for CPython 3.11 to 3.15 on Linux, x86-64 and ARM64"
# What the tests of the wheel read, beside what the crate's package has.
FOR_TESTS = (
    "docs/**/*.md",
    "docs/grafana/*.json",
    "examples/c/*",
    "examples/fleet/*",
    "examples/python/*",
    "examples/recipes/*",
    "examples/tier2/*",
    "bindings/python/pyproject.toml",
    "bindings/python/test.sh",
    "bindings/python/tests/**/*",
)


def fail(line: str) -> None:
    """Ends the build with `line`, without a traceback."""
    sys.exit(f"hotset: {line}")


def required_rust() -> tuple[int, int]:
    """Returns the oldest supported version of Rust, as the native crate declares it."""
    manifest = (ROOT / "bindings/python/Cargo.toml").read_text()
    found = re.search(r'^rust-version = "(\d+)\.(\d+)', manifest, re.MULTILINE)
    assert found is not None
    return int(found[1]), int(found[2])


def check_toolchain() -> None:
    """Ends the build if this interpreter is not supported, or Rust is missing or too old."""
    if sys.version_info < (3, 11):
        fail(f"Python {platform.python_version()} is too old; CPython 3.11 and newer is supported")
    if sys.implementation.name != "cpython":
        fail(f"{platform.python_implementation()} is not supported; CPython 3.11 and newer is")
    rust = required_rust()
    needed = f"building it needs Rust {rust[0]}.{rust[1]} or newer"
    if shutil.which("cargo") is None:
        fail(f"{needed}, and cargo is not on PATH: install Rust (https://rustup.rs); {WHEELS}")
    try:
        printed = subprocess.run(["cargo", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        output = (getattr(error, "stderr", None) or str(error)).strip()
        fail(f"{needed}, and `cargo --version` fails: {output.splitlines()[-1] if output else error}")
    version = re.search(r"(\d+)\.(\d+)", printed)
    if version is None or (int(version[1]), int(version[2])) < rust:
        fail(f"{needed}, and this is {printed.strip()}: run `rustup update`; {WHEELS}")


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """Builds a wheel by maturin."""
    check_toolchain()
    return explain(maturin.build_wheel, wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """Builds an editable wheel by maturin."""
    check_toolchain()
    return explain(maturin.build_editable, wheel_directory, config_settings, metadata_directory)


def explain(build: Any, *arguments: Any) -> str:
    """Calls `build`. If it fails for want of a linker, its last line names that."""
    try:
        return build(*arguments)
    except SystemExit:
        # (Another linker may be configured: only a failure shows that none is.)
        if os.name == "posix" and shutil.which("cc") is None:
            fail(f"building it needs a C compiler to link with, and cc is not on PATH (Debian: gcc, Alpine: build-base); {WHEELS}")
        raise


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """Returns no requirement: those of maturin would download a compiler."""
    check_toolchain()
    return []


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    """Writes the metadata by maturin."""
    check_toolchain()
    return maturin.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


get_requires_for_build_editable = get_requires_for_build_wheel
get_requires_for_build_sdist = get_requires_for_build_wheel
prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """Builds an sdist by maturin, and puts the published crate in the place of the workspace."""
    check_toolchain()
    name = maturin.build_sdist(sdist_directory, config_settings)
    path = Path(sdist_directory, name)
    top = name.removesuffix(".tar.gz")
    with tarfile.open(path) as archive:
        # The package, its native crate and the backend; not the crate, of which maturin takes the
        # manifest as it is.
        kept = re.compile(re.escape(top) + r"/(PKG-INFO|PYPI\.md|pyproject\.toml|(backend|bindings|licenses|python)/.*)")
        files = {member.name.removeprefix(top + "/"): read(archive, member) for member in archive if kept.fullmatch(member.name)}
    files |= dict(packaged_crate())
    for pattern in FOR_TESTS:
        for source in sorted(ROOT.glob(pattern)):
            if source.is_file() and "__pycache__" not in source.parts and source.suffix != ".so":
                files.setdefault(source.relative_to(ROOT).as_posix(), source.read_bytes())
    write(path, top, files)
    return name


def read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Returns the bytes of a file in `archive`."""
    opened = archive.extractfile(member)
    assert opened is not None, member.name
    return opened.read()


def packaged_crate() -> Iterator[tuple[str, bytes]]:
    """Yields the files of the crate as `cargo package` publishes it."""
    with tempfile.TemporaryDirectory() as target:
        command = ["cargo", "package", "--quiet", "--no-verify", "--allow-dirty", "--locked", "--package", "hotset", "--target-dir", target]
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            fail("cargo package fails, see above: an sdist is built from a checkout, with its Cargo.lock")
        [crate] = Path(target, "package").glob("*.crate")
        with tarfile.open(crate) as archive:
            for member in archive:
                name = member.name.partition("/")[2]
                # Names that cargo reserves: they would keep it from packaging this tree again.
                if member.isfile() and name not in ("Cargo.toml.orig", ".cargo_vcs_info.json"):
                    yield name, read(archive, member)


def write(path: Path, top: str, files: dict[str, bytes]) -> None:
    """Writes an sdist, the same bytes for the same files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(files[name])
            member.mode = 0o755 if name.endswith(".sh") else 0o644
            # (Zip, of which wheels are made, has no dates before 1980.)
            member.mtime = int(os.environ.get("SOURCE_DATE_EPOCH", "315619200"))
            archive.addfile(member, io.BytesIO(files[name]))
    with path.open("wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed:
        compressed.write(packed.getvalue())
