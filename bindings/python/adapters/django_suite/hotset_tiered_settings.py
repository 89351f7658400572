"""Settings for Django's test suite: TieredCache as the default cache."""

from test_sqlite import *  # noqa: F403

CACHES = {"default": {"BACKEND": "hotset_suite.backends.SuiteCache"}}
