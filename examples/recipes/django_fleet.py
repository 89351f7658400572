"""Cache-aside in Django for all workers: a committed change by one is visible to the others.

    python examples/recipes/django_fleet.py [redis://localhost:6379/0]

Without a URL, it starts a redis-server of its own on a free port of loopback.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from typing import Any

import django
from django.apps import AppConfig
from django.conf import settings


class Shop(AppConfig):
    """The application, which is this file here."""

    name = "__main__"
    label = "shop"
    path = os.path.dirname(os.path.abspath(__file__))


def configure(url: str, database: str) -> None:
    """Configures Django, as the settings of a project do."""
    settings.configure(
        CACHES={
            "default": {
                "BACKEND": "hotset.django.TieredCache",
                "LOCATION": url,
                "TIMEOUT": 300,
                "OPTIONS": {"prefix": "recipe", "local_ttl": 30},
            }
        },
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
        INSTALLED_APPS=["hotset.django", "__main__.Shop"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        # Values on the server are signed with a key made from this.
        SECRET_KEY="the secret key of this recipe",
    )
    django.setup()


def main(url: str, database: str, *, is_second: bool) -> None:
    configure(url, database)
    from django.core.cache import cache
    from django.db import connection, models, transaction
    from django.db.models.signals import post_delete, post_save
    from django.test.utils import CaptureQueriesContext

    from hotset.django import invalidate_on_commit

    class Product(models.Model):
        """A product."""

        name: "models.CharField[str, str]" = models.CharField(max_length=100)
        cents: "models.IntegerField[int, int]" = models.IntegerField()

        class Meta:
            app_label = "shop"

    def product(id: int) -> Any:
        """Returns a product: from this worker, Redis, or, once for all workers, the database."""
        return cache.get_or_set(f"product:{id}", lambda: Product.objects.get(id=id))

    def invalidate(sender: type[Product], instance: Product, **kwargs: Any) -> None:
        """Removes a product in all workers when the transaction that changed it has been committed.

        Before that, another worker would load the old row again. A rollback changes no cache.
        """
        invalidate_on_commit(cache, f"product:{instance.pk}")

    post_save.connect(invalidate, sender=Product)
    post_delete.connect(invalidate, sender=Product)

    if is_second:
        # The other worker: answers requests for a product.
        with CaptureQueriesContext(connection) as queries:
            for line in sys.stdin:
                print(product(int(line)).cents, len(queries), flush=True)
        return

    with connection.schema_editor() as editor:
        editor.create_model(Product)
    tea = Product.objects.create(name="tea", cents=320)

    with worker(url, database) as ask:

        def other(id: int) -> int:
            return int(ask(id)[0])

        with CaptureQueriesContext(connection) as queries:
            for _ in range(100):
                assert product(tea.pk).cents == other(tea.pk) == 320
        count = len(queries) + int(ask(tea.pk)[1])
        print(f"200 requests of two workers: {count} query")
        assert count == 1

        with transaction.atomic():
            tea.cents = 350
            tea.save()
            print(f"in the transaction, the other worker still sees {other(tea.pk)}")
            assert other(tea.pk) == 320
        begin = time.monotonic()
        assert product(tea.pk).cents == 350
        while other(tea.pk) != 350:
            assert time.monotonic() < begin + 30, "the other worker was not notified"
        print("after the commit: both see 350")

        try:
            with transaction.atomic():
                tea.cents = 999
                tea.save()
                raise RuntimeError("something else failed")
        except RuntimeError:
            pass
        assert product(tea.pk).cents == other(tea.pk) == 350
        print("after a rollback: both see 350")

        # `update` sends no signal: the caller of it invalidates.
        with transaction.atomic():
            changed = list(Product.objects.filter(cents__lt=400).values_list("id", flat=True))
            Product.objects.filter(id__in=changed).update(cents=400)
            invalidate_on_commit(cache, *[f"product:{id}" for id in changed])
        assert product(tea.pk).cents == 400


@contextlib.contextmanager
def worker(url: str, database: str) -> "Generator[Any]":
    """Starts the other worker; what is yielded asks it for a product, and returns its answer."""
    command = [sys.executable, __file__, "--second", url, database]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        requests, answers = process.stdin, process.stdout
        assert requests is not None and answers is not None

        def ask(id: int) -> list[str]:
            print(id, file=requests, flush=True)
            return answers.readline().split()

        try:
            yield ask
        finally:
            requests.close()


@contextlib.contextmanager
def redis_server(folder: str) -> "Generator[str]":
    """Starts a redis-server on a free port; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert process.poll() is None, "redis-server has ended"
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--second"]:
        main(sys.argv[2], sys.argv[3], is_second=True)
    else:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            url = sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(redis_server(folder))
            main(url, os.path.join(folder, "shop.sqlite3"), is_second=False)
