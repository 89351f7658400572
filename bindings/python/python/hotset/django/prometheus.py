"""The application "hotset.django.prometheus.PrometheusConfig": Prometheus's metrics under Django.

Writes what the caches of the process have counted after each request (`hotset.prometheus.push`).
The setting `HOTSET_PROMETHEUS` is a dict of the arguments of `hotset.prometheus.configure`.
"""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_finished

from hotset import prometheus


def push_after_request(sender: Any, **kwargs: Any) -> None:
    """Pushes. Connected to `request_finished`."""
    prometheus.post_request(None, None)


class PrometheusConfig(AppConfig):
    """Connects to the end of requests."""

    name = "hotset.django.prometheus"
    label = "hotset_prometheus"
    verbose_name = "hotset: metrics for Prometheus"

    def ready(self) -> None:
        """Applies the settings. Called by Django when all applications are loaded."""
        given = getattr(settings, "HOTSET_PROMETHEUS", {})
        try:
            prometheus.configure(**given)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"HOTSET_PROMETHEUS: {error}") from error
        request_finished.connect(push_after_request, dispatch_uid="hotset.django.prometheus")
