"""Fixtures of the tests, and a check that free-threaded interpreters run them without the GIL."""

import signal
import sys
import sysconfig

import pytest

# A background command of a shell ignores interrupts, and its child processes would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def has_unexpected_gil() -> bool:
    return FREE_THREADED and sys._is_gil_enabled()


def pytest_collection_finish() -> None:
    if has_unexpected_gil():
        raise pytest.UsageError(
            "the GIL of this free-threaded interpreter is on: unset PYTHON_GIL, and uninstall the "
            "extension module that turned it on (CPython warns of it by name)"
        )


@pytest.fixture(autouse=True)
def gil_that_stays_off():
    yield
    assert not has_unexpected_gil(), "an extension module turned the GIL on (CPython warns of it by name)"


class Clock:
    """A clock that only advances by `advance`: the `timer` of a cache under test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()
