"""Runs programs under `hotset advise --verify`, and prints what it finds, and what that saves.

    demo.py programs [FOLDER]    three programs that use packages from PyPI
    demo.py service [FOLDER]     a small web service under load

Figures and pictures go to FOLDER. Fails if the best candidate of a program is not the expected one,
if a hit returns another result than a call, or if the program is not faster with its caches.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# The program, the packages to record, and the best candidate.
PROGRAMS = [("templates", "pystache", "parse"), ("agents", "httpagentparser", "detect"), ("amounts", "num2words", "num2words")]


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
    print("\n".join(rows))
    print(f"figures and pictures: {folder}")
    print("\n".join(wrong))
    return len(wrong)


if __name__ == "__main__":
    if sys.argv[1:2] not in (["programs"], ["service"]):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="hotset-advise-"))))
