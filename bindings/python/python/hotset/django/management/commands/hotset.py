"""`manage.py hotset`: statistics, hottest keys and clearing of the caches inside this process."""

from argparse import ArgumentParser
from typing import Any

from django.core.cache import caches
from django.core.management.base import BaseCommand, CommandError

from hotset.django._backend import HotsetCache
from hotset.django._checks import hotset_aliases


class Command(BaseCommand):
    """Shows or clears the caches of the process that runs it."""

    help = (
        "Statistics and hottest keys of hotset's caches, and clearing them. They live in a process: call this by call_command() in the one "
        "that you ask about."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Adds what the command line may have."""
        parser.add_argument("action", choices=("stats", "top", "clear"), help="what to do")
        parser.add_argument("aliases", nargs="*", metavar="ALIAS", help="of CACHES (all of hotset's)")
        parser.add_argument("--limit", type=int, default=10, help="how many keys `top` shows (10)")

    def handle(self, *args: Any, action: str, aliases: list[str], limit: int, **options: Any) -> None:
        """Runs the command."""
        known = hotset_aliases()
        unknown = [alias for alias in aliases if alias not in known]
        if unknown:
            raise CommandError(f"no alias of hotset: {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
        for alias in aliases or known:
            backend = caches[alias]
            assert isinstance(backend, HotsetCache)
            self._act(action, alias, backend, limit)

    def _act(self, action: str, alias: str, backend: HotsetCache, limit: int) -> None:
        if action == "clear":
            backend.clear()
            self.stdout.write(f"{alias}: cleared")
        elif action == "top":
            for key in backend.top_keys(limit):
                self.stdout.write(f"{alias}: {key}")
        else:
            stats = backend.stats()
            capacity = "no bound" if stats.capacity is None else f"{stats.capacity:,}"
            self.stdout.write(
                f"{alias}: {stats.entries:,} entries of {capacity}, {stats.hits:,} hits, {stats.misses:,} misses "
                f"(hit ratio {stats.hit_ratio:.1%}), {stats.evictions:,} evictions, {stats.expirations:,} expirations, "
                f"{stats.loads:,} loads, {stats.waits:,} waits"
            )
