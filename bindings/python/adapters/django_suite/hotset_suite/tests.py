"""Django's tests of any cache backend, on hotset's."""

from cache.tests import BaseCacheTests, caches_setting_for_tests
from django.test import TestCase, override_settings


# (Culling is LocMemCache's way to make room; without these aliases its tests skip themselves, as
# they do for memcached and Redis.)
@override_settings(CACHES=caches_setting_for_tests(BACKEND="hotset.django.HotsetCache", exclude={"cull", "zero_cull"}))
class HotsetCacheTests(BaseCacheTests, TestCase):
    def skipTest(self, reason):
        assert "cull" in self._testMethodName, f"{self}: skipped, {reason}"
        super().skipTest(reason)
