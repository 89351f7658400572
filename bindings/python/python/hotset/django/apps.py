"""The application "hotset.django": checks of the settings, and `manage.py hotset`."""

from django.apps import AppConfig
from django.core import checks

from hotset.django._checks import check_caches


class HotsetConfig(AppConfig):
    """Registers the checks of the settings."""

    name = "hotset.django"
    # By default it would be the last part of the name, "django".
    label = "hotset"
    verbose_name = "hotset"

    def ready(self) -> None:
        """Registers the checks. Called by Django when all applications are loaded."""
        checks.register(check_caches, checks.Tags.caches)
