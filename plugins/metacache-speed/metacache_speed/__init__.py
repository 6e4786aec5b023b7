"""Compiled primitives for metacache, which uses them if this package is installed. See metacache/acceleration.py."""

from metacache_speed._speed import API, Builder, Exchange, Owners, read_window

__all__ = ["API", "Builder", "Exchange", "Owners", "read_window"]
