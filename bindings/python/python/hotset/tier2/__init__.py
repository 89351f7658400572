"""The second tier: caches of this process in front of Redis, Valkey or memcached servers.

All processes share the servers. `Redis` or `Memcached` names them; `hotset.TieredCache` and
`hotset.cached(.., tier2=)` are caches on them. `Redis` needs redis-py or valkey-py:
`pip install 'hotset[redis]'`.
"""

from hotset.tier2._cache import TieredCache
from hotset.tier2._errors import Unavailable
from hotset.tier2._memcached_server import Memcached
from hotset.tier2._server import Redis

__all__ = ["Memcached", "Redis", "TieredCache", "Unavailable"]
