"""Settings for Django's test suite: hotset in the place of LocMemCache, which most tests of the
cache framework name.
"""

from django.core.cache.backends import locmem
from hotset_settings import *  # noqa: F403

from hotset.django import HotsetCache

locmem.LocMemCache = HotsetCache
