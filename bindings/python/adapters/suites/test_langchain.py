"""LangChain's tests of any cache, on hotset's."""

import pytest
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite

from hotset.langchain import HotsetCache


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self):
        return HotsetCache()


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self):
        return HotsetCache()
