"""Django's settings for all tests of the backends: a process can be configured only once."""

import sys
from pathlib import Path

import pytest

django = pytest.importorskip("django")

from django.conf import settings  # noqa: E402

SERVERS = Path(__file__).parents[2] / "tests" / "tier2"
sys.path.insert(0, str(SERVERS))

settings.configure(
    CACHES={"default": {"BACKEND": "hotset.django.HotsetCache"}},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["hotset.django"],
    SECRET_KEY="a secret key for tests",
    USE_TZ=True,
    ROOT_URLCONF=__name__,
)
urlpatterns = []
django.setup()
