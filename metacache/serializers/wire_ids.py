"""Define which wire ids a serializer may have, so that no other client unpickles a stored value.

pymemcache, pylibmc and others keep their own flags in the low five bits of the client flags: 1 pickle, 2 and 4 numbers,
8 compressed, 16 text. They unpickle a value with the pickle bit, which runs code.
"""

from __future__ import annotations

from typing import Final

__all__ = ["INT", "PRIVATE", "RULE", "is_wire_id"]

INT: Final = 2
"""The wire_id of metacache's own int. Other clients read its values as numbers."""

PRIVATE: Final = frozenset((224, 240))
"""For use within one organisation. Several serializers may share them, with different fingerprints."""

RULE: Final = (
    "a wire_id must be from 16 to 240, a multiple of 32 for a binary format, and a multiple of 32 plus 16 for a text "
    "format: other clients keep their own flags in the low five bits"
)


def is_wire_id(wire_id: object) -> bool:
    """Return whether a serializer may have *wire_id*. False for 2, which only metacache's own int may have."""
    return type(wire_id) is int and 16 <= wire_id <= 240 and wire_id % 16 == 0
