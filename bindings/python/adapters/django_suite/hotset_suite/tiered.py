"""Django's tests of any cache backend, on TieredCache."""

import os

from cache.tests import BaseCacheTests, caches_setting_for_tests
from django.test import TestCase, override_settings

from hotset_suite.backends import PATIENT


@override_settings(
    CACHES=caches_setting_for_tests(
        BACKEND="hotset.django.TieredCache", LOCATION=os.environ["HOTSET_SUITE_REDIS"], OPTIONS=PATIENT, exclude={"cull", "zero_cull"}
    )
)
class TieredCacheTests(BaseCacheTests, TestCase):
    def skipTest(self, reason):
        assert "cull" in self._testMethodName, f"{self}: skipped, {reason}"
        super().skipTest(reason)
