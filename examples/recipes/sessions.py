"""Server-side sessions: a random id in the cookie, and the data in the process until it expires.

    python examples/recipes/sessions.py
"""

import secrets
from collections.abc import Callable

import hotset

Data = dict[str, str]


class Sessions:
    """Sessions that expire `idle` seconds after their last use or `longest` after their start."""

    def __init__(self, idle: float, longest: float, maxsize: int = 100_000, timer: Callable[[], float] | None = None) -> None:
        self._held: hotset.Cache[str, Data] = hotset.Cache(maxsize, ttl=longest, tti=idle, timer=timer, name="sessions")

    def begin(self, data: Data) -> str:
        """Begins a session, and returns its id, which cannot be guessed."""
        id = secrets.token_urlsafe(32)
        self._held[id] = dict(data)
        return id

    def get(self, id: str) -> Data | None:
        """Returns a copy of the session's data, or None if it has ended. This is a use of it."""
        data = self._held.get(id)
        return None if data is None else dict(data)

    def update(self, id: str, **changes: str) -> bool:
        """Changes a session, atomically; returns whether it was present.

        Its longest lifetime is not extended.
        """
        return self._held.compute(id, lambda data: None if data is None else {**data, **changes}) is not None

    def renew(self, id: str) -> str | None:
        """Gives the session another id, as after a login; returns it, None if it has expired."""
        data = self._held.pop(id, None)
        return None if data is None else self.begin(data)

    def end(self, id: str) -> None:
        """Ends a session, as a logout does."""
        self._held.delete(id)


def main() -> None:
    now = [0.0]
    sessions = Sessions(idle=30 * 60, longest=8 * 3600, timer=lambda: now[0])
    id = sessions.begin({"cart": "tea"})
    renewed = sessions.renew(id)
    assert renewed is not None and sessions.get(id) is None
    sessions.update(renewed, user="ann")
    print(f"after the login: {sessions.get(renewed)}")
    for _ in range(3):
        now[0] += 20 * 60
        assert sessions.get(renewed) is not None
    now[0] += 31 * 60
    print(f"after 31 idle minutes: {sessions.get(renewed)}")
    assert not sessions.update(renewed, user="bob")
    id = sessions.begin({})
    used = 0
    while sessions.get(id) is not None:
        now[0] += 20 * 60
        used += 1
    print(f"in constant use it ended after {used * 20 // 60} hours")
    assert used == 24


if __name__ == "__main__":
    main()
