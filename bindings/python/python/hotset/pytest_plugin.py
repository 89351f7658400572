"""A fixture for pytest, which finds it by itself where hotset is installed.

Example:
    def test_a_price(hotset_clear):
        ...  # every cache of the process is empty here

    pytestmark = pytest.mark.usefixtures("hotset_clear")  # for all tests of a module
"""

from collections.abc import Iterator

import pytest


@pytest.fixture
def hotset_clear() -> Iterator[None]:
    """All caches of the process are empty when the test begins, and are emptied when it ends (`hotset.clear_all`)."""
    # (Imported here: pytest imports this module in processes that do not use hotset.)
    import hotset

    hotset.clear_all()
    yield
    hotset.clear_all()
