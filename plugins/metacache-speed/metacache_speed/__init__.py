"""Compiled primitives for metacache."""
from metacache_speed._speed import Builder as Builder, Exchange as Exchange, Owners as Owners
