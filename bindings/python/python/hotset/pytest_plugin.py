"""A plugin for pytest that clears all caches of the process between tests.

pytest finds it by itself where hotset is installed. For all tests, by a setting:

    [tool.pytest.ini_options]
    hotset_clear = true

For some, by a fixture:

    def test_a_price(hotset_clear):
        ...  # every cache of the process is empty here

    pytestmark = pytest.mark.usefixtures("hotset_clear")  # for all tests of a module
"""

from collections.abc import Iterator

import pytest


def _cleared() -> Iterator[None]:
    # Imported here: pytest imports this module in processes that do not use hotset.
    import hotset

    hotset.clear_all()
    yield
    hotset.clear_all()


@pytest.fixture
def hotset_clear() -> Iterator[None]:
    """Clears all caches of the process before and after the test (`hotset.clear_all`)."""
    yield from _cleared()


class _ForAllTests:
    """Clears all caches around every test. Registered only where the setting is on."""

    @pytest.fixture(autouse=True)
    def _hotset_clear_for_all(self) -> Iterator[None]:
        yield from _cleared()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the setting `hotset_clear`.

    Args:
        parser: The parser of pytest's settings.
    """
    parser.addini("hotset_clear", "empty all caches of hotset before and after each test", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Registers the fixture for all tests if the setting is on.

    Args:
        config: The configuration of pytest.
    """
    if config.getini("hotset_clear"):
        config.pluginmanager.register(_ForAllTests())
