"""Snapshots of bytes to bytes: Python, C and Rust read each other's files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import hotset

ROOT = Path(__file__).parents[3]
COUNT = 1000


def key(n):
    return b"key %d" % n


def value(n):
    """As `value_of` of the C program."""
    return bytes((n * 31 + at * 7) % 256 for at in range(n % 50))


def filled():
    cache = hotset.Cache(2 * COUNT)
    for n in range(COUNT):
        cache.set(key(n), value(n), ttl=None if n % 3 else 3600)
    cache[b""] = b"of the empty key"
    return cache


def holds_all(cache):
    assert len(cache) == COUNT + 1
    assert all(cache[key(n)] == value(n) for n in range(COUNT))
    assert cache[b""] == b"of the empty key"


def cargo(*arguments, **environment):
    if not shutil.which("cargo") or not shutil.which("cc") or not (ROOT / "bindings/c/tests/snapshot.c").exists():
        pytest.skip("needs cargo, a C compiler and the sources")
    done = subprocess.run(["cargo", *arguments], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def c_program(tmp_path_factory):
    cargo("build", "--release", "--package", "hotset-c")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = tmp_path_factory.mktemp("c") / "snapshot"
    sources = ROOT / "bindings/c/tests/snapshot.c"
    libraries = [str(target / "release/libhotset.a"), "-lpthread", "-lm", "-ldl"]
    subprocess.run(["cc", "-std=gnu11", f"-I{ROOT / 'include'}", str(sources), "-o", str(program), *libraries], check=True)
    return program


def test_c_reads_snapshots_of_python(c_program, tmp_path):
    path = tmp_path / "by-python"
    assert filled().save(path, codec="bytes") == COUNT + 1
    subprocess.run([c_program, "read", path], check=True)


def test_python_reads_snapshots_of_c(c_program, tmp_path):
    path = tmp_path / "by-c"
    subprocess.run([c_program, "write", path], check=True)
    cache = hotset.Cache(2 * COUNT)
    assert cache.load(path, codec="bytes") == COUNT + 1
    holds_all(cache)
    assert all((cache.remaining(key(n)) is None) == bool(n % 3) for n in range(COUNT))


def test_rust_and_python_read_each_others_files(tmp_path):
    by_python, by_rust = tmp_path / "by-python", tmp_path / "by-rust"
    filled().save(by_python, codec="bytes")
    files = {"HOTSET_BY_C": str(by_python), "HOTSET_BY_RUST": str(by_rust)}
    cargo("test", "--package", "hotset-c", "--test", "exchange", "--", "--ignored", **files)
    cache = hotset.Cache(2 * COUNT)
    assert cache.load(by_rust, codec="bytes") == COUNT + 1
    holds_all(cache)


def test_the_schema_is_that_of_all_three(tmp_path):
    path = tmp_path / "file"
    cache = filled()
    for schema, number in ((None, 0), (7, 7), (2**64 - 1, 2**64 - 1)):
        cache.save(path, codec="bytes", schema=schema)
        assert int.from_bytes(path.read_bytes()[24:32], "little") == number
        assert hotset.Cache(2 * COUNT).load(path, codec="bytes", schema=schema) == COUNT + 1
    cache.save(path, codec="bytes", schema="text")
    assert hotset.Cache(2 * COUNT).load(path, codec="bytes", schema="text") == COUNT + 1
    for other in (None, 1, "other", -1):
        with pytest.raises(hotset.SnapshotError) as caught:
            hotset.Cache(10).load(path, codec="bytes", schema=other)
        assert caught.value.reason == "schema"
    with pytest.raises(hotset.SnapshotError):
        hotset.Cache(10).load(path, schema="text")


def test_keys_that_are_no_bytes_are_pythons_own(tmp_path):
    path = tmp_path / "file"
    cache = hotset.Cache(10)
    cache["text"], cache[b"bytes"] = b"1", b"2"
    assert cache.save(path, codec="bytes") == 2
    again = hotset.Cache(10)
    assert again.load(path, codec="bytes") == 2 and dict(again) == dict(cache)
