"""A parser: the browsers of an access log, by httpagentparser from their user agents."""

import collections
import random

import httpagentparser

BROWSERS = ("Chrome/{}.0.0.0 Safari/537.36", "Version/{}.1 Safari/605.1.15", "Firefox/{}.0", "Chrome/{}.0.0.0 Safari/537.36 Edg/{}.0")
SYSTEMS = ("Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64", "Linux; Android 14; Pixel 8", "iPhone; CPU iPhone OS 17_4 like Mac OS X")


def log(lines: int) -> list[str]:
    """Returns the user agents of a log: few are frequent, many are rare."""
    chance = random.Random(2)
    agents = [
        f"Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) {browser.format(version, version)}"
        for version in range(80, 130)
        for browser in BROWSERS
        for system in SYSTEMS
    ]
    chance.shuffle(agents)
    weights = [1 / (rank + 1) for rank in range(len(agents))]
    return chance.choices(agents, weights, k=lines)


def main() -> None:
    """Counts the browsers in 5,000 lines."""
    counts: collections.Counter[str] = collections.Counter()
    for agent in log(5000):
        counts[httpagentparser.detect(agent).get("browser", {}).get("name", "?")] += 1
    for name, count in counts.most_common():
        print(f"{count:5} {name}")


if __name__ == "__main__":
    main()
