"""dogpile.cache's tests of any backend, on hotset's."""

from dogpile.testing.fixtures import _GenericBackendTestSuite, _GenericSerializerTestSuite


class TestHotset(_GenericBackendTestSuite):
    backend = "hotset"
    config_args = {"arguments": {"max_entries": 1000, "ttl": 3600}}


class TestHotsetSerializer(_GenericSerializerTestSuite, TestHotset):
    pass


class TestHotsetPickle(TestHotset):
    backend = "hotset_pickle"
