"""The clock of the second tier: nanoseconds that also advance while the machine is suspended.

(Where the system has such a clock.)
"""

import time
from functools import partial
from typing import Final

_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

now = partial(time.clock_gettime_ns, _CLOCK)
"""Returns the current time."""
