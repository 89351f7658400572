"""Settings for Django's test suite: hotset as the default cache."""

from test_sqlite import *  # noqa: F403

CACHES = {"default": {"BACKEND": "hotset.django.HotsetCache"}}
