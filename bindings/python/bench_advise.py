"""What recording costs: processor time of programs with a million calls, with and without it.

    bench_advise.py [--quick]

Each program runs in turns with and without `hotset.advise()`, each time in a process of its own.
Printed are medians, and the ratio, which should stay below 2.
"""

import statistics
import subprocess
import sys

# A program's text, and its calls. `main` is called once.
PROGRAMS = {
    "a mixture": """
class Point:
    def __init__(self, x):
        self.x = x
    def norm(self):
        return self.scale(self.x) % 97
    def scale(self, factor):
        return factor * 3 + 1
def words(text):
    return text.split()
def count(text):
    found = {}
    for word in words(text):
        found[word] = found.get(word, 0) + 1
    return found
def main():
    texts = ["a b c d e f g h %d" % number for number in range(100)]
    for number in range(200_000):
        Point(number % 100).norm()
        count(texts[number % 100])
""",
    "a small function": """
def square(x):
    return x * x + 1
def main():
    total = 0
    for number in range(1_000_000):
        total += square(number % 1000)
""",
    "calls only": """
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
def main():
    fib(28)
    fib(24)
""",
}
MEASURE = """
import sys, time
import hotset
names = {}
exec(compile(sys.argv[1], "/tmp/program.py", "exec"), names)
advise = hotset.advise() if sys.argv[2] == "with" else None
start = time.process_time()
if advise is None:
    names["main"]()
else:
    with advise:
        names["main"]()
print(time.process_time() - start)
"""


def measure(program: str, how: str) -> float:
    """Returns the processor time of one run, in seconds."""
    command = [sys.executable, "-c", MEASURE, program, how]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Prints the table."""
    rounds = 3 if "--quick" in sys.argv else 9
    print(f"CPython {sys.version.split()[0]}\n\n| program of a million calls | without | with | ratio |\n|---|---|---|---|")
    for name, program in PROGRAMS.items():
        pairs = [(measure(program, "without"), measure(program, "with")) for _ in range(rounds)]
        without, with_advice = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"| {name} | {without * 1e3:.0f} ms | {with_advice * 1e3:.0f} ms | {ratio:.2f} |")


if __name__ == "__main__":
    main()
