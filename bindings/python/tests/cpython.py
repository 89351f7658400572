"""CPython's own tests of functools.lru_cache, from the interpreter's `test` package, run against
hotset's.

The suite is not changed: it imports functools twice over, with and without its C part, and gets
    both with hotset's functions in them.
"""

import unittest
from typing import Any

from test.support import import_helper

import hotset

_import_fresh_module = import_helper.import_fresh_module


def _with_hotset(name: str, *args: Any, **kwargs: Any) -> Any:
    module = _import_fresh_module(name, *args, **kwargs)
    if name == "functools" and module is not None:
        module.lru_cache, module.cache = hotset.lru_cache, hotset.cache
    return module


import_helper.import_fresh_module = _with_hotset

from test import test_functools  # noqa: E402

assert type(test_functools.c_cached_func) is hotset._hotset.LruFunction


class TestCache(test_functools.TestCache, unittest.TestCase):
    module = test_functools.c_functools


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None) -> unittest.TestSuite:
    classes = (test_functools.TestLRUPy, test_functools.TestLRUC, TestCache)
    return unittest.TestSuite(map(loader.loadTestsFromTestCase, classes))


if __name__ == "__main__":
    unittest.main()
