"""`hotset.django.TieredCache`: its settings, `manage.py hotset`, and `invalidate_on_commit`."""

import asyncio
import io
import os
import threading
from unittest import mock

import pytest
from tiered_project import armed, backend, cache, default, name, server, shared_server  # noqa: F401  # isort: skip
from django.core.cache import caches
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import transaction
from django.test import override_settings
from servers import wait_until
from tiered_project import BACKEND

from hotset.django import HotsetCache, TieredCache, ainvalidate_on_commit, invalidate_on_commit

# --- Settings.

URL = "redis://localhost:1/0"


def client(**timeouts):
    raise AssertionError("it is not called")


@pytest.mark.parametrize(
    ("location", "params", "text"),
    [
        (7, {}, "LOCATION must be a URL, or a list of them, not 7"),
        ("", {}, "LOCATION must be the URL of a Redis or Valkey server, as redis://localhost:6379/0"),
        ("shop", {}, "URL must begin with one of redis://, rediss://, unix://"),
        ("http://localhost", {}, "URL must begin with one of"),
        ("redis://localhost/shop", {}, "URL names the database 'shop'"),
        ([URL, "nonsense"], {}, "URL must begin with one of"),
        ([URL, "unix:///redis.sock"], {}, "LOCATION names several servers: all by redis://, or all by rediss://"),
        ([URL, "rediss://localhost"], {}, "LOCATION names several servers: all by redis://, or all by rediss://"),
        (URL, {"OPTIONS": {"client": client}}, "OPTIONS client connects to the server: give no LOCATION"),
        (URL, {"OPTIONS": {"sentinel": ""}}, "OPTIONS sentinel must be the name of a service"),
        (URL, {"TIMEOUT": "soon"}, "TIMEOUT must be a number of seconds, or None for no expiration, not 'soon'"),
        (URL, {"OPTIONS": ["a"]}, "OPTIONS must be a dict"),
        (URL, {"OPTIONS": {"local_tll": 5}}, "unknown OPTIONS: local_tll; known are CULL_FREQUENCY, MAX_ENTRIES, autosize, bus, client, "),
        (URL, {"OPTIONS": {"local_ttl": 0}}, "local_ttl must be more than 0 seconds"),
        (URL, {"OPTIONS": {"local_ttl": "5"}}, "local_ttl must be a number of seconds"),
        (URL, {"OPTIONS": {"timeout": 0}}, "timeout must be more than 0"),
        (URL, {"OPTIONS": {"prefix": ""}}, "prefix must not be empty"),
        (URL, {"OPTIONS": {"name": ""}}, "name must not be empty"),
        (URL, {"OPTIONS": {"MAX_ENTRIES": -1}}, "MAX_ENTRIES must be"),
        (URL, {"OPTIONS": {"copy": "deep"}}, "copy must be one of pickle, none"),
        (URL, {"OPTIONS": {"codec": "yaml"}}, "codec must be one of"),
        (URL, {"OPTIONS": {"codec": "no.such.module"}}, "No module named 'no'"),
        (URL, {"OPTIONS": {"sign": None}}, "codec 'pickle' needs sign"),
        (URL, {"OPTIONS": {"sign": "short"}}, "sign must have at least 16 characters, not 5"),
        (URL, {"OPTIONS": {"sign": 7}}, "sign must be a str, bytes, or None"),
        (URL, {"OPTIONS": {"schema": 1.5}}, "schema must be an int, a str or None"),
        (URL, {"OPTIONS": {"tags": "menu"}}, "tags must be a list of strings, not 'menu'"),
        (URL, {"OPTIONS": {"bus": "pubsub"}}, "bus must be 'auto' or None"),
        (URL, {"OPTIONS": {"policy": "mru"}}, "policy must be one of"),
    ],
)
def test_wrong_setting_is_an_error(location, params, text):
    with pytest.raises(ImproperlyConfigured) as error:
        TieredCache(location, params)
    assert text in str(error.value)
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": location, **params}}):
        with pytest.raises(ImproperlyConfigured) as error:
            run_checks(tags=["caches"])
    assert text in str(error.value) and "CACHES['default']" in str(error.value)


def test_empty_secret_key_is_an_error():
    with override_settings(SECRET_KEY=""), pytest.raises(ImproperlyConfigured, match="SECRET_KEY"):
        TieredCache(URL, {})


def test_missing_client_library_is_an_error():
    with mock.patch("hotset.tier2._client.importlib.import_module", side_effect=ImportError):
        with pytest.raises(ImproperlyConfigured, match=r"pip install 'hotset\[redis\]'"):
            TieredCache("redis://localhost:2/0", {})


def test_setting_without_effect_is_a_warning():
    one = {"BACKEND": BACKEND, "LOCATION": URL}
    with override_settings(
        CACHES={
            "default": {**one, "MAX_ENTRIES": 5, "OPTIONS": {"CULL_FREQUENCY": 2}},
            "same": {**one, "OPTIONS": {"MAX_ENTRIES": 5, "local_ttl": 1, "name": "other"}},
            "apart": {**one, "OPTIONS": {"prefix": "other", "timeout": 1}},
            "other": {**one, "OPTIONS": {"timeout": 1}},
        }
    ):
        found = run_checks(tags=["caches"])
    assert [message.id for message in found] == ["hotset.W001", "hotset.W001", "hotset.W003"]
    assert "CACHES['other']: OPTIONS timeout differ from those of 'default'" in found[-1].msg


# --- The command.


def said(*arguments, **options):
    out, err = io.StringIO(), io.StringIO()
    call_command("hotset", *arguments, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def test_command(default, backend):
    other = backend(process=1)
    armed(default, other)
    default.set("hot", 1)
    other.set("cold", 2)
    for _ in range(3):
        assert (default.get("hot"), other.get("hot"), default.get("cold")) == (1, 1, 2)
    wait_until(lambda: default.get("hot") and len(default.top_keys()) == 2, what="values in the first tier")
    out, err = said("stats")
    assert "default: 2 entries of 10,000, " in out
    assert "link up, announcements armed" in out
    assert f"of process {os.getpid()}: what other processes hold and have counted is not seen from here" in err
    assert said("top", "default", limit=1)[0] in ("default: :1:hot\n", "default: :1:cold\n")
    assert said("clear")[0] == "default: cleared in all processes\n"
    assert default.get("hot") is None
    wait_until(lambda: other.get("hot") is None, what="the clear, in the other process")


# --- Transactions.


@pytest.fixture(params=["process", "tiered"])
def removable(request, backend):
    cache = HotsetCache("commits", {}) if request.param == "process" else backend()
    cache.set_many({"key": 1, "other": 2})
    return cache


def test_commit_removes(removable):
    with transaction.atomic():
        invalidate_on_commit(removable, "key", "other")
        assert removable.get_many(["key", "other"]) == {"key": 1, "other": 2}
    assert removable.get_many(["key", "other"]) == {}


def test_commit_of_a_nested_transaction_removes_at_the_end(removable):
    with transaction.atomic():
        with transaction.atomic():
            invalidate_on_commit(removable, "key")
        assert removable.get("key") == 1
    assert removable.get_many(["key", "other"]) == {"other": 2}


def test_rollback_removes_nothing(removable):
    with pytest.raises(LookupError):
        with transaction.atomic():
            invalidate_on_commit(removable, "key")
            raise LookupError
    with transaction.atomic():
        with pytest.raises(LookupError):
            with transaction.atomic():
                invalidate_on_commit(removable, "key")
                raise LookupError
        invalidate_on_commit(removable, "other")
    assert removable.get_many(["key", "other"]) == {"key": 1}


def test_without_a_transaction_removes_immediately(removable):
    invalidate_on_commit(removable, "key")
    assert removable.get_many(["key", "other"]) == {"other": 2}


def test_commit_from_a_coroutine_removes(removable):
    from asgiref.sync import sync_to_async

    async def alone():
        await ainvalidate_on_commit(removable, "key")
        return await removable.aget("key")

    @sync_to_async
    def within():
        with transaction.atomic():
            invalidate_on_commit(removable, "other")
            return removable.get("other")

    async def main():
        return await alone(), await within(), await removable.aget("other")

    assert asyncio.run(main()) == (None, 2, None)


def test_commit_of_a_version_and_of_an_alias(removable):
    removable.set("key", 3, version=2)
    invalidate_on_commit(removable, "key", version=2)
    assert removable.get("key") == 1 and removable.get("key", version=2) is None
    caches["default"].set("key", 1)
    with transaction.atomic():
        invalidate_on_commit("default", "key")
    assert caches["default"].get("key") is None


def test_commit_of_tags(cache):
    cache.set("key", 1, tags=["menu"])
    with transaction.atomic():
        invalidate_on_commit(cache, tags=["menu"])
        assert cache.get("key") == 1
    assert cache.get("key") is None
    with pytest.raises(TypeError, match="tags need a cache with invalidate_tag"):
        invalidate_on_commit(HotsetCache("", {}), tags=["menu"])
    for wrong in ({}, {"tags": "menu"}):
        with pytest.raises(TypeError):
            invalidate_on_commit(cache, **wrong)


def test_commit_invalidates_loads_in_flight(backend):
    """A load that began before the commit does not bring the old value back."""
    cache, other = backend(), backend(process=1)
    inside, go_on = threading.Event(), threading.Event()

    def old():
        inside.set()
        go_on.wait()
        return "old"

    loading = threading.Thread(target=other.get_or_set, args=("key", old))
    loading.start()
    inside.wait()
    with transaction.atomic():
        invalidate_on_commit(cache, "key")
    go_on.set()
    loading.join()
    assert cache.get("key") is None
    wait_until(lambda: other.get("key") is None, what="the announcement")
