"""The schema fingerprint: 16 bits that change when the shape of a type changes.

Pure; the same in every process and Python.
"""

from __future__ import annotations

from typing import Final

from xxhash import xxh3_64_intdigest

from metacache.serializers.shapes import UnknownShape, shape_of

__all__ = ["fingerprint"]

UNKNOWN: Final = 0


def fingerprint(type_: object) -> int:
    """Return the fingerprint of *type_*: 1 to 65535, or 0 when its shape cannot be told.

    It is the low 16 bits of the XXH3 hash of the canonical text of the shape: kinds, field names in order, field types,
    constraints, enum values. Class and module names do not count, nor do default values.
    """
    try:
        text = shape_of(type_).text
    except UnknownShape:
        return UNKNOWN
    return xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) & 0xFFFF or 1
