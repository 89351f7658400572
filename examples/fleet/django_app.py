"""The shop in Django, in one file. Its template caches by `{% cache %}`, hence by CACHES."""

import os
from typing import Any

import caching
import django
import redis
import source
import worker
from django.conf import settings
from django.core.cache.backends.redis import RedisCache
from django.core.handlers.wsgi import WSGIHandler
from django.http import Http404, HttpResponse, JsonResponse
from django.template import engines
from django.urls import path
from source import Product

_PAGE = """{% load cache %}{% cache 300 page number version %}<h1>{{ name }}</h1><p>Buyers also took:</p>\
<ul>{% for other in bought_with %}<li>{{ other }}</li>{% endfor %}</ul>{% endcache %}"""


class LenientRedisCache(RedisCache):
    """Django's own backend, with a server that does not answer treated as empty.

    (Django's raises, which fails the request.)
    """

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        try:
            return super().get(key, default, version)
        except redis.RedisError:
            return default

    def set(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().set(*args, **kwargs)
        except redis.RedisError:
            pass


_CACHES: dict[str, dict[str, Any]] = {
    "hotset": {
        "BACKEND": "hotset.django.TieredCache",
        "LOCATION": os.environ.get("FLEET_REDIS", ""),
        "OPTIONS": {"MAX_ENTRIES": caching.MAXSIZE, "prefix": "fleet", "local_ttl": caching.LOCAL_TTL},
    },
    "redis": {
        "BACKEND": "django_app.LenientRedisCache",
        "LOCATION": os.environ.get("FLEET_REDIS", ""),
        "OPTIONS": {"socket_timeout": caching.TIMEOUT, "socket_connect_timeout": caching.TIMEOUT, "retry": None},
    },
    "functools": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": caching.MAXSIZE}},
    "none": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
}


class RefuseWhenOut:
    """Middleware: answers 503 while the worker is out of service."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __call__(self, request: Any) -> Any:
        return HttpResponse("out of service", status=503) if worker.is_out() else self._answer(request)


def product(request: Any, number: int) -> JsonResponse:
    """Returns a product, and the worker that answers; changes it, if the method is PUT."""
    if request.method == "PUT":
        version = source.update(number, int(request.GET["version"]))
        if version is None:
            raise Http404
        return JsonResponse({"version": version, "confirmed": caching.tiers.invalidate(number), "worker": os.getpid()})
    found = caching.tiers.product(number)
    if found is None:
        raise Http404
    shown = Product._make(found)
    return JsonResponse({"number": number, "version": shown.version, "page": page(shown), "worker": os.getpid()})


def page(shown: Product) -> str:
    """Renders a product."""
    rendered: str = _template.render(shown._asdict())
    return rendered


urlpatterns = [path("product/<int:number>", product)]

settings.configure(
    ALLOWED_HOSTS=["*"],
    CACHES={"default": _CACHES[caching.MODE]},
    # The second one sets Content-Length: without it, a part of a response of a killed worker looks
    # whole.
    MIDDLEWARE=["django_app.RefuseWhenOut", "django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF="django_app",
    # (Signs what is on the server.)
    SECRET_KEY="for a demo on loopback only",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
django.setup()
_template = engines["django"].from_string(_PAGE)
app = WSGIHandler()


def begin() -> int:
    """Warms the worker from Redis: pages are in Django's cache, which has two tiers, too."""
    caching.prewarm(page)
    return 0


def end() -> None:
    """Nothing is saved."""
