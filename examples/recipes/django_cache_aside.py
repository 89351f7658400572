"""Cache-aside in Django: views read through the cache, and commits invalidate it.

    python examples/recipes/django_cache_aside.py
"""

import os
from typing import Any

import django
from django.apps import AppConfig
from django.conf import settings


class Shop(AppConfig):
    """The application, which is this file here."""

    name = "__main__"
    label = "shop"
    path = os.path.dirname(os.path.abspath(__file__))


settings.configure(
    CACHES={"default": {"BACKEND": "hotset.django.HotsetCache", "TIMEOUT": 300, "OPTIONS": {"MAX_ENTRIES": 10_000}}},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["hotset.django", "__main__.Shop"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.core.cache import cache  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.db.models.signals import post_delete, post_save  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402


class Product(models.Model):
    """A product."""

    name: "models.CharField[str, str]" = models.CharField(max_length=100)
    cents: "models.IntegerField[int, int]" = models.IntegerField()

    class Meta:
        app_label = "shop"


def product(id: int) -> Any:
    """Returns a product, from the cache or else from the database.

    Concurrent requests of a cold product make one query.
    """
    return cache.get_or_set(f"product:{id}", lambda: Product.objects.get(id=id))


def forget(sender: type[Product], instance: Product, **kwargs: Any) -> None:
    """Removes a product from the cache when the transaction that changed it has been committed.

    Before that, another request would load the old row again. A rollback leaves the cache as it is.
    """
    id = instance.pk
    transaction.on_commit(lambda: cache.delete(f"product:{id}"))


post_save.connect(forget, sender=Product)
post_delete.connect(forget, sender=Product)


def main() -> None:
    with connection.schema_editor() as editor:
        editor.create_model(Product)
    tea = Product.objects.create(name="tea", cents=320)

    with CaptureQueriesContext(connection) as queries:
        for _ in range(100):
            assert product(tea.pk).cents == 320
    print(f"100 requests: {len(queries)} query")
    assert len(queries) == 1

    with transaction.atomic():
        tea.cents = 350
        tea.save()
        print(f"in the transaction, others still see {product(tea.pk).cents}")
        assert product(tea.pk).cents == 320
    print(f"after the commit: {product(tea.pk).cents}")
    assert product(tea.pk).cents == 350

    try:
        with transaction.atomic():
            tea.cents = 999
            tea.save()
            raise RuntimeError("something else failed")
    except RuntimeError:
        pass
    print(f"after a rollback: {product(tea.pk).cents}")
    assert product(tea.pk).cents == 350

    # `update` sends no signal: the caller of it invalidates.
    with transaction.atomic():
        changed = list(Product.objects.filter(cents__lt=400).values_list("id", flat=True))
        Product.objects.filter(id__in=changed).update(cents=400)
        transaction.on_commit(lambda: cache.delete_many([f"product:{id}" for id in changed]))
    assert product(tea.pk).cents == 400


if __name__ == "__main__":
    main()
