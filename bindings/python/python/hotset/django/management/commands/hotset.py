"""`manage.py hotset`: statistics and hottest keys of hotset's caches, and clearing them."""

import os
from argparse import ArgumentParser
from typing import Any

from django.core.cache import caches
from django.core.management.base import BaseCommand, CommandError

from hotset.django._backend import HotsetCache
from hotset.django._base import Backend
from hotset.django._checks import hotset_aliases


class Command(BaseCommand):
    """Shows or clears hotset's caches."""

    help = (
        "Statistics and hottest keys of hotset's caches, and clearing them. Statistics and keys are those of the process that runs this: call "
        "it by call_command() in the process in question. `clear` of a TieredCache clears it in all processes; of a HotsetCache, in the "
        "process that runs this."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Adds the arguments of the command line.

        Args:
            parser: The parser.
        """
        parser.add_argument("action", choices=("stats", "top", "clear"), help="what to do")
        parser.add_argument("aliases", nargs="*", metavar="ALIAS", help="of CACHES (all of hotset's)")
        parser.add_argument("--limit", type=int, default=10, help="how many keys `top` shows (10)")

    def handle(self, *args: Any, action: str, aliases: list[str], limit: int, **options: Any) -> None:
        """Runs the command.

        Args:
            *args: Ignored.
            action: "stats", "top" or "clear".
            aliases: Aliases of CACHES; none for all of hotset's.
            limit: The greatest number of keys for "top".
            **options: Ignored.

        Raises:
            CommandError: An alias is not one of hotset's, or the server did not confirm `clear`.
        """
        known = hotset_aliases()
        unknown = [alias for alias in aliases if alias not in known]
        if unknown:
            raise CommandError(f"no alias of hotset: {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
        chosen = aliases or list(known)
        if action == "clear":
            self._clear(chosen)
            return
        self.stderr.write(f"(of process {os.getpid()}: what other processes hold and have counted is not seen from here)")
        for alias in chosen:
            backend: Any = caches[alias]
            assert isinstance(backend, Backend)
            if action == "top":
                for key in backend.top_keys(limit):
                    self.stdout.write(f"{alias}: {key}")
            elif isinstance(backend, HotsetCache):
                self.stdout.write(f"{alias}: {_first_tier(backend.stats()._asdict())}")
            else:
                tiered: Any = backend
                self._tiered(alias, tiered.stats())

    def _clear(self, aliases: list[str]) -> None:
        unconfirmed: list[str] = []
        for alias in aliases:
            backend: Any = caches[alias]
            if isinstance(backend, HotsetCache):
                backend.clear()
                self.stdout.write(f"{alias}: cleared in process {os.getpid()}; other processes have caches of their own")
            elif backend.tier.clear():
                self.stdout.write(f"{alias}: cleared in all processes")
            else:
                unconfirmed.append(alias)
        if unconfirmed:
            raise CommandError(f"not cleared, since the server did not confirm it: {', '.join(unconfirmed)}")

    def _tiered(self, alias: str, stats: dict[str, Any]) -> None:
        second, server = stats["tier2"], stats["server"]
        self.stdout.write(f"{alias}: {_first_tier(stats['tier1'])}")
        self.stdout.write(
            f"{alias}: of the server: {second['hits']:,} hits, {second['misses']:,} misses, {second['leases']:,} loads led, {second['waits']:,} "
            f"waits for other callers' loads, {second['writes']:,} writes, {second['removals']:,} removals, {second['unconfirmed']:,} unconfirmed"
        )
        for number, node in server["nodes"].items():
            self.stdout.write(f"{alias}: {server['servers'][number]}: link {node['link']}, announcements {node['bus']}")
        if server["last_failure"]:
            self.stdout.write(f"{alias}: last failure: {server['last_failure']}")


def _first_tier(stats: dict[str, Any]) -> str:
    capacity = "no bound" if stats["capacity"] is None else f"{stats['capacity']:,}"
    hits, misses = stats["hits"], stats["misses"]
    ratio = hits / (hits + misses) if hits + misses else 0.0
    return (
        f"{stats['entries']:,} entries of {capacity}, {hits:,} hits, {misses:,} misses (hit ratio {ratio:.1%}), {stats['evictions']:,} "
        f"evictions, {stats['expirations']:,} expirations, {stats['loads']:,} loads, {stats['waits']:,} waits"
    )
