"""The settings under which Django's own tests run: the default cache, which sessions use too, is a MetaCache."""

from __future__ import annotations

import os

CACHES = {"default": {"BACKEND": "metacache_django.MetaCache", "LOCATION": os.environ["METACACHE_LOCATION"]}}
DATABASES = {name: {"ENGINE": "django.db.backends.sqlite3"} for name in ("default", "other")}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SECRET_KEY = "a key for tests"
USE_TZ = False
