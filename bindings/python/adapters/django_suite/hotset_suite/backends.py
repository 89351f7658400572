"""TieredCache as Django's suite can name it: LOCATION is a name there, and the suite's processes,
which clear their caches, share a server.
"""

import os

from hotset.django import TieredCache

# (Every operation must be confirmed, also on a busy machine.)
PATIENT = {"timeout": 5.0, "connect_timeout": 5.0}


class SuiteCache(TieredCache):
    def __init__(self, location, params):
        own = {**PATIENT, "prefix": f"suite{os.getpid()}", "name": location or "default"}
        super().__init__(os.environ["HOTSET_SUITE_REDIS"], {**params, "OPTIONS": {**params.get("OPTIONS", {}), **own}})
