"""A plugin for pytest that puts hotset's storages in the place of hishel's SQLite storages."""

import time
from typing import Any

import hishel
from hishel._core._storages import _async_sqlite, _sync_sqlite

from hotset.hishel import HotsetStorage, SyncHotsetStorage

_FOREIGN = ("connection", "database_path", "max_size", "soft_delete_ttl")


def _ours(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a SQLite storage without those of databases; with the clock that
    tests move.
    """
    ours = {name: value for name, value in settings.items() if name not in _FOREIGN}
    if settings.get("max_size") is not None:
        ours["max_bytes"] = settings["max_size"]
    return {**ours, "timer": time.time}


class AsyncSqliteStorage(HotsetStorage):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**_ours(settings))


class SqliteStorage(SyncHotsetStorage):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**_ours(settings))


hishel.AsyncSqliteStorage = AsyncSqliteStorage
hishel.SqliteStorage = SqliteStorage
# The tests of the storages import them from where they are defined.
_async_sqlite.AsyncSqliteStorage = AsyncSqliteStorage
_sync_sqlite.SqliteStorage = SqliteStorage
