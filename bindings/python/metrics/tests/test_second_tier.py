"""The second tier's counters, with a redis-server of the test's own."""

import sys
from pathlib import Path

import hotset
import hotset.prometheus
import pytest
from conftest import ROOT, lint
from hotset.tier2 import Redis
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

sys.path.insert(0, str(ROOT / "bindings" / "python" / "tests" / "tier2"))

import servers  # noqa: E402


@pytest.fixture
def shop(tmp_path):
    with servers.Server(tmp_path) as server:
        shop = Redis(server.url, prefix="shop", timeout=5.0, connect_timeout=5.0)
        yield shop
        shop.close()


def test_second_tier_of_caches_and_functions(shop):
    registry = CollectorRegistry()
    registry.register(hotset.prometheus.Collector())
    value = registry.get_sample_value
    prices = hotset.TieredCache(shop, "metrics: prices", maxsize=100, ttl=60)

    @hotset.cached(maxsize=100, ttl=60, tier2=shop, name="metrics: product")
    def product(number):
        return {"number": number}

    # Nothing connects to a server because metrics are read.
    assert b"hotset_cache_tier2_requests_total{" not in generate_latest(registry)
    assert value("hotset_cache_capacity", {"cache": "metrics: prices"}) == 100
    prices.get_or_load("tea", lambda key: 3.2)
    prices.get_or_load("tea", lambda key: 3.2)
    product(7)
    other = hotset.TieredCache(shop, "metrics: prices", maxsize=100, ttl=60)
    assert other.get("tea") == 3.2
    for cache, hits, misses in (("metrics: product", 0, 1), ("metrics: prices", 1, 0)):
        # (Of the two caches of a name, the one that was created last.)
        assert value("hotset_cache_tier2_requests_total", {"cache": cache, "result": "hit"}) == hits
        assert value("hotset_cache_tier2_requests_total", {"cache": cache, "result": "miss"}) == misses
    assert value("hotset_cache_tier2_loads_total", {"cache": "metrics: product", "result": "success"}) == 1
    assert value("hotset_cache_tier2_fills_total", {"cache": "metrics: product", "result": "confirmed"}) == 1
    lint(generate_latest(registry).decode())
    del prices


def test_every_field_of_the_second_tier_exists(shop):
    prices = hotset.TieredCache(shop, "metrics: fields", ttl=60)
    prices.set("tea", 3.2)
    from hotset._metrics import HOTSET, flat, read

    figures = flat(read()["metrics: fields"][1])
    for metric in HOTSET:
        assert [value for value, _ in metric.values(figures)] == list(metric.series), metric.name


def test_push_when_a_plain_cache_takes_the_name_of_a_tiered_one(shop):
    prices = hotset.TieredCache(shop, "metrics: plain", ttl=60)
    hotset.prometheus.push()
    prices.get_or_load("tea", lambda key: 3.2)
    hotset.prometheus.push()
    plain = hotset.Cache(10, name="metrics: plain")
    plain.get("tea")
    hotset.prometheus.push()
    value = REGISTRY.get_sample_value
    assert value("hotset_cache_tier2_requests_total", {"cache": "metrics: plain", "result": "miss"}) == 1
    assert value("hotset_cache_requests_total", {"cache": "metrics: plain", "result": "miss"}) == 2
