"""A cache backend for Django: ``BACKEND = "metacache_django.MetaCache"``. README.md shows the settings."""

from __future__ import annotations

from metacache_django.backend import MetaCache

__all__ = ["MetaCache"]
