"""Runs a command with a redis-server of its own, on a free port of loopback: its URL is in
HOTSET_SUITE_REDIS.

    python with_redis.py COMMAND..
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "tier2"))

import servers  # noqa: E402

if not servers.HAS_REDIS:
    sys.exit("there is no redis-server: make tools-redis")
with tempfile.TemporaryDirectory() as folder, servers.Server(Path(folder)) as server:
    status = subprocess.run(sys.argv[1:], env={**os.environ, "HOTSET_SUITE_REDIS": server.url}, check=False).returncode
sys.exit(status)
