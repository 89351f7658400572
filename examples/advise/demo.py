"""Runs programs under `hotset advise --verify`, and prints what it finds, and what that saves.

    demo.py programs [FOLDER]    three programs that use packages from PyPI
    demo.py service [FOLDER]     a small web service under load: what to cache, and how big

Figures and pictures go to FOLDER. Fails if the best candidate of a program is not the expected one,
if a hit returns another result than a call, or if the program is not faster with its caches. Of the
service's own cache, which begins too small, it prints the curve and the advice, and fails if the
advised size does not give the hit ratio that was estimated, or serves no faster.
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from curve import draw

HERE = Path(__file__).resolve().parent
# The program, the packages to record, and the best candidate.
PROGRAMS = [("templates", "pystache", "parse"), ("agents", "httpagentparser", "detect"), ("amounts", "num2words", "num2words")]

# The capacity that the service's cache begins with, and how far its hit ratio at the advised size
# may be from the estimate: the threads of the clients are interleaved differently in each run.
TOO_SMALL, TOLERANCE = 50, 0.03


def advise(name: str, include: str | None, folder: Path) -> dict[str, Any]:
    """Returns the figures of one program."""
    figures, picture, text = (folder / f"{name}.{kind}" for kind in ("json", "svg", "txt"))
    command = [sys.executable, "-m", "hotset", "advise", "--verify", "--json", str(figures), "--svg", str(picture), "--text", str(text)]
    if include is not None:
        command += ["--include", include]
    subprocess.run([*command, str(HERE / f"{name}.py")], check=True, stdout=subprocess.DEVNULL)
    print(text.read_text())
    found: dict[str, Any] = json.loads(figures.read_text())
    return found


def check(name: str, expected: str, found: dict[str, Any]) -> list[str]:
    """Returns what is wrong with the figures of a program."""
    wrong: list[str] = []
    candidates = [finding["function"] for finding in found["findings"] if finding["decorator"]]
    if candidates[:1] != [expected]:
        wrong.append(f"{name}: the best candidate is {candidates[:1]}, not {expected}")
    verification = found["verification"]
    if not verification["same_output"]:
        wrong.append(f"{name}: the output differs with caches")
    wrong += [f"{name}: hits of {each['function']} differ from calls" for each in verification["functions"] if each["different"]]
    if verification["seconds_with"] >= verification["seconds_without"]:
        wrong.append(f"{name}: it is not faster with caches")
    return wrong


def serve(capacity: int) -> dict[str, Any]:
    """Returns the figures of the service with a cache of its pages."""
    command = [sys.executable, str(HERE / "sized.py"), str(capacity)]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures


def size(folder: Path) -> list[str]:
    """Asks the cache of the service how big it should be, and tries that; returns what is wrong."""
    before = serve(TOO_SMALL)
    points = [(capacity, ratio) for capacity, ratio in before["points"]]
    longest = max(ratio for _, ratio in points) or 1.0
    print(f"the cache of the service's pages, capacity {TOO_SMALL}, after {before['per_second']:,.0f} requests per second:\n")
    for capacity, ratio in points:
        print(f"{capacity:>7,} entries {ratio:>6.1%} {'#' * round(40 * ratio / longest)}")
    print(f"\n{before['advice']}\n")
    if before["doubt"] or not before["enough"]:
        return [f"sized: the cache has no advice: {before['advice']}"]
    after = serve(before["enough"])
    print("| capacity | hits | loads | requests/s | p50 | p99 |\n|---|---|---|---|---|---|")
    for run in (before, after):
        print(
            f"| {run['capacity']:,} | {run['hit_ratio']:.1%} | {run['loads']:,} | {run['per_second']:,.0f} "
            f"| {run['p50'] * 1e3:.1f} ms | {run['p99'] * 1e3:.1f} ms |"
        )
    print()
    (folder / "sized.json").write_text(json.dumps({"before": before, "after": after}, indent=1))
    (folder / "sized.svg").write_text(draw("How big should the cache of pages be?", points, before, after))
    wrong: list[str] = []
    estimated = estimate(points, after["capacity"])
    if abs(after["hit_ratio"] - estimated) > TOLERANCE:
        wrong.append(f"sized: {after['hit_ratio']:.1%} hits at {after['capacity']}, where the curve has {estimated:.1%}")
    if after["per_second"] <= before["per_second"]:
        wrong.append("sized: it is not faster with the advised capacity")
    return wrong


def estimate(points: list[tuple[int, float]], capacity: int) -> float:
    """Returns the hit ratio of a capacity; between two points of the curve by its logarithm."""
    for (low, ratio), (high, above) in zip(points, points[1:], strict=False):
        if capacity <= high:
            return ratio + (above - ratio) * math.log(max(capacity, low) / low) / math.log(high / low)
    return points[-1][1]


def row(name: str, found: dict[str, Any]) -> str:
    """Returns a line of the table of all programs."""
    verification, best = found["verification"], found["findings"][0]
    without, with_caches = verification["seconds_without"], verification["seconds_with"]
    return f"| `{name}.py` | `{best['function']}` | `{best['decorator']}` | {without * 1e3:.0f} ms | {with_caches * 1e3:.0f} ms | {without / with_caches:.1f} |"


def main(what: str, folder: Path) -> int:
    """Runs the demo; returns the number of failures."""
    folder.mkdir(parents=True, exist_ok=True)
    programs: list[tuple[str, str | None, str]] = [*PROGRAMS] if what == "programs" else [("service", None, "page")]
    rows: list[str] = []
    wrong: list[str] = []
    for name, include, expected in programs:
        found = advise(name, include, folder)
        rows.append(row(name, found))
        wrong += check(name, expected, found)
    print("| program | best candidate | line | without | with caches | times as fast |\n|---|---|---|---|---|---|")
    print("\n".join(rows) + "\n")
    if what == "service":
        wrong += size(folder)
    print(f"figures and pictures: {folder}")
    print("\n".join(wrong))
    return len(wrong)


if __name__ == "__main__":
    if sys.argv[1:2] not in (["programs"], ["service"]):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="hotset-advise-"))))
