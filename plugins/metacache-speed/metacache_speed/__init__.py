"""Compiled primitives for metacache, which uses them if this package is installed. See metacache/acceleration.py."""

from metacache_speed._speed import (
    API,
    Builder,
    Exchange,
    Owners,
    count_lines,
    encode_items,
    encode_keys,
    exchange_parts,
    found_values,
    join_window,
    place_items,
    read_window,
    take_items,
    total_size,
)

__all__ = [
    "API",
    "Builder",
    "Exchange",
    "Owners",
    "count_lines",
    "encode_items",
    "encode_keys",
    "exchange_parts",
    "found_values",
    "join_window",
    "place_items",
    "read_window",
    "take_items",
    "total_size",
]
