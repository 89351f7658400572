"""The second tier: caches of this process in front of a Redis or Valkey server.

All processes share the server. `Redis` names it; `hotset.TieredCache` and `hotset.cached(..,
tier2=)` are caches on it. Needs redis-py or valkey-py: `pip install 'hotset[redis]'`.
"""

from hotset.tier2._cache import TieredCache
from hotset.tier2._errors import Unavailable
from hotset.tier2._server import Redis

__all__ = ["Redis", "TieredCache", "Unavailable"]
