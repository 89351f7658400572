"""A numerical recursion: amounts in words, by num2words, which splits numbers recursively."""

import random
from zlib import crc32

from num2words import num2words


def main() -> None:
    """Writes 5,000 amounts of invoices in words, in two languages, and prints their checksum."""
    chance = random.Random(3)
    prices = [chance.randrange(1, 1_000_000) for _ in range(300)]
    checksum = 0
    for _ in range(5000):
        amount = chance.choice(prices)
        for language in ("en", "de"):
            checksum = crc32(num2words(amount, lang=language).encode(), checksum)
    print(f"checksum {checksum:08x}")


if __name__ == "__main__":
    main()
