"""requests-cache's tests of any storage and of any backend, on hotset's. Its folder of tests is on
the path.
"""

from tests.integration.base_cache_test import BaseCacheTest
from tests.integration.base_storage_test import BaseStorageTest

from hotset.requests_cache import HotsetCache, HotsetStorage


class TestHotsetStorage(BaseStorageTest):
    storage_class = HotsetStorage


class TestHotsetCache(BaseCacheTest):
    backend_class = HotsetCache
