"""Compiled primitives for metacache."""
from metacache_speed._speed import Builder as Builder, Exchange as Exchange, Owners as Owners, get_heads as get_heads, set_heads as set_heads, read_window as read_window
