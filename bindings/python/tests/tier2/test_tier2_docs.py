"""Runs what is printed about the second tier: its page, its docstrings, its command."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import servers
from servers import wait_until

import hotset.tier2
from hotset.tier2 import Redis, Unavailable

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs" / "in-front-of-redis.md"


def run(*command):
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_pages_python_runs_as_printed(server, tmp_path):
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks(PAGE, "python")).replace("redis://localhost:6379/0", server.url))
    done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_the_python_of_the_page_on_memcached_runs(tmp_path):
    if not servers.HAS_MEMCACHED:
        pytest.skip("there is no memcached: make tools-memcached")
    with servers.MemcachedServer() as one, servers.MemcachedServer() as two:
        text = "\n".join(blocks(PAGE.with_name("in-front-of-memcached.md"), "python"))
        text = text.replace("10.0.0.1:11211", one.address).replace("10.0.0.2:11211", two.address)
        program = tmp_path / "page.py"
        program.write_text(text + "\nassert shop.stats()['last_failure'] is None")
        done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_check_of_the_page_names_errors(tmp_path):
    first, *_, check = (block for block in blocks(PAGE, "python") if "Redis(" in block or "check()" in block)
    program = tmp_path / "page.py"
    program.write_text((first + check).replace("redis://localhost:6379/0", "redis://127.0.0.1:1/0"))
    done = run(program)
    assert done.returncode == 1 and "no cache server: cannot connect to 127.0.0.1:1" in done.stderr


def test_every_block_of_the_page_is_tested():
    """Those of Python and of the shell by the tests here, the demo's output by `test_tier2_demo`:
    another kind needs a test of its own.
    """
    languages = re.findall(r"^```(\w+)$", PAGE.read_text(), re.MULTILINE)
    assert set(languages) == {"python", "sh", "text"}
    assert blocks(PAGE, "sh") == ["make demo-tier2\n", "python -m hotset tier2 redis://localhost:6379/0\n"]


@pytest.mark.parametrize("name", [name for _, name, _ in pkgutil.iter_modules(hotset.tier2.__path__, "hotset.tier2.")])
def test_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_command_reports_abilities_of_a_server(server):
    done = run("-m", "hotset", "tier2", server.url)
    assert done.returncode == 0, done.stderr
    for expected in ("tracking             yes", "scripts              yes", "bus: armed", "hit in the second tier", "until seen elsewhere"):
        assert expected in done.stdout


def test_command_reports_errors():
    done = run("-m", "hotset", "tier2", "redis://127.0.0.1:1/0")
    assert done.returncode == 1 and "cannot connect" in done.stderr
    done = run("-m", "hotset", "tier2", "http://x")
    assert done.returncode == 2 and "URL must begin" in done.stderr


def test_check_returns_a_description_of_the_server(server, tier2):
    [about] = tier2(server).check().values()
    assert about["tracking"] is True and about["scripts"] is True and about["server"].startswith(("Redis", "Valkey"))


def test_check_raises_if_a_requirement_is_missing(server):
    server.ask("ACL", "SETUSER", "few", "on", ">secret-password-1234", "~*", "&*", "+@all", "-client")
    try:
        for require, is_there in (("bus", False), ("lease", True)):
            shop = Redis(f"redis://few:secret-password-1234@127.0.0.1:{server.port}", prefix="shop", require=require)
            if is_there:
                shop.check()
            else:
                with pytest.raises(Unavailable, match="require='bus'"):
                    shop.check()
            shop.close()
        with pytest.raises(Unavailable, match="cannot connect"):
            Redis("redis://127.0.0.1:1/0", prefix="shop").check()
    finally:
        server.ask("ACL", "DELUSER", "few")


def test_events_are_reported(own_server, tier2, cache):
    events = []
    prices = cache(own_server, on_event=lambda name, details: events.append(name))
    prices.set("a", 1)
    wait_until(lambda: "bus" in events, what="the bus")
    own_server.kill()
    prices.get_or_load("b", lambda key: 1)
    wait_until(lambda: "down" in events, what="the outage")
    own_server.start()
    wait_until(lambda: "up" in events, what="the end of the outage")


def test_event_handler_that_raises_is_logged(own_server, cache, caplog):
    def fail(name, details):
        raise ValueError("broken handler")

    prices = cache(own_server, on_event=fail)
    own_server.kill()
    assert prices.get_or_load("b", lambda key: 1) == 1
    # Another thread may be the one that calls `on_event`.
    wait_until(lambda: "on_event raised" in caplog.text, what="the warning")


def test_the_pages_rights_suffice(own_server, tier2, cache):
    """A user with the rights that the page lists, and no others, has all of it."""
    from conftest import armed

    listed = re.search(r"\*\*Rights\*\*: (.*?);\s+on\s+keys\s+`PREFIX:\*`\s+and\s+`!hotset:\*`", PAGE.read_text(), re.DOTALL)
    assert listed is not None
    commands = [f"+{name.lower().replace(' ', '|')}" for name in re.findall(r"`([A-Z ]+)`", listed[1])]
    own_server.ask("ACL", "SETUSER", "few", "on", ">secret-password-1234", "resetkeys", "~shop:*", "~!hotset:*", "-@all", *commands)
    url = f"redis://few:secret-password-1234@127.0.0.1:{own_server.port}"
    [about] = tier2(url, require=("bus", "lease")).check().values()
    assert about["tracking"] is True and about["scripts"] is True
    one, other = cache(url), cache(url)
    armed(one, other)
    assert one.get_or_load("a", lambda key: 1) == 1 and other.get("a") == 1
    assert one.set("b", 2) and one.touch("b") and one.expire("b") and one.delete("a") and one.add("c", 3)
    assert one.incr("n", ttl=60) == 1 and one.incr("n") == 2
    assert one.set("d", 4, tags=("t",)) and one.invalidate_tag("t") and one.clear()
    wait_until(lambda: other.get_many(["a", "b", "c", "d"]) == {}, what="the clear")
    counted = one.stats()["server"]
    assert counted["noperm"] == counted["other_errors"] == 0
