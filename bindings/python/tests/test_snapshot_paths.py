"""The file of a snapshot: its name, links to it, its permissions, and changes by other programs."""

import os
import stat
import subprocess
import sys
import tempfile
import warnings

import pytest

import hotset


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.snapshot"


def filled(count=3):
    cache = hotset.Cache(100)
    cache.update({n: n for n in range(count)})
    return cache


def held(path):
    cache = hotset.Cache(100)
    cache.load(path)
    return len(cache)


NAMES = [b"n" * 255, "語".encode() * 85, b"\xff\xfe not UTF-8 \x80", b"\xff" * 255]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_that_the_system_allows(tmp_path, name):
    raw = os.path.join(os.fsencode(tmp_path), name)
    for count, path in enumerate((raw, os.fsdecode(raw), raw), start=2):
        assert filled(count).save(path) == count
        assert held(raw) == held(os.fsdecode(raw)) == count
    assert os.listdir(os.fsencode(tmp_path)) == [name]
    os.unlink(raw)
    with pytest.raises(FileNotFoundError) as raised:
        hotset.Cache(10).load(raw)
    assert os.fsencode(raised.value.filename) == raw

    @hotset.cached(snapshot=raw)
    def function(n):
        return n

    function(1)
    assert function.cache_save() == 1
    hotset._auto_snapshot._auto_snapshotters.clear()
    assert os.listdir(os.fsencode(tmp_path)) == [name]


def test_a_link_is_followed(tmp_path):
    for folder in ("shared", "release"):
        (tmp_path / folder).mkdir()
    link, target = tmp_path / "release" / "link", tmp_path / "shared" / "snapshot"
    link.symlink_to("../shared/snapshot")
    for count in (1, 2):
        filled(count).save(link)
        assert link.is_symlink() and held(target) == held(link) == count
    assert os.listdir(target.parent) == [target.name] and os.listdir(link.parent) == [link.name]
    link.unlink()
    link.symlink_to(tmp_path)
    with pytest.raises(hotset.SnapshotError, match="is not a file"):
        filled().save(link)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(OSError, match="symbolic links"):
        filled().save(link)


def test_new_file_is_private_and_replaced_one_keeps_mode(path):
    before = os.umask(0)
    try:
        filled().save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for mode in (0o640, 0o644, 0o400, 0o600):
        path.chmod(mode)
        filled().save(path)
        assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_keeps_the_owner(path):
    filled().save(path)
    os.chown(path, 65534, 1)
    filled().save(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 1)


# Where no directory can be listed, nor opened to be synced.
UNLISTED = """
import os, sys, hotset
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
os.chdir(sys.argv[1])
cache = hotset.Cache(10)
for n in range(3):
    cache[n] = n
    there = hotset.Cache(10)
    print(cache.save("drop/snapshot"), there.load("drop/snapshot"))
"""


def test_a_directory_that_may_not_be_listed():
    # (Not below pytest's own folders, which only root may pass, and which runs beside this one
    # share.)
    with tempfile.TemporaryDirectory() as above:
        os.chmod(above, 0o711)
        folder = os.path.join(above, "drop")
        os.mkdir(folder)
        os.chmod(folder, 0o333)
        ended = subprocess.run([sys.executable, "-c", UNLISTED, above], capture_output=True, text=True)
        os.chmod(folder, 0o700)
        assert ended.stdout == "1 1\n2 2\n3 3\n", ended.stderr
        assert os.listdir(folder) == ["snapshot"]


@pytest.mark.parametrize("harm", ["truncate", "overwrite", "remove"])
def test_file_changed_during_load(path, harm):
    """A load reads the file first: no more of it is needed, and nothing kills the process."""
    cache = hotset.Cache(10_000)
    cache.update({n: b"x" * 100 for n in range(2000)})

    class Harming:
        dumps = staticmethod(hotset._hotset.dumps)

        @staticmethod
        def loads(data):
            match harm:
                case "truncate":
                    os.truncate(path, 0)
                case "overwrite":
                    with open(path, "r+b") as file:
                        file.write(b"\xaa" * size)
                case _:
                    path.unlink(missing_ok=True)
            return hotset._hotset.loads(data)

    cache.save(path, codec=Harming)
    size = path.stat().st_size
    again = hotset.Cache(10_000)
    assert again.load(path, codec=Harming) == 2000
    assert dict(again) == dict(cache)


def test_a_file_that_is_larger_than_memory(path):
    resource = pytest.importorskip("resource")
    with open(path, "wb") as file:
        try:
            file.truncate(64 << 30)
        except OSError:
            pytest.skip("no such files here")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, hard))
    try:
        with pytest.raises(MemoryError):
            hotset.Cache(10).load(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_warning_as_error_leaves_the_previous_file(path):
    filled(1).save(path)
    cache = filled(5)
    cache["odd"] = object()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(hotset.SnapshotWarning, match="1 of 6 entries"):
            cache.save(path)
    assert held(path) == 1 and os.listdir(path.parent) == [path.name]
    with pytest.warns(hotset.SnapshotWarning, match="1 of 6 entries"):
        assert cache.save(path) == 5
    assert held(path) == 5
