"""Django's cache framework on hotset: a backend that lives in the process.

    CACHES = {"default": {"BACKEND": "hotset.django.HotsetCache"}}

Add "hotset.django" to INSTALLED_APPS for the checks of these settings, and for `manage.py hotset`.
"""

from hotset.django._backend import HotsetCache

__all__ = ["HotsetCache"]
