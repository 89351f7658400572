"""A plugin for pytest that empties all caches of the process between tests.

pytest finds it by itself where hotset is installed.

For all tests, in the settings of pytest:

    [tool.pytest.ini_options]
    hotset_clear = true

For some, by a fixture:

Example:
    def test_a_price(hotset_clear):
        ...  # every cache of the process is empty here

    pytestmark = pytest.mark.usefixtures("hotset_clear")  # for all tests of a module
"""

from collections.abc import Iterator

import pytest


def _cleared() -> Iterator[None]:
    # (Imported here: pytest imports this module in processes that do not use hotset.)
    import hotset

    hotset.clear_all()
    yield
    hotset.clear_all()


@pytest.fixture
def hotset_clear() -> Iterator[None]:
    """Empties all caches of the process before and after the test (`hotset.clear_all`)."""
    yield from _cleared()


class _ForAllTests:
    """Registered where the setting is on: others' tests pay nothing for it."""

    @pytest.fixture(autouse=True)
    def _hotset_clear_for_all(self) -> Iterator[None]:
        yield from _cleared()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the setting `hotset_clear`."""
    parser.addini("hotset_clear", "empty all caches of hotset before and after each test", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Has all tests cleared between, if the setting is on."""
    if config.getini("hotset_clear"):
        config.pluginmanager.register(_ForAllTests())
