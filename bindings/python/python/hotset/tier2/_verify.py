"""`Redis(verify=..)`: compares entries of the first tier with the server, and counts differences.
"""

import logging
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, final

from hotset._hotset import MISSING
from hotset.tier2 import _reads
from hotset.tier2._clock import now

if TYPE_CHECKING:
    from hotset.tier2._session import Session
    from hotset.tier2._space import Space

_log = logging.getLogger("hotset")

_INTERVAL: Final = 1.0
# The greatest share of the time that a round takes. (It lists the entries of a cache.)
_SHARE_OF_TIME: Final = 0.01
_MOST_PER_ROUND: Final = 100
# Longer than an announcement may be delayed without being detected (guarantee G5).
_SETTLING: Final = 3.0


@final
class _Suspect:
    """An entry that differed from the server's value, to be compared again."""

    __slots__ = ("args", "kwargs", "mine", "space", "theirs")

    def __init__(self, space: "Space", args: tuple[Any, ...], kwargs: dict[str, Any], mine: Any, theirs: Any) -> None:
        self.space = space
        self.args = args
        self.kwargs = kwargs
        self.mine = mine
        self.theirs = theirs


@final
class Verifier:
    """The thread that compares."""

    def __init__(self, session: "Session", share: float) -> None:
        self._session = session
        self._share = share
        self._stopping = threading.Event()
        # By cache: the counted hits of the first tier, and the fraction of a comparison that is
        # due.
        self._seen: weakref.WeakKeyDictionary[Space, tuple[int, float]] = weakref.WeakKeyDictionary()
        self._thread = threading.Thread(target=self._run, name="hotset-tier2-verify", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        try:
            self._thread.start()
        except RuntimeError:
            _log.warning("second tier: failed to start the thread that verifies", exc_info=True)

    def stop(self) -> None:
        """Has the thread end soon."""
        self._stopping.set()

    def _run(self) -> None:
        pause = _INTERVAL
        while not self._stopping.wait(pause):
            begun = time.thread_time()
            try:
                self._round()
            except Exception:
                # For example, the codec raises.
                _log.exception("second tier: verifying failed, and starts again")
            pause = max(_INTERVAL, (time.thread_time() - begun) / _SHARE_OF_TIME)

    def _round(self) -> None:
        suspects: list[_Suspect] = []
        for space in self._session.all_spaces():
            suspects += self._compare(space, self._due(space))
        if not suspects or self._stopping.wait(_SETTLING):
            return
        for suspect in suspects:
            if self._is_inconsistent(suspect):
                space = suspect.space
                space.note_inconsistent()
                key = space.key_of(suspect.args, suspect.kwargs)[0].decode("ascii", "replace")
                if space.inconsistent == 1:
                    _log.warning("second tier: this process serves a value of %r that the server no longer has: %s", space.name, key)
                self._session.event("inconsistent", cache=space.name, key=key)

    def _due(self, space: "Space") -> int:
        """Returns how many entries to compare, for the hits since the last round."""
        hits = space.first.hits()
        before, rest = self._seen.get(space, (hits, 0.0))
        due = rest + self._share * max(0, hits - before)
        whole = min(_MOST_PER_ROUND, int(due))
        self._seen[space] = hits, min(due - whole, 1.0)
        return whole

    def _compare(self, space: "Space", count: int) -> list[_Suspect]:
        if not count or not self._hears_all():
            return []
        entries = space.first.entries()
        suspects: list[_Suspect] = []
        for args, kwargs, mine in random.sample(entries, min(count, len(entries))):
            if self._stopping.is_set():
                break
            theirs = self._on_server(space, args, kwargs)
            # A value that the server lacks may not have been accepted, or was evicted.
            if theirs is not MISSING:
                space.verified += 1
                if not _are_equal(space, mine, theirs):
                    suspects.append(_Suspect(space, args, kwargs, mine, theirs))
        return suspects

    def _is_inconsistent(self, suspect: _Suspect) -> bool:
        """Returns whether an entry that differed, and the server's other value, are still the same.
        """
        space = suspect.space
        if not self._hears_all() or space.first.peek(suspect.args, suspect.kwargs) is not suspect.mine:
            return False
        theirs = self._on_server(space, suspect.args, suspect.kwargs)
        return theirs is not MISSING and _are_equal(space, theirs, suspect.theirs) and self._hears_all()

    def _hears_all(self) -> bool:
        """Returns whether all servers announce changes; without that, `local_ttl` is the bound."""
        nodes: dict[int, dict[str, Any]] = self._session.core.stats(now())["nodes"]
        return bool(nodes) and all(node["bus"] == "armed" or node["link"] == "idle" for node in nodes.values())

    @staticmethod
    def _on_server(space: "Space", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _reads.read(space, args, kwargs, None).value


def _are_equal(space: "Space", one: Any, other: Any) -> bool:
    """Returns whether two values have the same encoding, or are equal."""
    if space.codec.encode(one) == space.codec.encode(other):
        return True
    try:
        return bool(one == other)
    except Exception:
        return False
