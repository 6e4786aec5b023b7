"""Which wire ids a serializer may have, so that no other client takes a stored value for code.

pymemcache, pylibmc and others keep their own flags in the low five bits of the client flags: 1 pickle, 2 and 4 numbers,
8 compressed, 16 text. A value whose wire_id sets the pickle bit is unpickled, and so executed, by them.
"""

from __future__ import annotations

from typing import Final

__all__ = ["INT", "PRIVATE", "RULE", "is_wire_id"]

INT: Final = 2
"""The wire_id of metacache's own int: other clients read a number."""

PRIVATE: Final = frozenset((224, 240))
"""For use within one organisation: several serializers may share them, each with fingerprints of its own."""

RULE: Final = (
    "a wire_id is a multiple of 32 for a binary format, 16 more than one for a text format, from 16 to 240, "
    "because other clients keep their own flags in the low five bits"
)


def is_wire_id(wire_id: object) -> bool:
    """Return whether *wire_id* is one that a serializer may have; 2 is only for metacache's own int."""
    return type(wire_id) is int and 16 <= wire_id <= 240 and wire_id % 16 == 0
