"""What the tests share."""

import pytest


class Clock:
    """A clock that stands until it is told to go on: the `timer` of a cache under test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()
