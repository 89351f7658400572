"""The application "hotset.django": checks of the settings, and `manage.py hotset`."""

from django.apps import AppConfig
from django.core import checks

from hotset.django._checks import check_caches


class HotsetConfig(AppConfig):
    """Registers the checks."""

    name = "hotset.django"
    # (Its last part would be "django".)
    label = "hotset"
    verbose_name = "hotset"

    def ready(self) -> None:
        """Called by Django when all applications are loaded."""
        checks.register(check_caches, checks.Tags.caches)
