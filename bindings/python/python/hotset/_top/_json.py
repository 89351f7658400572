"""Snapshots as JSON: what `--json` prints, and the endpoint of `hotset.dashboard`."""

import math
from typing import Any

from hotset._top._model import Row, Snapshot, quantile


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def as_json(snapshot: Snapshot) -> dict[str, Any]:
    """Returns a snapshot as a document: dicts, lists, numbers, strings and None.

    Args:
        snapshot: The snapshot.
    """
    return {
        "time": snapshot.time,
        "operations_per_second": snapshot.operations,
        "recent_hit_ratio": snapshot.recent_ratio,
        "saved_seconds": snapshot.saved,
        "omitted": snapshot.omitted,
        "processes": [
            {
                "pid": process.pid,
                "program": process.program,
                "kind": process.kind,
                "alive": process.alive,
                "time": process.time,
                "caches": len(process.caches),
            }
            for process in snapshot.processes
        ],
        "caches": [_row(row) for row in snapshot.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "program": row.program,
        "kind": row.kind,
        "pids": [member.process.pid for member in row.members],
        "hit_ratio": row.hit_ratio,
        "recent_hit_ratio": row.recent_ratio,
        "operations_per_second": row.operations,
        "history": list(row.history),
        **row.totals,
        "per_second": row.rates,
        "entries": row.entries,
        "weight": row.weight,
        "weighted": row.weighted,
        "capacity": row.capacity,
        "fill": row.fill,
        "bytes": row.bytes,
        "mean_load_seconds": row.mean_load,
        "median_load_seconds": quantile(row.buckets, 0.5),
        "p99_load_seconds": quantile(row.buckets, 0.99),
        "saved_seconds": row.saved,
        "load_buckets": [{"upper_seconds": _finite(upper), "loads": loads} for upper, loads in row.buckets],
        "curve": [point._asdict() for point in row.curve],
        "curve_processes": row.curve_members,
        "tier2": row.tier2,
    }
