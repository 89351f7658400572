"""Settings for Django's test suite: TieredCache in the place of LocMemCache, which most tests of
the cache framework name.
"""

from django.core.cache.backends import locmem
from hotset_suite.backends import SuiteCache
from hotset_tiered_settings import *  # noqa: F403

locmem.LocMemCache = SuiteCache
