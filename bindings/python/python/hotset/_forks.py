"""Hooks for forks, on the systems that have forks."""

import os
from collections.abc import Callable


def at_fork(child: Callable[[], object], parent: Callable[[], object] | None = None) -> None:
    """Has `child` called in each child of a fork, and `parent` in its parent, after the fork.

    Does nothing on Windows, which has no forks.
    """
    register = getattr(os, "register_at_fork", None)
    if register is None:
        return
    if parent is None:
        register(after_in_child=child)
    else:
        register(after_in_parent=parent, after_in_child=child)
