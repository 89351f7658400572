"""The pytest plugin, in processes of its own."""

import subprocess
import sys

import pytest

TESTS = """
import hotset

def test_first():
    assert "key" not in hotset.shared("plugin")
    hotset.shared("plugin")["key"] = 1

def test_second():
    {second}
"""


def outcome(folder, second, *options):
    (folder / "test_it.py").write_text(TESTS.format(second=second))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", folder, *options, folder]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize(("options", "second"), [([], 'assert "key" in'), (["-o", "hotset_clear=true"], 'assert "key" not in')])
def test_setting_clears_between_all_tests(options, second, tmp_path):
    done = outcome(tmp_path, f'{second} hotset.shared("plugin")', *options)
    assert "2 passed" in done.stdout, done.stdout


def test_fixture_clears_before_and_after(tmp_path):
    (tmp_path / "conftest.py").write_text('import hotset\nhotset.shared("plugin")["key"] = 1\n')
    body = """pass

def test_third(hotset_clear):
    assert not hotset.shared("plugin")
    hotset.shared("plugin")["key"] = 1

def test_fourth():
    assert not hotset.shared("plugin")
"""
    done = outcome(tmp_path, body, "-k", "third or fourth")
    assert "2 passed" in done.stdout, done.stdout

